"""The largest singular values of a sparse matrix, and their vectors."""

import numpy as np
from scipy.linalg import qr
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import svds

# columns of random numbers that the space grows from
_WIDTH = 16
# a block with less than this share outside the space adds nothing to it
_NOTHING = 1e-5
# values below this share of the largest are taken for zero: squares in single precision do not tell them from it
_ZERO = 1e-3
# blocks of the space. Of interactions, from 2 to 165 a user, the least of 64 singular values is then right to 2 %,
# the 32 largest to 0.3 %
ACCURATE = 24
# enough to choose between factorisations: the least is right to 5 %, the 32 largest to 2 %
QUICK = 16


def largest_singular(
    matrix: csr_matrix, n: int, seed: int, depth: int = ACCURATE
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Left vectors, values (descending) and right vectors of the ``n`` largest singular values, without zeros.

    The vectors are the best ones in a block Krylov space (Musco and Musco 2015, algorithm 2), which few passes
    over the matrix span. What stands out from noise is found to all digits of single precision, noise is not.

    Args:
        matrix: (rows, columns), float32.
        n: at most; fewer if the others are zero.
        seed: of the random block that the space grows from.
        depth: blocks of the space, each of a quarter of ``n`` columns, and of 16 at least.

    Returns:
        Float32: (rows, k), (k,) and (columns, k). The entry of a left vector that is largest in magnitude is
        positive.
    """
    if not matrix.count_nonzero():
        left, right = (np.full((size, 1), size**-0.5, dtype=np.float32) for size in matrix.shape)
        return left, np.full(1, 1e-12, dtype=np.float32), right
    width = max(_WIDTH, n // 4)
    if width * depth < min(matrix.shape):
        # the basis is what takes time to make orthonormal: the smaller side gets it
        sides = matrix, matrix.T.tocsr()
        if matrix.shape[0] <= matrix.shape[1]:
            left, sizes, right = _best_in(*_krylov_space(*sides, width, depth, seed), n)
        else:
            right, sizes, left = _best_in(*_krylov_space(*sides[::-1], width, depth, seed), n)
    else:
        left, sizes, right = np.linalg.svd(matrix.toarray(), full_matrices=False)
        left, sizes, right = left[:, :n], sizes[:n], right[:n].T
    n = max(1, int((sizes > _ZERO * sizes[0]).sum()))
    left, right = left[:, :n], right[:, :n]
    # a sign is arbitrary, and matters to a model with layers above the tables
    signs = np.where(left[np.abs(left).argmax(0), np.arange(n)] < 0, -1, 1).astype(np.float32)
    return left * signs, np.maximum(sizes[:n], 1e-12), right * signs


def second_singular(matrix: csr_matrix, seed: int) -> float:
    """The second largest singular value of ``matrix``, to two digits or more; the only one if there is one."""
    if not matrix.count_nonzero():
        return 0.0
    if min(matrix.shape) <= 2:
        return float(np.linalg.svd(matrix.toarray(), compute_uv=False)[:2][-1])
    start = np.random.default_rng(seed).standard_normal(min(matrix.shape)).astype(matrix.dtype)
    return float(svds(matrix, k=2, v0=start, tol=1e-2, return_singular_vectors=False).min())


def _krylov_space(
    matrix: csr_matrix, transposed: csr_matrix, width: int, depth: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """An orthonormal basis, (rows, width * depth or fewer), and its images by the ``transposed`` of ``matrix``."""
    basis, images = (np.empty((size, width * depth), dtype=np.float32) for size in matrix.shape)
    block = np.random.default_rng(seed).standard_normal((matrix.shape[1], width)).astype(np.float32)
    for begin in range(0, width * depth, width):
        block = matrix @ block
        # twice is enough in floating point (Giraud et al. 2005), also where only rounding is left
        for _ in range(2):
            size = np.linalg.norm(block)
            block -= basis[:, :begin] @ (basis[:, :begin].T @ block)
            if np.linalg.norm(block) <= _NOTHING * size:
                return basis[:, :begin], images[:, :begin]
            # NumPy's would compute in double precision
            block = qr(block, mode="economic", check_finite=False)[0]
        basis[:, begin : begin + width] = block
        block = images[:, begin : begin + width] = transposed @ block
    return basis, images


def _best_in(basis: np.ndarray, images: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ``n`` largest singular values of the matrix projected onto ``basis``, and their vectors."""
    squares, turn = np.linalg.eigh((images.T @ images).astype(np.float64))
    turn = turn[:, : -n - 1 : -1].astype(np.float32)
    sizes = np.sqrt(np.maximum(squares[: -n - 1 : -1], 0)).astype(np.float32)
    return basis @ turn, sizes, images @ turn / np.maximum(sizes, 1e-12)
