"""The command, of which one process is lost: LOST says in what, its rank, and the signal that it gets."""

import os
import sys
from functools import wraps

import torch.distributed as dist
from recbole.trainer import Trainer

from recbole_dsl import cli
from recbole_dsl.checkpoint import archive
from recbole_dsl.training.trainer import DSLMixin

_PHASE, _RANK, _SIGNAL = os.environ["LOST"].split()
# the process is lost when there is a state to go on from
_KEPT_STATES = 3
# the first process is lost with a state half written, the others when they wait for it
_SAVING = (archive, "_append_checksum") if _RANK == "0" else (DSLMixin, "_keep_last")
_EVALUATING = Trainer, "_full_sort_batch_eval"
_kept = 0


def _counted(keep):
    @wraps(keep)
    def method(*args, **kwargs):
        global _kept
        keep(*args, **kwargs)
        _kept += 1

    return method


def _lost(usual):
    @wraps(usual)
    def method(*args, **kwargs):
        if _kept >= _KEPT_STATES and dist.get_rank() == int(_RANK):
            os.kill(os.getpid(), int(_SIGNAL))
        return usual(*args, **kwargs)

    return method


owner, name = _SAVING if _PHASE == "saving" else _EVALUATING
setattr(owner, name, _lost(getattr(owner, name)))
DSLMixin._keep_last = _counted(DSLMixin._keep_last)

if __name__ == "__main__":
    cli.main(["train", *sys.argv[1:]], program="run_recbole_dsl")
