# ruff: noqa: E501
"""What a stranger might give that cannot be used, each with the line that says so."""

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.command import Done, Row, train
from tests.faults.lines import inter, lines

INTER = "data/tiny/tiny.inter"
USER, ITEM = "data/tiny/tiny.user", "data/tiny/tiny.item"
SEQUENTIAL = "--model=SASRec --load_col=None --train_neg_sample_args=None"
CONTEXT = "--model=FM --load_col=None --threshold={'rating':4}"
KNOWLEDGE = (
    "--model=CKE --load_col={'inter':['user_id','item_id'],'kg':['head_id','relation_id','tail_id'],"
    "'link':['item_id','entity_id']}"
)

# option, values on the command line, what the line says is allowed
OPTIONS = [
    # ours
    ("density", "0 -1 1.1 2 abc True None nan 1e400 10**400 [0.1] '0.1'", r"a number in \(0, 1\]"),
    ("update_interval", "0 -3 1.5 abc True [] 1e999", "an integer >= 1"),
    ("update_ratio", "-0.1 1.5 x", r"a number in \[0, 1\]"),
    ("stop_fraction", "-1 2 x None", r"a number in \[0, 1\]"),
    ("prune_threshold", "-1 abc", "a number >= 0"),
    ("grow_window", "0 -1 2.5 abc", "an integer >= 1"),
    ("dropout_factor", "-0.1 1.5 abc True", r"a number in \[0, 1\]"),
    ("item_density_ratio", "0 -0.1 1.5 abc True", r"a number in \(0, 1\]"),
    ("grow_memory", "0 2 -1 abc", r"a number in \(0, 1\]"),
    ("sparse_init", "svg best 1 ['svd']", "one of svd, uniform, erk, magnitude"),
    ("budget", "layer 1 erd", "one of uniform, erk, global"),
    ("topology", "static True", "one of dynamic, fixed"),
    ("schedule", "step None cos", "one of cosine, linear, constant"),
    ("prune", "smallest []", "one of magnitude, set, taylor, threshold"),
    ("grow", "gradients 0", "one of gradient, momentum, random, random_unfired"),
    ("keep_rows", "2 maybe None", "True or False"),
    ("fast_graph", "no 3", "True or False"),
    ("trim_padding", "no 3", "True or False"),
    ("targets", "zzz ['user_embedding','zzz'] user_embeding", "match one of user_embedding.weight"),
    ("targets", "3 {'a':1} [1]", "names or patterns"),
    ("exclude", "zzz ['user_embedding','zzz'] user_embeding", "match one of user_embedding.weight"),
    ("exclude", "3 [None]", "names or patterns"),
    ("exclude", "*", "no trainable weight"),
    ("own_options", "3 [1]", "names of options"),
    # numbers of RecBole
    ("embedding_size", "0 -1 1.5 abc None [64] '64' True 64,64 1e400", "an integer >= 1"),
    ("embedding_size", "2**31 10**30", "at most 2147483647"),
    ("train_batch_size", "0 -1 1.5 abc None 2048.0 '2048' [2048]", "an integer >= 1"),
    ("train_batch_size", "2**64", "at most 9223372036854775807"),
    ("prune_threshold", "2**64", "at most 9223372036854775807"),
    ("eval_batch_size", "0 -1 1.5 abc None", "an integer >= 1"),
    ("epochs", "-1 1.5 abc None '3' [3] -300", "an integer >= 0"),
    ("learning_rate", "-1 nan inf abc None '0.1' [0.1] -1e-9 1e400 1/0 0,01", "a number >= 0"),
    ("weight_decay", "-1 nan inf abc None '0'", "a number >= 0"),
    ("topk", "0 -1 [] [0] [10,-1] abc ['10'] '10' 10.0 None True (10,20) {}", "an integer >= 1"),
    ("stopping_step", "abc -1 None '10' [] nan", "a number >= 0"),
    ("eval_step", "abc 1.5 None '1'", "an integer"),
    ("seed", "-1 abc 1.5 None '2020'", "an integer"),
    ("seed", "2**32 10**30", "at most 4294967295"),
    ("topk", "[10,10]", "such numbers, each once"),
    ("metrics", "['Recall','recall']", "such names, each once"),
    ("checkpoint_dir", "'a\\nb' 'a\\x00b' 'a\\x1bb'", "without line breaks"),
    ("max_evals", "4", "unknown option max_evals: nothing reads it"),
    ("resume_checkpoint_file", "x", "unknown option resume_checkpoint_file: nothing reads it"),
    ("multi_gpus", "True", "unknown option multi_gpus: nothing reads it"),
    ("worker", "-1 abc 1.5 None", "an integer >= 0"),
    ("loss_decimal_place", "-1 abc 1.5", "an integer"),
    ("metric_decimal_place", "-1 abc 1.5 None", "an integer"),
    ("MAX_ITEM_LIST_LENGTH", "0 -1 abc 1.5 None", "an integer >= 1"),
    # names of RecBole
    ("metrics", "Foo ['Recall','Foo'] [] 1 None [1] {} Recall@10", "one of"),
    ("metrics", "['Recall','AUC']", "only metrics of ranking"),
    ("metrics", "AUC", "labeled, uniN or popN"),
    (
        "valid_metric",
        "1 Foo@10 MRR MRR@5 AUC MRR@ @10 None ['MRR@10'] MRR@10@10 MAP@10",
        "one of recall@10, mrr@10",
    ),
    ("learner", "foo None 1 ['adam'] adma lbfgs", "one of adam, adamw"),
    ("state", "loud 1 []", "one of debug, info"),
    ("transform", "foo 1", "one of mask_itemseq"),
    ("gpu_id", "abc [0] 0;1 cuda 1.5 {}", "the numbers of GPUs"),
    ("device", "cuda cpu gpu", "left out"),
    ("MODEL_TYPE", "General", "left out"),
    ("MODEL_INPUT_TYPE", "PAIRWISE", "left out"),
    ("encoding", "utf-9 1 []", "an encoding that Python knows"),
    ("wandb_project", "1 []", "a name"),
    ("checkpoint_dir", "1 None []", "a name"),
    ("data_path", "1 None []", "a name"),
    *(
        (name, "abc 2 [] no", "True or False")
        for name in (
            "use_gpu reproducibility show_progress save_dataset save_dataloaders log_wandb shuffle require_pow "
            "enable_amp enable_scaler repeatable filter_inter_by_user_or_item normalize_all"
        ).split()
    ),
    # dicts of options
    ("eval_args", "3 full [] None", "a dict of split, order, group_by, mode"),
    ("eval_args", "{'splits':3} {'neg_sampling':1}", "left out: the parts of eval_args are"),
    (
        "eval_args",
        "{'split':3} {'split':None} {'split':{}} {'split':{'XX':1}} {'split':{'RS':[1,1,1],'LS':'test_only'}} "
        "{'split':{'RS':[0.8,0.2]}} {'split':{'RS':[0,0.5,0.5]}} {'split':{'RS':[0.8,-0.1,0.3]}} "
        "{'split':{'RS':0.8}} {'split':{'RS':['a','b','c']}} {'split':{'RS':(8,1,1)}} {'split':{'RS':[]}} "
        "{'split':{'LS':'all'}} {'split':{'LS':1}} {'split':{'TS':'x'}} {'split':{'RS':[0.8,0.1,float('nan')]}}",
        "one of {'RS'",
    ),
    ("eval_args", "{'order':'XX'} {'order':None} {'order':'to'} {'order':1}", "RO .at random. or TO"),
    ("eval_args", "{'group_by':'item'} {'group_by':1} {'group_by':[]}", "user or none"),
    (
        "eval_args",
        "{'mode':'fulll'} {'mode':'uni'} {'mode':'uni0'} {'mode':'uni-5'} {'mode':'unix'} {'mode':'pop1.5'} "
        "{'mode':None} {'mode':3} {'mode':{}} {'mode':{'valid':'foo'}} {'mode':{'vaild':'full'}} {'mode':['full']}",
        "full, labeled, or uniN or popN",
    ),
    ("eval_args", "{'mode':'labeled'}", "full, uniN or popN"),
    ("eval_args", "{'order':'TO'}", "a column that is loaded"),
    ("train_neg_sample_args", "3 uniform [] True", "a dict of distribution"),
    ("train_neg_sample_args", "None {'distribution':'none'} {'distribution':None}", "trains on negative items"),
    ("train_neg_sample_args", "{'foo':1}", "left out: the parts of"),
    ("train_neg_sample_args", "{'distribution':'gauss'} {'distribution':1}", "uniform, popularity or None"),
    (
        "train_neg_sample_args",
        "{'sample_num':0} {'sample_num':-1} {'sample_num':1.5} {'sample_num':'two'} {'candidate_num':-1} "
        "{'dynamic':True} {'dynamic':True,'candidate_num':0}",
        "an integer >= ",
    ),
    ("train_neg_sample_args", "{'alpha':'x'} {'alpha':-1}", "a number >= 0"),
    ("train_neg_sample_args", "{'dynamic':'yes'}", "True or False"),
    ("clip_grad_norm", "5 1.0 True abc [1]", "a dict of max_norm"),
    ("clip_grad_norm", "{'max':1} {'norm':2}", "left out: the parts of"),
    ("clip_grad_norm", "{'max_norm':-1} {'max_norm':'x'} {'max_norm':None}", "a number >= 0"),
    ("clip_grad_norm", "{'max_norm':1,'norm_type':0} {'max_norm':1,'norm_type':'two'}", "a number > 0"),
    ("clip_grad_norm", "{'norm_type':2}", "a dict with max_norm"),
    # fields
    ("USER_ID_FIELD", "user 1 [] uid", "name|column"),
    ("ITEM_ID_FIELD", "item 1 [] {}", "name|column"),
    ("USER_ID_FIELD", "None", "as the other of"),
    ("ITEM_ID_FIELD", "None", "as the other of"),
    ("LABEL_FIELD", "1 None []", "a name"),
    ("NEG_PREFIX", "1 None", "a name"),
    (
        "load_col",
        "3 * user_id [] {'inter':3} {'inter':'user_id'} {'inter':[1]} {1:['a']}",
        "a dict of file suffixes",
    ),
    ("load_col", "{} {'user':['user_id']}", "of inter too"),
    (
        "load_col",
        "{'inter':['user_id','item_id','foo']} {'inter':['user_id','item_id','Rating']}",
        "a column of .inter",
    ),
    (
        "load_col",
        "{'inter':['user_id']} {'inter':['item_id']} {'inter':[]}",
        "a column that is loaded of .inter|of inter too",
    ),
    ("load_col", "{'inter':['user_id','item_id'],'user':['age']}", "a column that is loaded of .user"),
    ("load_col", "{'inter':['user_id','item_id'],'item':['class']}", "a column that is loaded of .item"),
    ("load_col", "{'inter':['user_id','item_id'],'users':['user_id']}", "of files that are"),
    ("unload_col", "3 {'inter':3} []", "a dict of file suffixes"),
    ("unload_col", "{'inter':['foo']}", "a column of .inter"),
    ("unload_col", "{'inter':['timestamp']}", "left out for inter"),
    ("unused_col", "3 rating {'inter':'rating'}", "a dict of file suffixes"),
    ("unused_col", "{'users':['age']} {'user':['age']}", "of files that are read"),
    ("additional_feat_suffix", "3 [1] {}", "the suffix of a file"),
    ("additional_feat_suffix", "inter ['user'] item", "other than"),
    ("benchmark_filename", "3 train [] ['train'] ['a','b'] [1,2,3]", "a list of 3 names"),
    ("benchmark_filename", "['a','b','c']", "tiny.a.inter"),
    (
        "val_interval",
        "3 [] rating {'rating':4} {'rating':'4'} {'rating':'[5,3]'} {'rating':'[a,b]'}",
        "a dict of columns",
    ),
    ("val_interval", "{'foo':'[1,2]'} {'rating':'[1,2]'}", "of columns that are loaded"),
    *(
        (
            f"{side}_inter_num_interval",
            "5 abc 5,inf [5,inf [5] [inf,5] [5,] {} '' [5,abc] [1,2];x [5,nan]",
            "intervals such as",
        )
        for side in ("user", "item")
    ),
    ("user_inter_num_interval", "[100,inf) [1000,2000]", "nothing is left"),
    ("item_inter_num_interval", "[100,inf) (0,0]", "nothing is left"),
    ("rm_dup_inter", "all True 1 any", "one of first, last"),
    (
        "threshold",
        "3 rating {} {'rating':'x'} {'rating':4,'timestamp':1} ['rating'] {'rating':None}",
        "a dict of one column",
    ),
    ("threshold", "{'foo':3} {'rating':3} {'user_id':3}", "of a float column"),
    ("seq_len", "3 {'class':0} {'class':'x'} {1:2} [5]", "a dict of columns and lengths"),
    ("numerical_features", "3 age None {}", "a list of column names"),
    ("numerical_features", "['foo']", "a column that is loaded"),
    ("normalize_field", "3 rating {'rating':1}", "a list of names"),
    ("normalize_field", "['foo'] ['rating']", "a column that is loaded"),
    ("discretization", "3 {'a':1} {'a':{}} {'a':{'method':'XX'}} {'a':{'method':'ED'}}", "a dict of columns"),
    ("preload_weight", "3 [] {'a':1}", "a dict of a column of ids"),
    ("preload_weight", "{'foo':'bar'} {'user_id':'bar'}", "a column that is loaded"),
    ("alias_of_user_id", "3 foo {}", "a list of names"),
    ("alias_of_user_id", "['foo']", "a column that is loaded"),
    ("field_separator", "1 None []", "a string"),
    ("seq_separator", "1 None []", "a string"),
    ("field_separator", ", ;", "line 1, column 1: .* separated by"),
    # models and data sets that are none
    ("model", "Foo LightGNC bpr 1 [] ../BPR BPR.py exit() BPRR torch", "did you mean|the name"),
    ("model", "Pop ItemKNN EASE Random", "trained by gradients"),
    ("dataset", "nowhere ml-100 ../tiny tiny/", "a folder of atomic files|must be there"),
    ("data_path", "nowhere data/tiny", "a folder of atomic files"),
    # processes
    ("nproc", "0 -1 abc 1.5", "an integer >= 1"),
    ("world_size", "0 -2 abc", "an integer >= 1"),
    ("port", "0 -1 abc 70000 1.5", r"an integer in \[1, 65535\]"),
    ("group_offset", "-1 abc", "an integer >= 0"),
]

# names that are none, and what was meant
NAMES = {
    "Density": "density", "DENSITY": "density", "update-interval": "update_interval", "densty": "density",
    "target": "targets", "excludes": "exclude", "sparse-init": "sparse_init", "lr_schedule": "schedule",
    "scheduler": "schedule", "lr_scheduler": "schedule", "seeds": "seed", "prunes": "prune", "topolgy": "topology",
    "epoch": "epochs", "Epochs": "epochs", "learning-rate": "learning_rate", "learningrate": "learning_rate",
    "train_batch_sze": "train_batch_size", "embeding_size": "embedding_size", "top_k": "topk", "metric": "metrics",
    "eval_arg": "eval_args", "user_id_field": "USER_ID_FIELD", "load_cols": "load_col",
    "weight-decay": "weight_decay", "show_progres": "show_progress", "data-path": "data_path", "gpu_ids": "gpu_id",
}  # fmt: skip

# whole command lines: what the line says -> arguments
COMMANDS = [
    (r"--epochs: write --epochs=VALUE", "--epochs 3"),
    (r"--density: write --density=VALUE", "--density 0.5"),
    (r"density=0.5: write --density=VALUE", "density=0.5"),
    (r"-d=3: must be|--dataset|dataset=", "-d=3"),
    (r"foo: write --NAME=VALUE", "foo"),
    (r"--=3: write", "--=3"),
    (r"--foo=a=b: must have one =", "--foo=a=b"),
    (r"--epochs=2: must be given once, and is --epochs=1 too", "--epochs=1 --epochs=2"),
    (r"epochs=None|epochs=''", "--epochs="),
    (r"argument --nproc: expected one argument", "--nproc"),
    (r"sparse_init=erk|budget=uniform: must be erk or global", "--sparse_init=erk --budget=uniform"),
    (r"clip_grad_norm=.*: must be None with learner=sparse_adam", "--learner=sparse_adam --clip_grad_norm={'max_norm':1}"),
    (r"world_size=1: must be at least group_offset \+ nproc", "--world_size=1 --nproc=2"),
    (r"valid_metric=MRR@10: must be one of ndcg@5", "--metrics=NDCG --topk=5"),
    (r"valid_metric=MRR@10: must be one of recall@5, recall@20", "--metrics=Recall --topk=[5,20]"),
    (r"valid_metric=AUC@10: must be one of auc", "--metrics=AUC --valid_metric=AUC@10 --eval_args={'mode':'uni5'}"),
    (r"topk=52: must be at most 50", "--topk=52 --valid_metric=MRR@52"),
    (r"topk=1000: must be at most 50", "--topk=[10,1000]"),
    (r"normalize_all=True: must be False", "--normalize_all=True --normalize_field=['user_id']"),
    (r"density=.* leaves user_embedding.weight no weight", "--density=1e-9"),
    (r"valid_metric=5: must be a metric", "--eval_step=0 --valid_metric=5"),
    (r"TIME_FIELD=foo: must be a column", "--eval_args={'order':'TO'} --load_col=None --TIME_FIELD=foo"),
    (r"TIME_FIELD=user_id: must be a column of type float", "--eval_args={'order':'TO'} --load_col=None --TIME_FIELD=user_id"),
    (r"val_interval\[rating\]=\['5'\]: must be intervals", "--load_col=None --val_interval={'rating':['5']}"),
    (r"val_interval\[gender\]=\[1,2\]: must be a list of tokens", "--load_col=None --val_interval={'gender':'[1,2]'}"),
    (r"nothing is left of its interactions", "--load_col=None --val_interval={'rating':'[100,inf)'}"),
    (r"nothing is left of its interactions", "--load_col=None --val_interval={'gender':['X']}"),
    (r"USER_ID_FIELD=rating: must be a column of type token", "--load_col={'inter':['user_id','item_id','rating']} --USER_ID_FIELD=rating"),
    (r"alias_of_item_id=rating: must be a column of tokens", "--load_col=None --alias_of_item_id=['rating']"),
    # other models
    (r"loss_type=XX: must be one of BPR, CE", f"{SEQUENTIAL} --loss_type=XX"),
    (r"loss_type=1: must be one of BPR, CE", f"{SEQUENTIAL} --loss_type=1"),
    (r"loss_type=ce: must be one of BPR, CE", f"{SEQUENTIAL} --loss_type=ce"),
    (r"loss_type=BPR: must be one of CE", f"{SEQUENTIAL.replace('SASRec', 'CORE')} --loss_type=BPR"),
    (r"loss_type=CE: must be one of BCE, MSE", "--model=CDAE --loss_type=CE"),
    (r"train_neg_sample_args=None: must be a dict: SASRec trains on negative", f"{SEQUENTIAL} --loss_type=BPR"),
    (r"train_neg_sample_args=.*: must be None with loss_type=CE", "--model=SASRec --load_col=None"),
    (r"repeatable=False: must be True", f"{SEQUENTIAL} --repeatable=False"),
    (r"eval_args\[order\]=RO: must be TO", f"{SEQUENTIAL} --eval_args={{'order':'RO'}}"),
    (r"eval_args\[order\]=RO: must be TO", f"{SEQUENTIAL} --eval_args={{'split':{{'LS':'valid_and_test'}}}}"),
    (r"TIME_FIELD=timestamp: must be a column that is loaded", "--model=SASRec --train_neg_sample_args=None"),
    (r"model=SASRec: ValueError: The hidden size \(64\) is not a multiple", f"{SEQUENTIAL} --n_heads=3"),
    (r"n_heads=0: must be an integer >= 1", f"{SEQUENTIAL} --n_heads=0"),
    (r"n_layers=-1: must be an integer >= 0", f"{SEQUENTIAL} --n_layers=-1"),
    (r"n_layers=x: must be an integer >= 0", f"{SEQUENTIAL} --n_layers=x"),
    (r"hidden_size=1.5: must be an integer >= 1", f"{SEQUENTIAL} --hidden_size=1.5"),
    (r"hidden_dropout_prob=2: must be a number in \[0, 1\]", f"{SEQUENTIAL} --hidden_dropout_prob=2"),
    (r"attn_dropout_prob=x: must be a number in \[0, 1\]", f"{SEQUENTIAL} --attn_dropout_prob=x"),
    (r"hidden_act=foo: must be one of gelu", f"{SEQUENTIAL} --hidden_act=foo"),
    (r"layer_norm_eps=x: must be a number", f"{SEQUENTIAL} --layer_norm_eps=x"),
    (r"initializer_range=None: must be a number", f"{SEQUENTIAL} --initializer_range=None"),
    (r"mask_ratio=2: must be a number in", f"{SEQUENTIAL.replace('SASRec', 'BERT4Rec')} --mask_ratio=2"),
    (r"selected_features=foo: must be a column", f"{SEQUENTIAL.replace('SASRec', 'SASRecF')} --selected_features=['foo']"),
    (r"selected_features=class: must be a list of names", f"{SEQUENTIAL.replace('SASRec', 'SASRecF')} --selected_features=class"),
    (r"pooling_mode=median: must be one of mean, max, sum", f"{SEQUENTIAL.replace('SASRec', 'SASRecF')} --pooling_mode=median"),
    (r"item_attribute=foo: must be a column", f"{SEQUENTIAL.replace('SASRec', 'S3Rec')} --item_attribute=foo"),
    (r"train_stage=foo: must be one of pretrain, finetune", f"{SEQUENTIAL.replace('SASRec', 'S3Rec')} --train_stage=foo"),
    (r"mlp_hidden_size=abc: must be a list of integers", "--model=NeuMF --mlp_hidden_size=abc"),
    (r"mlp_hidden_size=64: must be a list of integers", "--model=NeuMF --mlp_hidden_size=64"),
    (r"mlp_hidden_size=\(64, 32\): must be a list of integers", "--model=NeuMF --mlp_hidden_size=64,32"),
    (r"mlp_hidden_size=\[0\]: must be a list of integers", "--model=NeuMF --mlp_hidden_size=[0]"),
    (r"mlp_hidden_size=\[8, 'a'\]: must be a list", "--model=NeuMF --mlp_hidden_size=[8,'a']"),
    (r"mf_embedding_size=0: must be an integer >= 1", "--model=NeuMF --mf_embedding_size=0"),
    (r"dropout_prob=-1: must be a number in", "--model=NeuMF --dropout_prob=-1"),
    (r"mf_train=abc: must be True or False", "--model=NeuMF --mf_train=abc"),
    (r"n_layers=1.5: must be an integer >= 0", "--model=LightGCN --n_layers=1.5"),
    (r"reg_weight=x: must be a number", "--model=LightGCN --reg_weight=x"),
    (r"reg_weight=nan: must be a number", "--model=LightGCN --reg_weight=float('nan')"),
    (r"type=XX: must be one of ED, ND, RW", "--model=SGL --type=XX"),
    (r"latent_dimension=0: must be an integer >= 1", "--model=MultiVAE --latent_dimension=0"),
    (r"mlp_hidden_size=None: must be a list", "--model=MultiVAE --mlp_hidden_size=None"),
    (r"n_factors=3|model=DGCF: AssertionError: assert self.embedding_size % self.n_factors == 0", "--model=DGCF --n_factors=3"),
    (r"reg_weight=\[1\]: must be a number", f"{CONTEXT.replace('FM', 'DCN')} --reg_weight=[1]"),
    (r"LABEL_FIELD=label: must be a column that is loaded of .inter, or be made by threshold", "--model=FM --load_col=None"),
    (r"order_list=3: must be a list", f"{CONTEXT.replace('FM', 'EulerNet')} --order_list=3"),
    (r"exclude=zzz: must match one of", f"{CONTEXT.replace('FM', 'EulerNet')} --exclude=zzz"),
    (r"eval_args\[mode\]=labeled: must be full", f"{CONTEXT} --metrics=NDCG --valid_metric=NDCG@10"),
    (r"kg_embedding_size=0: must be an integer", f"{KNOWLEDGE} --kg_embedding_size=0"),
    (r"entity_kg_num_interval=5: must be intervals", f"{KNOWLEDGE} --entity_kg_num_interval=5"),
    (r"nothing is left", f"{KNOWLEDGE} --entity_kg_num_interval=[1000,inf)"),
    (r"kg_reverse_r=abc: must be True or False", f"{KNOWLEDGE} --kg_reverse_r=abc"),
    (r"HEAD_ENTITY_ID_FIELD=head: must be a column that is loaded of .kg", f"{KNOWLEDGE} --HEAD_ENTITY_ID_FIELD=head"),
    (r"ENTITY_ID_FIELD=entity: must be a column that is loaded of .link", f"{KNOWLEDGE} --ENTITY_ID_FIELD=entity"),
    (r"train_neg_sample_args=None: must be a dict", f"{KNOWLEDGE} --train_neg_sample_args=None"),
    (r"load_col=.*: must be of kg and link too", "--model=CKE"),
]  # fmt: skip


# of YAML: each line has ten of the line before
GROWING = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))


@dataclass(frozen=True)
class BadInput:
    """Arguments and files that cannot be used, and a pattern that the line about them has."""

    name: str
    line: str
    arguments: tuple[str, ...] = ()
    files: dict[str, str | bytes | None] = field(default_factory=dict)


def _options() -> Iterator[BadInput]:
    for option, values, allowed in OPTIONS:
        for value in values.split(" "):
            argument = f"--{option}={value}"
            yield BadInput(argument, f"{allowed}", (argument,))
    for name, meant in NAMES.items():
        yield BadInput(f"--{name}", f"unknown option {name}: did you mean {meant}.*own_options", (f"--{name}=3",))
    for line, command in COMMANDS:
        yield BadInput(command, line, tuple(command.split(" ")))


def _option_files() -> Iterator[BadInput]:
    for name, line, content in (
        ("a list", "config_files=more.yaml: must be options, .* and is a list", "- density\n- 0.1\n"),
        ("a scalar", "config_files=more.yaml: must be options, .* and is a str", "density\n"),
        ("a number", "config_files=more.yaml: must be options, .* and is a int", "3\n"),
        ("a number for a name", "config_files=more.yaml: must be options", "1: 2\n"),
        ("a tab", "config_files=more.yaml: must be YAML: .*line 2, column 1", "density: 0.1\n\tepochs: 3\n"),
        ("not closed", "config_files=more.yaml: must be YAML: .*line", "topk: [1, 2\n"),
        ("one that holds itself", "config_files=more.yaml: must hold at most", "a: &a [*a]\n"),
        ("one that grows", "config_files=more.yaml: must hold at most", GROWING),
        ("a name twice", "config_files=more.yaml: must be YAML: density is given 2 times", "density: 0.1\ndensity: 0.2\n"),
        ("two documents", "config_files=more.yaml: must be YAML", "density: 0.1\n---\ndensity: 0.2\n"),
        ("an unknown tag", "config_files=more.yaml: must be YAML", "density: !foo 3\n"),
        ("a bad date", "config_files=more.yaml: must be YAML", "density: 2020-99-99\n"),
        ("binary", "config_files=more.yaml: must be YAML", bytes(range(256))),
        ("latin-1", "config_files=more.yaml: must be YAML in UTF-8, and byte 12 is not", "data_path: \xe9".encode("latin-1")),
        ("UTF-16", "config_files=more.yaml: must be YAML in UTF-8", "density: 0.1".encode("utf-16")),
        ("zero bytes", "config_files=more.yaml: must be YAML", "density: 0.1\0\n"),
        ("a string for a number", "density='0.1': must be a number in .* it is a string", 'density: "0.1"\n'),
        ("a string for a number of RecBole's", "learning_rate='0.01': must be .* it is a string", "learning_rate: '0.01'\n"),
        ("a string for an integer", "embedding_size='64': must be .* it is a string", "embedding_size: '64'\n"),
        ("a string for a list", "topk=\\[10\\]: must be an integer", "topk: '[10]'\n"),
        ("nothing for a value", "density=None: must be a number", "density:\n"),
        ("nothing for a value of RecBole's", "epochs=None: must be an integer", "epochs:\n"),
        (".nan", "learning_rate=nan: must be a number", "learning_rate: .nan\n"),
        (".inf", "learning_rate=inf: must be a number", "learning_rate: .inf\n"),
        ("a date", "density=2020-01-01: must be a number", "density: 2020-01-01\n"),
        ("yes", "epochs=True: must be an integer", "epochs: yes\n"),
        ("a mistyped name", "unknown option denstiy: did you mean density", "denstiy: 0.1\n"),
        ("an own name", "unknown option scheduler: did you mean schedule.*own_options", "scheduler: step\n"),
        ("a list of lists", "metrics=.*: must be one of", "metrics: [[Recall]]\n"),
        ("a set of columns", "load_col=.*: must be a dict", "load_col: [user_id, item_id]\n"),
        ("a model that is none", "model=5: must be the name", "model: 5\n"),
    ):  # fmt: skip
        arguments = ("--config_files=more.yaml",)
        if name == "a model that is none":
            continue
        yield BadInput(f"options: {name}", line, arguments, {"more.yaml": content})
    yield BadInput(
        "options: a folder",
        "config_files=more: must be an existing YAML file",
        ("--config_files=more",),
        {"more/": None},
    )
    yield BadInput(
        "options: none", "config_files=none.yaml: must be an existing YAML file", ("--config_files=none.yaml",)
    )
    yield BadInput(
        "options: commas", "config_files=a.yaml,b.yaml: must be an existing", ("--config_files=a.yaml,b.yaml",)
    )


def _data_files() -> Iterator[BadInput]:
    head, *rows = lines()
    text = "\n".join(lines()) + "\n"
    everything = ("--load_col=None",)
    plain = {USER: None, ITEM: None}

    def case(name, line, content, arguments=(), path=INTER, others=None):
        files = {**(others or {}), path: content}
        return BadInput(f"data: {name}", f"dataset=tiny: {line}", arguments, files)

    def header(name, line, first, arguments=(), path=INTER):
        suffix = path.rpartition(".")[2]
        return case(name, f"tiny.{suffix}, line 1{line}", inter({1: first}, suffix), arguments, path)

    yield case("no file", "tiny.inter: must be there", None)
    yield BadInput("data: a folder", "tiny.inter: is a folder", (), {INTER: None, INTER + "/": None})
    yield case("empty", "tiny.inter: is empty", "")
    yield case("line breaks only", "tiny.inter: is empty", "\n\n\n")
    yield case("an empty first line", "tiny.inter, line 1: must be a header", "\n" + text)
    yield case("header only", "tiny.inter: has no lines below its header", head + "\n")
    yield case("header only, not ended", "tiny.inter: has no lines below its header", head)
    yield case("no header", "tiny.inter, line 1, column 1: 'u0' must be a name and a type", "\n".join(rows))
    yield header(
        "no types", ", column 1: 'user_id' must be a name and a type", "user_id\titem_id\trating\ttimestamp"
    )
    yield header(
        "one without type",
        ", column 2: 'item_id' must be",
        "user_id:token\titem_id\trating:float\ttimestamp:float",
    )
    yield header(
        "an unknown type",
        ", column 3: 'rating:int' must be .*one of token, token_seq, float",
        "user_id:token\titem_id:token\trating:int\ttimestamp:float",
    )
    yield header(
        "a type in capitals",
        ", column 1: 'user_id:Token' must be",
        "user_id:Token\titem_id:token\trating:float\ttimestamp:float",
    )
    yield header(
        "a space after a type",
        ", column 2: 'item_id:token ?' must be",
        "user_id:token\titem_id:token \trating:float\ttimestamp:float",
    )
    yield header(
        "a type twice",
        ", column 1: 'user_id:token:token' must be",
        "user_id:token:token\titem_id:token\trating:float\ttimestamp:float",
    )
    yield header("no name", ", column 1: ':token' must be", ":token\titem_id:token\trating:float\ttimestamp:float")
    yield header(
        "a name twice",
        ", column 2: user_id is the name of two columns",
        "user_id:token\tuser_id:token\trating:float\ttimestamp:float",
    )
    yield header(
        "a name twice, types differ",
        ", column 4: rating is the name of two columns",
        "user_id:token\titem_id:token\trating:float\trating:token",
    )
    yield header(
        "spaces for tabs", ", column 1: .* separated by '.t', of which the line has none", head.replace("\t", " ")
    )
    yield header("commas for tabs", ", column 1: .* separated by", head.replace("\t", ","))
    yield header("a tab at the end", ", column 5: '' must be", head + "\t")
    yield header("more names than columns", "|tiny.inter, line 2: 4 columns: must be 5", head + "\tmore:float")
    yield case("no ids", "USER_ID_FIELD=user_id: must be a column".replace("dataset=tiny: ", ""), None)
    yield case("a comma in all lines", "tiny.inter, line 1, column 1", text.replace("\t", ","))
    yield case(
        "commas below the header",
        "tiny.inter, line 2: 1 column: must be 4",
        head + "\n" + "\n".join(rows).replace("\t", ","),
    )
    yield case("a column too few", "tiny.inter, line 3: 3 columns: must be 4", inter({3: "u1\ti1\t5"}))
    yield case("a column too many", "tiny.inter, line 3: 5 columns: must be 4", inter({3: "u1\ti1\t5\t1\t7"}))
    yield case(
        "a column too many in the first line",
        "tiny.inter, line 2: 5 columns: must be 4",
        inter({2: "u1\ti1\t5\t1\t7"}),
    )
    yield case(
        "a column too many in all lines",
        "tiny.inter, line 2: 5 columns",
        "\n".join([head, *(row + "\t1" for row in rows)]),
    )
    yield case("a tab at the end of a line", "tiny.inter, line 9: 5 columns", inter({9: rows[7] + "\t"}))
    yield case("a word in the last line", "tiny.inter, line 601: 1 column", inter({601: "end"}))
    yield case("only one column", "tiny.inter, line 5: 1 column", inter({5: "u1"}))
    yield case("a comment", "tiny.inter, line 2: 1 column", inter({2: "# from a shop"}))
    yield case(
        "CRLF, a column too few", "tiny.inter, line 3: 3 columns", inter({3: "u1\ti1\t5"}).replace("\n", "\r\n")
    )
    yield case(
        "CR, a column too few", "tiny.inter, line 3: 3 columns", inter({3: "u1\ti1\t5"}).replace("\n", "\r")
    )
    yield case(
        "quotes, a column too few", "tiny.inter, line 3: 3 columns", inter({3: "u1\ti1\t5", 9: '"u1"\ti1\t5\t1'})
    )
    for word in ("abc", "5,0", "5 stars", "--", "0x10", "five", "½"):
        yield case(
            f"rating {word}",
            f"tiny.inter, line 4, column 3: rating='{word}': must be a number",
            inter({4: f"u1\ti1\t{word}\t1"}),
            everything,
        )
    for word in ("nan", "NaN", "NA", "null", "None", "N/A", "NULL", "n/a", "<NA>"):
        yield case(
            f"rating {word}",
            f"tiny.inter, line 4, column 3: rating={word}: must be a finite number",
            inter({4: f"u1\ti1\t{word}\t1"}),
            everything,
        )
        yield case(
            f"item {word}",
            f"tiny.inter, line 4, column 2: item_id={word}: must be an id",
            inter({4: f"u1\t{word}\t5\t1"}),
        )
    for word in ("inf", "-inf", "Infinity", "+inf", "INF"):
        yield case(
            f"rating {word}",
            f"tiny.inter, line 4, column 3: rating={re.escape(word)}: must be a finite number",
            inter({4: f"u1\ti1\t{word}\t1"}),
            everything,
        )
    yield case("user nan", "tiny.inter, line 7, column 1: user_id=nan: must be an id", inter({7: "nan\ti1\t5\t1"}))
    yield case(
        "user nan, CRLF",
        "tiny.inter, line 7, column 1: user_id=nan: must be an id",
        inter({7: "nan\ti1\t5\t1"}).replace("\n", "\r\n"),
    )
    yield case(
        "user nan, quotes",
        "tiny.inter, line 7, column 1: user_id=nan: must be an id",
        inter({7: 'nan\t"i1"\t5\t1'}),
    )
    yield case(
        "the last time nan",
        "tiny.inter, line 601, column 4: timestamp=nan",
        inter({601: "u1\ti1\t5\tnan"}).rstrip("\n"),
        everything,
    )
    yield case("a byte order mark", "tiny.inter, line 1: begins with a byte order mark", text.encode("utf-8-sig"))
    yield case("UTF-16", "tiny.inter: is in UTF-16", text.encode("utf-16"))
    yield case("UTF-16 without mark", "tiny.inter, line 1: has a zero byte", text.encode("utf-16-le"))
    yield case(
        "latin-1",
        "tiny.inter, line 5, column 2: a byte that is not utf-8",
        inter({5: "u1\té\t5\t1"}).encode("latin-1"),
    )
    yield case(
        "latin-1, CRLF",
        "tiny.inter, line 5, column 2: a byte that is not utf-8",
        inter({5: "u1\té\t5\t1"}).replace("\n", "\r\n").encode("latin-1"),
    )
    yield case(
        "latin-1, quotes",
        "tiny.inter, line 5.*: a byte that is not utf-8",
        inter({5: "u1\té\t5\t1", 3: 'u1\t"i1"\t5\t1'}).encode("latin-1"),
    )
    yield case(
        "UTF-8 said to be ASCII",
        "tiny.inter, line 5, column 2: a byte that is not ascii",
        inter({5: "u1\té\t5\t1"}),
        ("--encoding=ascii",),
    )
    yield case("UTF-8 said to be UTF-16", "tiny.inter.*: a byte that is not utf-16", text, ("--encoding=utf-16",))
    yield case("binary", "tiny.inter", bytes(range(256)) * 20)
    yield case("compressed", "tiny.inter", b"\x1f\x8b\x08\x00" + bytes(range(255, 0, -1)) * 4)
    yield case("a zero byte", "tiny.inter, line 6: has a zero byte", inter({6: "u1\ti\0\t5\t1"}))
    yield case("JSON", "tiny.inter, line 1, column 1", '{"user_id": 1, "item_id": 2}\n')
    yield case(
        "a quote that is not closed",
        "tiny.inter, line 2, column 1: a quote that is opened|tiny.inter, line .*quotes must be closed",
        inter({2: '"u1\ti1\t5\t1'}),
    )
    yield case(
        "a quote closed lines later",
        "tiny.inter, line 4, column 2: a quote that is opened here is not closed on this line",
        inter({4: 'u1\t"i1\t5\t1', 9: 'u1\t"i1"\t5\t1', 8: 'u1\ti1"\t5\t1'}),
    )
    yield case("text behind a quote", "tiny.inter, line 4.*quotes must be closed", inter({4: 'u1\t"i"1\t5\t1'}))
    yield case(
        "one item",
        "tiny.inter has one item: must have two or more|a user has interacted with all items",
        "\n".join([head, *(f"u{i}\ti1\t5\t{i}" for i in range(40))]),
        others=plain,
    )
    yield case(
        "one user",
        "a user has interacted with all items: must leave one",
        "\n".join([head, *(f"u1\ti{i}\t5\t{i}" for i in range(40))]),
        others=plain,
    )
    yield case(
        "one line",
        "tiny.inter has one item|a user has interacted with all items",
        f"{head}\nu1\ti1\t5\t1\n",
        others=plain,
    )
    yield case(
        "a user of all items",
        "a user has interacted with all items: must leave one",
        "\n".join([head, *(f"u{u}\ti{i}\t5\t{i}" for u in range(3) for i in range(4))]),
        ("--topk=1", "--valid_metric=MRR@1"),
        others=plain,
    )
    yield case(
        "all ids empty",
        "nothing is left of its interactions",
        "\n".join([head, *(f"\ti{i}\t5\t{i}" for i in range(9))]),
    )
    yield case(
        "no user known",
        "nothing is left of its interactions, all filtered away by filter_inter_by_user_or_item",
        "user_id:token\tage:token\nx1\t3\n",
        ("--load_col={'inter':['user_id','item_id'],'user':['user_id','age']}",),
        USER,
    )
    one_each = "\n".join([head, *(f"u{i}\ti{i % 20}\t5\t{i}" for i in range(40))])
    yield case(
        "no sequences", "no user has two interactions", one_each, tuple(SEQUENTIAL.split(" ")), others=plain
    )
    # other files
    yield case("no header of users", "tiny.user, line 1, column 1", "\n".join(lines("user")[1:]), everything, USER)
    yield header("users without types", ", column 1: 'user_id' must be", "user_id\tage\tgender", everything, USER)
    yield case("users, empty", "tiny.user: is empty", "", everything, USER)
    yield case(
        "users, a column too few",
        "tiny.user, line 3: 2 columns: must be 3",
        inter({3: "u1\t20"}, "user"),
        everything,
        USER,
    )
    yield case(
        "users, an id that is missing",
        "tiny.user, line 3, column 1: user_id=nan: must be an id",
        inter({3: "nan\t20\tM"}, "user"),
        everything,
        USER,
    )
    yield case("users, binary", "tiny.user", bytes(range(256)), everything, USER)
    yield case(
        "items, a column too many",
        "tiny.item, line 3: 4 columns: must be 3",
        inter({3: "i1\t1990\tc1\tc2"}, "item"),
        everything,
        ITEM,
    )
    yield case(
        "items, a byte order mark",
        "tiny.item, line 1: begins with a byte order mark",
        "\n".join(lines("item")).encode("utf-8-sig"),
        everything,
        ITEM,
    )
    yield case(
        "items, an infinite number",
        "tiny.item, line 3, column 2: price=inf: must be a finite number",
        "item_id:token\tprice:float\ni1\t3\ni2\tinf\n",
        everything,
        ITEM,
    )
    yield case(
        "items, no number",
        "tiny.item, line 3, column 2: price='cheap': must be a number",
        "item_id:token\tprice:float\ni1\t3\ni2\tcheap\n",
        everything,
        ITEM,
    )
    yield case(
        "items, a sequence with a word",
        "tiny.item, line 3, column 2: place='y': must be a number",
        "item_id:token\tplace:float_seq\ni1\t3 4\ni2\t1 y\n",
        everything,
        ITEM,
    )
    yield case(
        "items, an infinite sequence",
        "tiny.item, line 3, column 2: place=inf: must be a finite number",
        "item_id:token\tplace:float_seq\ni1\t3 4\ni2\t1 inf\n",
        everything,
        ITEM,
    )
    for suffix in ("kg", "link"):
        path = f"data/tiny/tiny.{suffix}"
        knowledge = tuple(KNOWLEDGE.split(" "))
        yield case(f"no {suffix}", f"tiny.{suffix}: must be there", None, knowledge, path)
        yield case(f"{suffix}, empty", f"tiny.{suffix}: is empty", "", knowledge, path)
        yield case(
            f"{suffix}, a column too few",
            f"tiny.{suffix}, line 3: 1 column",
            inter({3: "e1"}, suffix),
            knowledge,
            path,
        )
        yield case(
            f"{suffix}, no types", f"tiny.{suffix}, line 1, column 1", inter({1: "a\tb"}, suffix), knowledge, path
        )
    yield case(
        "no additional file",
        "tiny.ent: must be there",
        None,
        ("--additional_feat_suffix=ent", "--load_col={'inter':['user_id','item_id'],'ent':['ent_id','ent_emb']}"),
        "data/tiny/tiny.ent",
    )
    yield case(
        "an additional file, a word",
        "tiny.ent, line 3, column 2: ent_emb='x': must be a number",
        "ent_id:token\tent_emb:float_seq\ne1\t1 2\ne2\t1 x\n",
        ("--additional_feat_suffix=ent", "--load_col={'inter':['user_id','item_id'],'ent':['ent_id','ent_emb']}"),
        "data/tiny/tiny.ent",
    )
    parts = ("--benchmark_filename=['a','b','c']",)
    yield case(
        "a part is missing",
        "tiny.c.inter: must be there",
        text,
        parts,
        others={"data/tiny/tiny.a.inter": text, "data/tiny/tiny.b.inter": text},
    )
    yield case(
        "a part has a column less",
        "tiny.b.inter, line 3: 3 columns: must be 4",
        text,
        parts,
        others={
            "data/tiny/tiny.a.inter": text,
            "data/tiny/tiny.b.inter": inter({3: "u1\ti1\t5"}),
            "data/tiny/tiny.c.inter": text,
        },
    )
    yield case(
        "a part has other columns",
        "tiny.b.inter, line 1: must have the same columns",
        text,
        (*parts, *everything),
        others={
            "data/tiny/tiny.a.inter": text,
            "data/tiny/tiny.b.inter": "user_id:token\titem_id:token\nu1\ti1\n",
            "data/tiny/tiny.c.inter": text,
        },
    )


CASES = [case for case in (*_options(), *_option_files(), *_data_files()) if case.name != "data: no ids"]


def run() -> Iterator[Row]:
    """Give each to the command."""
    from recbole_dsl.options.recbole_models import trainable_models

    trainable_models()
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            yield Row(case.name, problem(case, train(Path(folder) / "run", case.arguments, case.files)))


def problem(case: BadInput, done: Done) -> str | None:
    """What is wrong with how the command refused ``case``; None if nothing."""
    if done.code != 2:
        return f"exit code {done.code}: {' | '.join(done.err.splitlines()[-2:])}"
    if done.out or done.err.count("\n") != 1 or "Traceback" in done.err:
        return f"more than one line: {done.out}{done.err}"
    if not done.err.startswith("recbole-dsl train: ") or not re.search(case.line, done.err):
        return f"another line than {case.line!r}: {done.err.strip()}"
    if done.after != done.before:
        return f"files changed: {sorted(done.after.items() ^ done.before.items())}"[:300]
    return None
