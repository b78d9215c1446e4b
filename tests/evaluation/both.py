"""An evaluation by our trainer and by RecBole's, on one model."""

import numpy as np
import torch
from recbole.evaluator import Collector
from recbole.trainer import Trainer
from recbole.utils import init_seed

_LISTS = ("rec.items", "rec.topk", "rec.meanrank", "rec.score")


def both(trainer, test_data):
    """(metrics, what they are computed of, the random numbers that come next), of ours and of RecBole's."""
    ours = _evaluated(trainer, lambda: trainer.evaluate(test_data, load_best_model=False))
    kept, trainer.eval_collector = trainer.eval_collector, Collector(trainer.config)
    trainer.eval_collector.data_collect(trainer.train_data)
    stock = _evaluated(trainer, lambda: Trainer.evaluate(trainer, test_data, load_best_model=False))
    trainer.eval_collector = kept
    return ours, stock


def assert_equal(ours, stock):
    assert ours[0] == stock[0] and ours[2] == stock[2]
    assert ours[1].keys() == stock[1].keys()
    for name, wanted in stock[1].items():
        assert torch.equal(ours[1][name], wanted), name


def _evaluated(trainer, evaluate):
    found = {}
    usual = trainer.eval_collector.get_data_struct

    def get_data_struct():
        struct = usual()
        found.update({name: struct.get(name) for name in _LISTS if name in struct})
        return struct

    trainer.eval_collector.get_data_struct = get_data_struct
    init_seed(0, True)
    result = evaluate()
    del trainer.eval_collector.get_data_struct
    return result, found, (torch.rand(1).item(), np.random.rand())
