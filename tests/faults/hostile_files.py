"""Checkpoints that are damaged, cut off, foreign or hostile: none runs code, crashes or changes anything."""

import copy
import os
import pickle
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.faults.command import Row
from tests.faults.forks import start, wait
from tests.running import prepare
from tests.tiny import write_tiny

OPTIONS = {
    "data_path": "data", "load_col": {"inter": ["user_id", "item_id"]}, "epochs": 2, "train_batch_size": 128,
    "embedding_size": 8, "density": 0.3, "update_interval": 4, "grow_window": 3, "stop_fraction": 1.0,
    "show_progress": False,
}  # fmt: skip
# what must not come into being; each hostile text and pickle would make it
MARK = "ran"
CODE = f"__import__('os').system('touch {MARK}')"


class Bomb:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return os.system, (f"touch {MARK}",)


@dataclass(frozen=True)
class HostileFile:
    """Makes a file "hostile.last" out of a whole one, and says what may become of it.

    Attributes:
        make: given the bytes and the content of a last state, returns bytes, or content to be written with a
            checksum; it may put further files into the folder.
        may_load: whether loading it may succeed, the hostile part being passed over.
    """

    name: str
    make: Callable[[bytes, dict], Any]
    may_load: bool = False


def run() -> Iterator[Row]:
    """Give each to every function that reads files."""
    import recbole_dsl.training.quick_start  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        base = make_base(Path(folder))
        for case in CASES:
            yield Row(case.name, problem(case, base, Path(folder)))


def make_base(folder: Path) -> bytes:
    """Train a model on data in ``folder``; returns its last state."""
    write_tiny(folder / "data" / "tiny") if (folder / "data").mkdir() is None else None
    child = start(_train, folder, folder / "base.txt")
    if wait(child):
        raise RuntimeError((folder / "base.txt").read_text())
    (last,) = (folder / "saved").glob("*.last")
    content = last.read_bytes()
    for file in (folder / "saved").iterdir():
        file.rename(folder / f"base{file.suffix}")
    return content


def problem(case: HostileFile, base: bytes, folder: Path) -> str | None:
    """What is wrong with how ``case`` was taken; None if nothing."""
    place = folder / "place"
    place.mkdir()
    try:
        (place / "data").symlink_to(folder / "data")
        (place / "hostile.pth").write_bytes((folder / "base.pth").read_bytes())
        child = start(partial(_make, case, base), place, folder / "make.txt")
        if wait(child):
            return f"the case itself: {(folder / 'make.txt').read_text()[-400:]}"
        before = _files(place)
        code = wait(start(partial(_use, case), place, folder / "use.txt"))
        text = (folder / "use.txt").read_text(errors="replace")
        if code:
            return f"exit code {code}: {text[-400:]}"
        after = _files(place)
        if after != before:
            return f"files changed: {sorted(set(after.items()) ^ set(before.items()))[:4]}"
        return None
    finally:
        _remove(place)


def _train() -> None:
    from recbole_dsl import run_recbole_dsl

    run_recbole_dsl("BPR", "tiny", config_dict=OPTIONS)


def _make(case: HostileFile, base: bytes) -> None:
    from recbole_dsl.checkpoint.archive import write_archive

    Path("base").write_bytes(base)
    content = torch.load("base", weights_only=True)
    os.unlink("base")
    made = case.make(base, content)
    if isinstance(made, bytes):
        Path("hostile.last").write_bytes(made)
    else:
        write_archive("hostile.last", lambda file: torch.save(made, file))


def _use(case: HostileFile) -> None:
    """Load it, evaluate it and go on from it; raise where that runs code or changes anything."""
    from recbole_dsl import DSLError, DSLTrainer, load_data_and_model, run_recbole_dsl

    # where no pickle lies
    config, model, train_data, valid_data, test_data = prepare("BPR", {**OPTIONS, "checkpoint_dir": "empty"})
    trainer = DSLTrainer(config, model)
    events: list[str] = []
    watch(events)
    uses = {
        "load": lambda: load_data_and_model("hostile.last"),
        "evaluate": lambda: trainer.evaluate(test_data, model_file="hostile.last"),
        "resume": lambda: trainer.resume_checkpoint("hostile.last"),
        "run": lambda: run_recbole_dsl("BPR", "tiny", config_dict={"resume": "hostile.last"}, saved=False),
    }
    refused = []
    for name, use in uses.items():
        before = _state(trainer)
        watched = len(events)
        try:
            use()
        except DSLError as error:
            if "\n" in str(error) or len(str(error)) > 700:
                raise AssertionError(f"{name}: not one line: {error}") from error
            refused.append(name)
            if name != "run" and _differs(before, _state(trainer)):
                raise AssertionError(f"{name}: refused, but the trainer has changed") from error
        if name != "run" and len(events) > watched:
            raise AssertionError(f"{name}: {events[watched:]}")
    for folder in ("log", "log_tensorboard", "empty"):
        _remove(Path(folder))
    if os.path.exists(MARK):
        raise AssertionError("code ran")
    if not refused and not case.may_load:
        raise AssertionError("nothing refused it")
    if "resume" not in refused:
        # what it says of the data is compared when that is known
        with suppress(DSLError):
            trainer.fit(train_data, valid_data, saved=False, verbose=False)
        for folder in ("log_tensorboard", "empty"):
            _remove(Path(folder))


def watch(events: list[str]) -> None:
    """Note what unpickles, starts processes, or opens files to write."""

    def hook(name: str, args: tuple) -> None:
        if name in ("os.system", "subprocess.Popen", "socket.connect", "pickle.find_class"):
            events.append(f"{name} {args[:2]}")
        if name == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+") and args[0] != os.devnull:
            events.append(f"{name} {args[:2]}")

    sys.addaudithook(hook)


def _state(trainer: Any) -> dict:
    parts = {
        "model": trainer.model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "topology": trainer.topology.state_dict(),
        "trainer": [trainer.start_epoch, trainer.cur_step, trainer.saved_model_file, trainer.best_valid_score],
    }
    return copy.deepcopy(parts)


def _differs(one: Any, other: Any) -> bool:
    from tests.faults.kills import difference

    return difference(one, other) is not None


def _files(folder: Path) -> dict[str, bytes]:
    found = {str(p.relative_to(folder)): p for p in folder.rglob("*") if "data/" not in str(p)}
    return {name: path.read_bytes() if path.is_file() else b"" for name, path in sorted(found.items())}


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _flipped(seed: int, base: bytes, _: dict) -> bytes:
    place = random.Random(seed).randrange(8 * len(base))
    damaged = bytearray(base)
    damaged[place // 8] ^= 1 << (place % 8)
    return bytes(damaged)


def _cut(seed: int, base: bytes, _: dict) -> bytes:
    return base[: random.Random(seed).randrange(len(base))]


def _with(path: tuple, value: Any, _: bytes, content: dict) -> dict:
    """``content`` with ``value`` at ``path``; a function is applied to what is there, ... removes it."""
    target = content
    for key in path[:-1]:
        target = target[key]
    if value is ...:
        del target[path[-1]]
    else:
        target[path[-1]] = value(target[path[-1]]) if callable(value) else value
    return content


def _damaged() -> Iterator[HostileFile]:
    for seed in range(120):
        yield HostileFile(f"flipped bit {seed}", partial(_flipped, seed))
    for seed in range(40):
        yield HostileFile(f"cut off {seed}", partial(_cut, seed))
    yield HostileFile("empty", lambda base, _: b"")
    yield HostileFile("text", lambda base, _: b"not a model\n")
    yield HostileFile("something appended", lambda base, _: base + b"x")
    yield HostileFile("something before", lambda base, _: b"x" + base)
    yield HostileFile("two files in one", lambda base, _: base + base)
    yield HostileFile("a pickle", lambda base, _: pickle.dumps(Bomb()))
    yield HostileFile("PyTorch's old format", lambda base, content: _old_format(content))
    yield HostileFile("a pickle in PyTorch's format", lambda base, content: _saved_bomb(content))
    yield HostileFile("foreign", lambda base, _: {"state_dict": {}})
    yield HostileFile("a list", lambda base, _: [1, 2, 3])
    yield HostileFile("a tensor", lambda base, _: torch.ones(3))


def _old_format(content: dict) -> bytes:
    import io

    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def _saved_bomb(content: dict) -> bytes:
    import io

    buffer = io.BytesIO()
    torch.save({**content, "bomb": Bomb()}, buffer)
    return buffer.getvalue()


# what stands where something else is due
_WRONG: dict[str, Any] = {
    "None": None, "text": "zzz", "a number": 7, "negative": -3, "huge": 10**30, "not a number": float("nan"),
    "infinite": float("inf"), "a list": [], "a dict": {}, "a tensor": torch.ones(2), "True": True,
}  # fmt: skip
_PARTS = (
    "format", "version", "run", "model", "dataset", "config", "dsl", "epoch", "cur_step", "best_valid_score",
    "best_valid_result", "state_dict", "other_parameter", "attributes", "learners", "optimizers", "schedulers",
    "topology", "random_state", "record",
)  # fmt: skip
# values that are right there
_RIGHT = {
    ("run", "text"), ("dataset", "text"), ("epoch", "a number"), ("cur_step", "a number"),
    ("best_valid_score", "a number"), ("best_valid_score", "negative"), ("best_valid_score", "huge"),
    ("best_valid_score", "infinite"), ("best_valid_result", "None"), ("best_valid_result", "a dict"),
    ("other_parameter", "a dict"), ("attributes", "a dict"), ("schedulers", "a dict"), ("config", "a dict"),
    ("dsl", "a dict"), ("record", "a dict"),
}  # fmt: skip


def _parts() -> Iterator[HostileFile]:
    for part in _PARTS:
        yield HostileFile(f"no {part}", partial(_with, (part,), ...))
        for words, value in _WRONG.items():
            right = (part, words) in _RIGHT
            yield HostileFile(f"{part} is {words}", partial(_with, (part,), value), may_load=right)


_TABLE = ("state_dict", "item_embedding.weight.values")
_COLUMNS = ("state_dict", "item_embedding.weight.columns")
_OFFSETS = ("state_dict", "item_embedding.weight.row_offsets")
_GROUP = ("optimizers", 0, "param_groups", 0)
_MOMENT = ("optimizers", 0, "state", 1, "exp_avg")


def _set(tensor: torch.Tensor, place: int, value: float) -> torch.Tensor:
    changed = tensor.clone()
    changed.view(-1)[place] = value
    return changed


def _tensors() -> Iterator[HostileFile]:
    changes: list[tuple[tuple, str, Any]] = [
        *((path, "longer", lambda t: torch.cat([t, t])) for path in (_TABLE, _COLUMNS, _OFFSETS, _MOMENT)),
        *((path, "shorter", lambda t: t[:-1].clone()) for path in (_TABLE, _COLUMNS, _OFFSETS, _MOMENT)),
        *((path, "text", "zzz") for path in (_TABLE, _COLUMNS, _OFFSETS, _MOMENT)),
        *((path, "of doubles", lambda t: t.double()) for path in (_COLUMNS, _OFFSETS)),
        *((path, "of long integers", lambda t: t.long()) for path in (_TABLE, _COLUMNS, _OFFSETS, _MOMENT)),
        *((path, "a table", lambda t: t[:8].view(2, 4)) for path in (_TABLE, _COLUMNS, _OFFSETS, _MOMENT)),
        *((path, "sparse", lambda t: t.float().to_sparse()) for path in (_TABLE, _MOMENT)),
        *((path, "one number spread out", lambda t: t[:1].expand(len(t))) for path in (_MOMENT,)),
        *((path, "with a NaN", lambda t: _set(t, 3, float("nan"))) for path in (_TABLE, _MOMENT)),
        (_COLUMNS, "outside the table", lambda t: _set(t, 3, 200)),
        (_COLUMNS, "in another order", lambda t: t.flip(0)),
        (_OFFSETS, "falling", lambda t: _set(t, 2, 9999)),
        (_OFFSETS, "negative", lambda t: _set(t, 0, -5)),
        (("optimizers", 0, "state", 1, "exp_avg_sq"), "negative", lambda t: t - 1),
        (("optimizers", 0, "state", 1, "step"), "negative", lambda t: t - 100),
        (("optimizers", 0, "state", 1, "step"), "text", "zzz"),
        (("optimizers", 0, "state", 1), "without a moment", lambda s: {"exp_avg": s["exp_avg"]}),
        (("optimizers", 0, "state", 1), "with another entry", lambda s: {**s, "zzz": torch.ones(3)}),
        (("optimizers", 0, "state"), "of a parameter that there is not", lambda s: {**s, 9: s[1]}),
        (("optimizers", 0, "state"), "with a text for a key", lambda s: {"zzz": s[1]}),
        ((*_GROUP, "lr"), "text", "zzz"),
        ((*_GROUP, "lr"), "infinite", float("inf")),
        ((*_GROUP, "betas"), "one", [0.9]),
        ((*_GROUP, "betas"), "text", "ab"),
        ((*_GROUP, "params"), "others", [7, 8]),
        (("optimizers",), "two", lambda o: o + o),
        (("learners",), "another", ["SGD"]),
        (("topology", "step"), "text", "zzz"),
        (("topology", "generator"), "short", lambda t: t[:9].clone()),
        (("topology", "generator"), "of ones", torch.ones_like),
        (("topology", "explored"), "empty", {}),
        (("topology", "explored", "item_embedding.weight"), "longer", lambda t: torch.cat([t, t])),
        (("topology", "explored", "item_embedding.weight"), "text", "zzz"),
        (("topology", "explored_count"), "text", "zzz"),
        (("topology", "explored_count", "item_embedding.weight"), "negative", -1),
        (("topology", "updates"), "others", [{"step": 1}]),
        (("topology", "updates"), "with code", [{"step": CODE}]),
        (("topology", "window"), "of another weight", {"zzz": {}}),
        (("topology", "window"), "text", "zzz"),
        (("random_state", "torch"), "short", lambda t: t[:9].clone()),
        (("random_state", "python"), "short", [3, [1, 2], None]),
        (("random_state", "python"), "text", "zzz"),
        (("random_state", "numpy"), "far out", lambda n: [*n[:2], 10**9, *n[3:]]),
        (("random_state", "numpy"), "text", "zzz"),
        (("random_state", "loaders"), "text", "zzz"),
        (("random_state", "loaders"), "short", [torch.ones(3, dtype=torch.uint8)]),
        (("state_dict",), "with another", lambda s: {**s, "zzz": torch.ones(2)}),
        (("state_dict",), "of other keys", lambda s: {1: torch.ones(2)}),
        (("other_parameter",), "that is a method", {"forward": 1}),
        (("other_parameter",), "that is private", {"_modules": {}}),
        (("attributes",), "that is a method", {"": {"forward": 1}}),
        (("attributes",), "of the trainer", {"trainer": {"checkpoint_dir": "elsewhere"}}),
        (("attributes",), "of the trainer's file", {"trainer": {"saved_model_file": "elsewhere"}}),
        (("attributes",), "of another kind", {"": {"embedding_size": "zzz"}}),
        (("attributes",), "of no module", {"zzz": {"a": 1}}),
        (("schedulers",), "that there is not", {"scheduler": {"_step_count": 3}}),
        (("model",), "a path", "../../evil"),
        (("model",), "code", CODE),
        (("model",), "no model", "AbstractRecommender2"),
        (("dataset",), "a path", "../place"),
        (("dataset",), "code", CODE),
    ]  # fmt: skip
    for path, words, value in changes:
        yield HostileFile(f"{'.'.join(map(str, path))}: {words}", partial(_with, path, value))


def _bomb_at(path: str) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(Bomb()))
    return file


def _options(changes: dict[str, Any], bombs: tuple[str, ...], _: bytes, content: dict) -> dict:
    for bomb in bombs:
        _bomb_at(bomb)
    content["config"] = {**content["config"], **changes}
    return content


_EVALUATED = """
zzz seed embedding_size metrics topk eval_args train_neg_sample_args data_path valid_metric learner state load_col
user_inter_num_interval val_interval density USER_ID_FIELD field_separator benchmark_filename loss_decimal_place
gpu_id epochs learning_rate checkpoint_dir pre_model_path teacher reproducibility
"""


def _hostile_options() -> Iterator[HostileFile]:
    for name in _EVALUATED.split():
        yield HostileFile(f"option {name} is code", partial(_options, {name: CODE}, ()), may_load=True)
    loaders, dataset = "tiny-for-BPR-dataloader.pth", "tiny-Dataset.pth"
    for name, changes, bombs in (
        ("dataset_save_path", {"dataset_save_path": "bomb"}, ("bomb",)),
        ("dataloaders_save_path", {"dataloaders_save_path": "bomb"}, ("bomb",)),
        ("a dataset in saved", {}, (f"saved/{dataset}",)),
        ("loaders in saved", {}, (f"saved/{loaders}",)),
        ("a dataset in checkpoint_dir", {"checkpoint_dir": "there"}, (f"there/{dataset}", f"there/{loaders}")),
        ("a dataset here", {"checkpoint_dir": "."}, (dataset, loaders)),
        ("save_dataset", {"save_dataset": True, "checkpoint_dir": "there"}, ()),
        ("save_dataloaders", {"save_dataloaders": True, "checkpoint_dir": "there"}, ()),
        ("pretraining", {"pre_model_path": "bomb", "use_pretrain": True, "mf_pretrain_path": "bomb"}, ("bomb",)),
        ("processes", {"local_rank": 0, "nproc": 2, "ip": "127.0.0.1", "port": "1", "world_size": 2}, ()),
        ("wandb", {"log_wandb": True}, ()),
        ("a device", {"device": "cuda:7", "gpu_id": "7", "single_spec": False}, ()),
    ):
        yield HostileFile(f"option: {name}", partial(_options, changes, bombs), may_load=True)
    for name, options in (
        ("KD_DAGFM", {"teacher": f"({CODE}, CrossNet)[1]", "phase": "teacher_training"}),
        ("KD_DAGFM", {"teacher": "CrossNet", "phase": "distillation", "warm_up": "bomb"}),
        ("LDiffRec", {"n_cate": 2}),
        ("NeuMF", {"use_pretrain": True, "mf_pretrain_path": "bomb", "mlp_pretrain_path": "bomb"}),
        ("ConvNCF", {"train_method": "after_pretrain", "pre_model_path": "bomb"}),
        ("NAIS", {"pretrain_path": "bomb"}),
    ):
        yield HostileFile(f"{name} with {', '.join(options)}", partial(_other_model, name, options), may_load=True)


def _other_model(name: str, options: dict[str, Any], _: bytes, content: dict) -> dict:
    _bomb_at("bomb")
    np.save("item_emb.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    return {**content, "model": name, "config": {**content["config"], **options}}


CASES = [*_damaged(), *_parts(), *_tensors(), *_hostile_options()]
