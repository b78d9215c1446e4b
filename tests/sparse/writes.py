"""Every way to write into the weight of a module that PyTorch, NumPy and their like have."""

import ctypes
import io
import pickle

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

FEW, NARROW = 60, 8
GIVEN = torch.arange(FEW * NARROW, dtype=torch.float32).view(FEW, NARROW) + 1


def each_row(weight):
    for row, values in zip(weight.data.unbind(), GIVEN):
        row.copy_(values)


def kept_slice(weight):
    part = weight.data[5:7]
    weight.data.zero_()
    part.copy_(GIVEN[5:7])


def from_a_buffer(weight):
    buffer = GIVEN.clone()
    weight.data.copy_(buffer)
    buffer.zero_()


def into_a_buffer(weight):
    weight.data = buffer = torch.zeros(FEW, NARROW)
    buffer.copy_(GIVEN)


def number_that_changes(weight):
    number = torch.tensor(4.0)
    weight.data.fill_(number)
    number.zero_()


def in_halves(weight):
    for part, values in zip(weight.data.chunk(2), GIVEN.chunk(2)):
        part.copy_(values)


def by_pickle(weight):
    weight.data.copy_(GIVEN)
    copied = pickle.loads(pickle.dumps(weight))
    weight.data.zero_()
    weight.data.copy_(copied)


def by_file(weight):
    weight.data = GIVEN * 2
    file = io.BytesIO()
    torch.save({"table": weight}, file)
    file.seek(0)
    weight.data = torch.load(file, weights_only=True)["table"].data


def by_gradient(weight):
    (weight * GIVEN).sum().backward()
    weight.data.copy_(weight.grad)


def by_state(weight):
    module = nn.Module()
    module.weight = weight
    module.load_state_dict({"weight": GIVEN})


def clipped_gradient(weight):
    weight.square().sum().backward()
    nn.utils.clip_grad_norm_([weight], 0.1)
    weight.data.sub_(weight.grad)


@torch.no_grad()
def by_storage(weight):
    own = GIVEN.clone()
    weight.set_(own.untyped_storage(), 0, own.shape, own.stride())


def through_storage(weight):
    storage = weight.data.untyped_storage()
    torch.empty(0).set_(storage, 0, GIVEN.shape, GIVEN.stride()).copy_(GIVEN)


def without_gradient(write):
    def run(weight):
        with torch.no_grad():
            write(weight)

    return run


# name -> function of the weight, (FEW, NARROW)
WRITES = {
    "data": lambda w: setattr(w, "data", GIVEN.clone()),
    "data of its own": lambda w: setattr(w, "data", w.data.fill_(2.0) * GIVEN),
    "set_": without_gradient(lambda w: w.set_(GIVEN.clone())),
    "Tensor.set_": without_gradient(lambda w: torch.Tensor.set_(w, GIVEN.clone())),
    "item": lambda w: w.data.__setitem__(..., GIVEN),
    "item without gradient": without_gradient(lambda w: w.__setitem__(slice(None), GIVEN)),
    "items by index": lambda w: w.data.__setitem__(torch.arange(FEW), GIVEN),
    "items by mask": lambda w: w.data.__setitem__(GIVEN > 5, GIVEN[GIVEN > 5]),
    "numpy": lambda w: np.copyto(w.data.numpy(), GIVEN.numpy()),
    "numpy of a view": lambda w: np.copyto(w.detach().t().numpy(), GIVEN.t().numpy()),
    "numpy.asarray": lambda w: np.copyto(np.asarray(w.data), GIVEN.numpy()),
    "memory": lambda w: ctypes.memmove(w.data_ptr(), GIVEN.data_ptr(), GIVEN.nbytes),
    "dlpack": lambda w: torch.from_dlpack(w.data).copy_(GIVEN),
    "out": lambda w: torch.mul(GIVEN, 2, out=w.data),
    "out without gradient": without_gradient(lambda w: torch.add(GIVEN, 1, out=w)),
    "foreach": lambda w: torch._foreach_copy_([w.data], [GIVEN]),
    "vector_to_parameters": lambda w: nn.utils.vector_to_parameters(GIVEN.reshape(-1).clone(), [w]),
    "swap_tensors": lambda w: torch.utils.swap_tensors(w, nn.Parameter(GIVEN.clone())),
    "index_copy_": lambda w: w.data.index_copy_(0, torch.arange(FEW), GIVEN),
    "another type's view": lambda w: w.data.view(torch.int32).copy_(GIVEN.view(torch.int32)),
    "as_strided": lambda w: w.data.as_strided((FEW * NARROW,), (1,)).copy_(GIVEN.view(-1)),
    "flattened": lambda w: w.data.flatten().__setitem__(slice(None), GIVEN.view(-1)),
    "a generator of one's own": lambda w: w.data.normal_(generator=torch.Generator().manual_seed(3)),
    "map_": lambda w: w.data.map_(GIVEN, lambda old, new: new),
    "mul_": lambda w: w.data.fill_(2.0).mul_(GIVEN),
    "eye_": lambda w: nn.init.eye_(w),
    "in place": without_gradient(lambda w: w.__iadd__(GIVEN)),
    "lerp_": without_gradient(lambda w: w.lerp_(GIVEN, 0.5)),
    "constant_ by name": lambda w: nn.init.constant_(tensor=w, val=3.0),
    "foreach without gradient": without_gradient(lambda w: torch._foreach_add_([w], 1.0)),
    "out of two": lambda w: torch.max(GIVEN[None], 0, out=(w.data, torch.zeros(FEW, NARROW, dtype=torch.long))),
    "an operator": lambda w: torch.ops.aten.copy_(w.data, GIVEN),
    "an operator's form": lambda w: torch.ops.aten.copy_.default(w.data, GIVEN),
    "relu in place": lambda w: F.relu(w.data, inplace=True),
    "a layer in place": lambda w: nn.Hardtanh(0, 0.1, inplace=True)(w.data),
    "max_norm": lambda w: F.embedding(torch.arange(FEW), w.data, max_norm=0.01),
    "storage": lambda w: w.data.untyped_storage().copy_(GIVEN.untyped_storage()),
    "typed storage": lambda w: w.data.storage().copy_(GIVEN.storage()),
    "rows": lambda w: [row.copy_(values) for row, values in zip(w.data, GIVEN)],
    "split": lambda w: [part.copy_(values) for part, values in zip(torch.split(w.data, 7), GIVEN.split(7))],
    "broadcast": lambda w: torch.broadcast_tensors(torch.zeros(1), w.data)[1].copy_(GIVEN),
    "by the name of an argument": lambda w: torch.t(input=w.data).copy_(GIVEN.t()),
    "as_tensor": lambda w: torch.as_tensor(w.data).copy_(GIVEN),
    "clipped gradient": clipped_gradient,
    "momentum": lambda w: torch._fused_sgd_(
        *([w.data], [GIVEN], []),
        **{"weight_decay": 0.0, "momentum": 0.0, "lr": 1.0, "dampening": 0.0, "nesterov": False},
        **{"maximize": False, "is_first_step": True},
    ),
    **{
        write.__name__: write
        for write in (
            *(each_row, kept_slice, from_a_buffer, into_a_buffer, number_that_changes, in_halves, by_pickle),
            *(by_file, by_gradient, by_state, by_storage, through_storage),
        )
    },
}
if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
    # earlier ones give read-only arrays
    WRITES["numpy.from_dlpack"] = lambda w: np.copyto(np.from_dlpack(w.data), GIVEN.numpy())
