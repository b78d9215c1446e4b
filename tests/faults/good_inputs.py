# ruff: noqa: E501
"""What looks odd and is right: a run that RecBole accepts must not be refused."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.command import Done, Row, train
from tests.faults.lines import inter, lines

INTER = "data/tiny/tiny.inter"


@dataclass(frozen=True)
class GoodInput:
    """Arguments and files with which the command trains."""

    name: str
    arguments: tuple[str, ...] = ()
    files: dict[str, str | bytes | None] = field(default_factory=dict)


def _options() -> Iterator[GoodInput]:
    for option in (
        "topk=5 --valid_metric=MRR@5",
        "topk=[1,51] --valid_metric=Recall@1",
        "metrics=NDCG --valid_metric=ndcg@10",
        "metrics=['Recall','GAUC'] --valid_metric=GAUC",
        "metrics=['AUC','LogLoss'] --valid_metric=AUC --eval_args={'mode':'uni5'}",
        "eval_step=0",
        "eval_step=0 --valid_metric=AUC",
        "epochs=0",
        "learning_rate=0",
        "learning_rate=1",
        "stopping_step=0",
        "weight_decay=1e-4",
        "seed=4294967295",
        "gpu_id=",
        "gpu_id=0,1",
        "gpu_id=-1",
        "use_gpu=False",
        "worker=1",
        "learner=Adam",
        "learner=SGD",
        "state=DEBUG",
        "state=warning",
        "clip_grad_norm={'max_norm':1.0}",
        "clip_grad_norm={'max_norm':5,'norm_type':2}",
        "clip_grad_norm={}",
        "eval_args={'split':{'RS':[8,1,1]}}",
        "eval_args={'split':{'RS':[0.8,0.2,0]}}",
        "eval_args={'split':{'RS':[0.8,0,0.2]}}",
        "eval_args={'split':{'LS':'valid_and_test'},'group_by':'user'}",
        "eval_args={'split':{'LS':'test_only'}}",
        "eval_args={'split':{'LS':'valid_only'}}",
        "eval_args={'group_by':None}",
        "eval_args={'group_by':'None'}",
        "eval_args={'mode':'uni10'}",
        "eval_args={'mode':'pop10'}",
        "eval_args={'mode':{'valid':'uni10','test':'full'}}",
        "eval_args={'mode':{'valid':'uni10'}}",
        "load_col={'inter':['user_id','item_id','timestamp']} --eval_args={'order':'TO'}",
        "load_col={'inter':['user_id','item_id','timestamp']} --eval_args={'order':'TO','split':{'TS':[0.8,0.1,0.1]}}",
        "load_col=None",
        "load_col={'inter':'*'}",
        "load_col={'inter':['user_id','item_id'],'kg':['head_id'],'ent':['ent_id'],'user':['user_id']}",
        "model=SINE --load_col=None --train_neg_sample_args=None --loss_type=NLL",
        "load_col={'inter':['user_id','item_id'],'user':['user_id','age']}",
        "load_col=None --unload_col={'user':['age']}",
        "load_col={'inter':['user_id','item_id','rating']} --unused_col={'inter':['rating']}",
        "load_col={'inter':['user_id','item_id','rating']} --val_interval={'rating':'[4,inf)'}",
        "load_col={'inter':['user_id','item_id','rating']} --val_interval={'rating':'[1,2];[4,5]'}",
        "load_col=None --val_interval={'gender':['M']}",
        "load_col={'inter':['user_id','item_id','rating']} --normalize_field=['rating']",
        "load_col={'inter':['user_id','item_id','rating']} --threshold={'rating':4}",
        "user_inter_num_interval=[5,inf)",
        "user_inter_num_interval=[1,100]",
        "user_inter_num_interval=(1,100)",
        "user_inter_num_interval=[1,5];[6,inf)",
        "user_inter_num_interval=None",
        "rm_dup_inter=first",
        "filter_inter_by_user_or_item=False",
        "train_neg_sample_args={'distribution':'popularity','alpha':0.5}",
        "train_neg_sample_args={'sample_num':2}",
        "train_neg_sample_args={'dynamic':True,'candidate_num':2}",
        "repeatable=True",
        "shuffle=0",
        "reproducibility=1",
        "metric_decimal_place=2",
        "exclude=user_embedding",
        "exclude=user_*",
        "targets=item_embedding.weight",
        "own_options=['scheduler','seeds'] --scheduler=step --seeds=[1,2]",
        "own_options=target,lr_scheduler --target=x --lr_scheduler=cosine",
        "an_option_of_a_script=3",
        "n_layers=3",
        "update_interval=1",
        "density=1",
        "save_dataset=False",
        "encoding=utf-8",
        "field_separator=\t",
        "benchmark_filename=None",
        "checkpoint_dir=models",
        "model=NeuMF --mlp_hidden_size=[8]",
        "model=LightGCN --n_layers=0",
        "model=LightGCN --reg_weight=1",
        "model=MultiVAE",
        "model=MultiVAE --train_neg_sample_args=None",
        "model=EulerNet --load_col=None --threshold={'rating':4} --normalize_all=False --exclude=token_embedding_table",
        "model=DCN --load_col=None --threshold={'rating':4} --reg_weight=0.5 --mlp_hidden_size=[8]",
        "model=GRU4Rec --load_col=None --train_neg_sample_args=None",
        "model=GRU4Rec --load_col=None --loss_type=BPR",
        "model=SASRec --load_col=None --train_neg_sample_args=None --n_layers=1 --hidden_dropout_prob=0",
        "model=SASRec --load_col=None --train_neg_sample_args=None --MAX_ITEM_LIST_LENGTH=1",
        "model=CKE --load_col={'inter':['user_id','item_id'],'kg':['head_id','relation_id','tail_id'],'link':['item_id','entity_id']}",
    ):
        first, *others = option.split(" --")
        yield GoodInput(option, tuple(f"--{one}" for one in (first, *others)))


def _files() -> Iterator[GoodInput]:
    head, *rows = lines()
    text = "\n".join(lines()) + "\n"
    yield GoodInput("CRLF", files={INTER: text.replace("\n", "\r\n")})
    yield GoodInput("CR", files={INTER: text.replace("\n", "\r")})
    yield GoodInput("no line break at the end", files={INTER: text.rstrip("\n")})
    yield GoodInput("a last line without an end and with a column too many", files={INTER: f"{text.rstrip()}\t1"})
    yield GoodInput("blank lines", files={INTER: text.replace("\n", "\n\n")})
    yield GoodInput("blank lines at the end", files={INTER: text + "\n\n"})
    yield GoodInput(
        "quotes around ids", files={INTER: "\n".join([head, *(f'"{r}'.replace("\t", '"\t', 1) for r in rows)])}
    )
    yield GoodInput("a quote within an id", files={INTER: text.replace("i7\t", 'i7" long\t')})
    yield GoodInput("a separator in quotes", files={INTER: text.replace("i7\t", '"i\t7"\t')})
    yield GoodInput("a line break in quotes", files={INTER: text.replace("i7\t", '"i\n7"\t')})
    yield GoodInput("ids of many words", files={INTER: text.replace("i7\t", "NA i 7 nan\t")})
    yield GoodInput(
        "ids that begin like missing values",
        files={INTER: text.replace("i7\t", "nano\t").replace("i9\t", "infinite\t")},
    )
    yield GoodInput("ids called inf", files={INTER: text.replace("i7\t", "inf\t")})
    yield GoodInput("ids of other letters", files={INTER: text.replace("i7\t", "Ünïcødé 電影\t")})
    yield GoodInput(
        "numbers as ids",
        files={
            INTER: "\n".join([head, *rows])
            .replace("\ni", "\n")
            .replace("\nu", "\n")
            .replace("\ti", "\t")
            .replace("\ttem_id", "\titem_id")
        },
    )
    yield GoodInput("an id is empty", files={INTER: inter({3: "\ti3\t5\t1"})})
    yield GoodInput(
        "a rating is empty",
        ("--load_col=None",),
        files={INTER: inter({3: "u1\ti3\t\t1"})},
    )
    yield GoodInput(
        "UTF-16 that is said",
        ("--encoding=utf-16",),
        {INTER: text.encode("utf-16"), "data/tiny/tiny.user": None, "data/tiny/tiny.item": None},
    )
    yield GoodInput(
        "latin-1 that is said", ("--encoding=latin-1",), {INTER: text.replace("i7\t", "é\t").encode("latin-1")}
    )
    yield GoodInput("a byte order mark that is said", ("--encoding=utf-8-sig",), {INTER: text.encode("utf-8-sig")})
    yield GoodInput("commas that are said", ("--field_separator=,",), {INTER: text.replace("\t", ",")})
    yield GoodInput(
        "columns in another order", files={INTER: "\n".join("\t".join(line.split("\t")[::-1]) for line in lines())}
    )
    yield GoodInput(
        "a word for what is not known of a user",
        ("--load_col=None",),
        {
            "data/tiny/tiny.user": "user_id:token\tage:token\nu1\tNA\nu2\tnan\n"
            + "".join(f"u{i}\t3\n" for i in range(3, 40))
            + "u0\t4\n"
        },
    )
    yield GoodInput("a broken file that is not read", files={"data/tiny/tiny.user": b"\xff\xfe\x00broken"})
    yield GoodInput(
        "only two files are needed",
        files={f"data/tiny/tiny.{s}": None for s in "user item kg link ent rel".split()},
    )
    yield GoodInput("an empty file of options", ("--config_files=more.yaml",), {"more.yaml": ""})
    yield GoodInput("a file of comments", ("--config_files=more.yaml",), {"more.yaml": "# nothing\n---\n"})
    yield GoodInput("1e-3 in a file", ("--config_files=more.yaml",), {"more.yaml": "learning_rate: 1e-3\n"})
    yield GoodInput(
        "options of other models in a file",
        ("--config_files=more.yaml",),
        {"more.yaml": "n_heads: 2\nlayer_norm_eps: 1e-12\nhidden_size: abc\n"},
    )
    yield GoodInput("never stop", ("--config_files=more.yaml",), {"more.yaml": "stopping_step: .inf\n"})
    thirds = [rows[i::3] for i in range(3)]
    parts = {
        f"data/tiny/tiny.{name}.inter": "\n".join([head, *part]) for name, part in zip(("a", "b", "c"), thirds)
    }
    yield GoodInput("parts that are divided", ("--benchmark_filename=['a','b','c']",), {**parts, INTER: None})


CASES = [*_options(), *_files()]


def run() -> Iterator[Row]:
    """Train with each."""
    import recbole_dsl.training.quick_start  # noqa: F401

    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            yield Row(case.name, problem(train(Path(folder) / "run", case.arguments, case.files)))


def problem(done: Done) -> str | None:
    """What is wrong with a run that should have trained; None if nothing."""
    return None if done.code == 0 else f"exit code {done.code}: {' | '.join(done.err.splitlines()[-4:])}"
