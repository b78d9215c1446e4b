"""Files of ``torch.save`` in pickle protocol 2, the one that ``torch.load(weights_only=True)`` reads."""

import io
import os
import pickle
import pickletools
import zipfile
from typing import Any


def as_protocol_2(file: Any) -> Any:
    """``file``; if it is a path to a file of a later protocol, a translated copy in memory.

    Nothing is unpickled.
    """
    if not isinstance(file, (str, os.PathLike)) or not zipfile.is_zipfile(file):
        return file
    with zipfile.ZipFile(file) as archive:
        pickled = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickled) != 1 or archive.read(pickled[0])[:2] <= pickle.PROTO + b"\x02":
            return file
        copy = io.BytesIO()
        with zipfile.ZipFile(copy, "w") as target:
            for name in archive.namelist():
                content = archive.read(name)
                target.writestr(name, translate(content) if name == pickled[0] else content)
    copy.seek(0)
    return copy


def translate(pickled: bytes) -> bytes:
    """The same instructions in protocol 2; those that it lacks are kept, and the reader refuses them.

    Raises:
        ValueError: if ``pickled`` is no pickle.
    """
    written = bytearray()
    memo: dict[int, str] = {}
    n_memo = 0
    # texts on the stack that are not written yet: STACK_GLOBAL takes two, which GLOBAL has as its argument
    texts: list[str] = []
    instructions = list(pickletools.genops(pickled))
    ends = [position for _, _, position in instructions[1:]] + [len(pickled)]
    for (opcode, argument, start), end in zip(instructions, ends):
        name = opcode.name
        if name in ("BINUNICODE", "SHORT_BINUNICODE"):
            texts.append(argument)
        elif name in ("BINGET", "LONG_BINGET") and argument in memo:
            texts.append(memo[argument])
        elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            number = n_memo if name == "MEMOIZE" else argument
            n_memo += 1
            if texts:
                memo[number] = texts[-1]
            else:
                written += pickle.LONG_BINPUT + number.to_bytes(4, "little")
        elif name == "STACK_GLOBAL" and len(texts) >= 2:
            *texts, module, attribute = texts
            written += b"".join(map(_text, texts)) + pickle.GLOBAL + f"{module}\n{attribute}\n".encode()
            texts = []
        elif name != "FRAME":
            written += b"".join(map(_text, texts))
            texts = []
            if name == "PROTO":
                written += pickle.PROTO + b"\x02"
            elif name in ("SHORT_BINBYTES", "BINBYTES"):
                written += (
                    pickle.GLOBAL + b"_codecs\nencode\n" + _text(argument.decode("latin1")) + _text("latin1")
                )
                written += pickle.TUPLE2 + pickle.REDUCE
            else:
                written += pickled[start:end]
    return bytes(written)


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return pickle.BINUNICODE + len(encoded).to_bytes(4, "little") + encoded
