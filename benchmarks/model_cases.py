"""RecBole's gradient-trained models with the options that each needs to run, and the variants worth a run."""

from typing import Any

_NO_SAMPLING = {"train_neg_sample_args": None}
_BPR_LOSS = {"loss_type": "BPR"}
_CLICKS = {"threshold": {"rating": 4}}
_SHORT = {"MAX_ITEM_LIST_LENGTH": 10}
_GRAPH = {"MAX_ITEM_LIST_LENGTH": 3}
_INVERSE = {"transform": "inverse_itemseq"}
_MASKED = {"transform": "mask_itemseq"}

_CLICK_MODELS = (
    *("LR", "FM", "NFM", "DeepFM", "xDeepFM", "AFM", "FNN", "PNN", "DSSM", "WideDeep", "AutoInt", "FFM", "FwFM"),
    *("DCN", "DCNV2", "FiGNN", "KD_DAGFM", "EulerNet"),
)
_EITHER_LOSS = ("GRU4Rec", "NARM", "STAMP", "SASRec", "HRM", "NPE", "HGN", "LightSANs", "SINE")
_POOLED = ("GRU4RecF", "SASRecF", "FDSA")


def _uniform(**changes: Any) -> dict[str, Any]:
    args = {"distribution": "uniform", "sample_num": 1, "alpha": 1.0, "dynamic": False, "candidate_num": 0}
    return {"train_neg_sample_args": {**args, **changes}}


# family -> name of the case, the model and after a dash what varies -> options beyond RecBole's defaults
CASES: dict[str, dict[str, dict[str, Any]]] = {
    "general": {
        "BPR": {},
        "BPR-dns": _uniform(dynamic=True, candidate_num=2),
        "BPR-popularity": _uniform(distribution="popularity"),
        "NeuMF": {},
        "ConvNCF": {},
        "DMF": {},
        "DMF-rating": {"inter_matrix_type": "rating"},
        "FISM": {},
        "FISM-split": {"split_to": 10, "alpha": 0.5},
        "NAIS": {},
        "NAIS-concat": {"algorithm": "concat", "split_to": 10, "alpha": 0.5, "beta": 0.1},
        "SpectralCF": {},
        "GCMC": {},
        "GCMC-stack": {"accum": "stack", "sparse_feature": False},
        "NGCF": {},
        "LightGCN": {},
        "DGCF": {},
        "LINE": {},
        "MultiVAE": _NO_SAMPLING,
        "MultiDAE": _NO_SAMPLING,
        "MacridVAE": _NO_SAMPLING,
        "CDAE": _NO_SAMPLING,
        "ENMF": _NO_SAMPLING,
        "NNCF": {},
        "RaCT": _NO_SAMPLING,
        "RecVAE": _NO_SAMPLING,
        "SimpleX-mean": {"aggregator": "mean"},
        "SimpleX-user_attention": {"aggregator": "user_attention"},
        "SimpleX-self_attention": {"aggregator": "self_attention"},
        "SGL": {},
        "NCL": {"num_clusters": 100},
        "DiffRec": {},
        "DiffRec-time": {"time-aware": True},
        "LDiffRec": {},
        "LDiffRec-time": {"time-aware": True},
    },
    "context-aware": {
        **dict.fromkeys(_CLICK_MODELS, _CLICKS),
        "xDeepFM-direct": {**_CLICKS, "direct": True},
        "PNN-both": {**_CLICKS, "use_inner": True, "use_outer": True},
        "PNN-none": {**_CLICKS, "use_inner": False, "use_outer": False},
    },
    "sequential": {
        "DIN": {},
        "DIEN": {},
        "FPMC": {},
        "TransRec": {},
        "RepeatNet": {},
        "GRU4RecCPR": _NO_SAMPLING,
        "SASRecCPR": _NO_SAMPLING,
        "FOSSIL": _NO_SAMPLING,
        "FEARec": _NO_SAMPLING,
        "GRU4RecKG": _NO_SAMPLING,
        "S3Rec-pretrain": {"train_stage": "pretrain", **_NO_SAMPLING},
        "S3Rec-finetune": {"train_stage": "finetune", **_NO_SAMPLING},
        **dict.fromkeys(_EITHER_LOSS, _NO_SAMPLING),
        **{f"{name}-BPR": _BPR_LOSS for name in _EITHER_LOSS},
        "SINE-NLL": {**_NO_SAMPLING, "loss_type": "NLL"},
        "Caser": {**_NO_SAMPLING, **_SHORT, "reproducibility": False},
        "Caser-BPR": {**_BPR_LOSS, **_SHORT, "reproducibility": False},
        "NextItNet": {**_NO_SAMPLING, "reproducibility": False},
        "NextItNet-BPR": {**_BPR_LOSS, "reproducibility": False},
        "SRGNN": {**_NO_SAMPLING, **_GRAPH},
        "SRGNN-BPR": {**_BPR_LOSS, **_GRAPH},
        "GCSAN": {**_NO_SAMPLING, **_GRAPH},
        "GCSAN-BPR": {**_BPR_LOSS, **_GRAPH, "hidden_act": "tanh"},
        "SHAN": {**_NO_SAMPLING, **_INVERSE},
        "SHAN-BPR": {**_BPR_LOSS, **_INVERSE},
        "BERT4Rec": {**_NO_SAMPLING, **_MASKED},
        "BERT4Rec-BPR": {**_BPR_LOSS, **_MASKED, "hidden_act": "swish"},
        **dict.fromkeys(_POOLED, _NO_SAMPLING),
        **{
            f"{name}-{mode}": {**_NO_SAMPLING, "pooling_mode": mode} for name in _POOLED for mode in ("max", "sum")
        },
        "CORE-trm": {**_NO_SAMPLING, "dnn_type": "trm"},
        "CORE-ave": {**_NO_SAMPLING, "dnn_type": "ave"},
    },
    "knowledge-aware": {
        "CKE": {},
        "CFKG": {},
        "CFKG-transe": {"loss_function": "transe"},
        "KTUP": {"train_rec_step": 1, "train_kg_step": 1},
        "KTUP-L1": {"use_st_gumbel": False, "L1_flag": True},
        "KGAT": {},
        "KGAT-gcn": {"aggregator_type": "gcn"},
        "KGAT-graphsage": {"aggregator_type": "graphsage"},
        "RippleNet": {},
        "MKR": {},
        "MKR-mlp": {"use_inner_product": False},
        "KGCN": {},
        "KGCN-neighbor": {"aggregator": "neighbor"},
        "KGCN-concat": {"aggregator": "concat"},
        "KGNNLS": {},
        "KGNNLS-neighbor": {"aggregator": "neighbor"},
        "KGNNLS-concat": {"aggregator": "concat"},
        "MCCLK": {},
        "KGIN": {},
    },
}


# what RecBole 1.2.1 itself cannot run with the packages of requirements.txt
BROKEN = {
    "KSR": "multiplies float32 with the float64 matrix that it loads",
    "KGAT": "calls DGLGraph.edge_subgraph(preserve_nodes=...), which DGL 1.0 removed; earlier ones are not for "
    "Python 3.11",
}


def model_of(case: str) -> str:
    """The model's name in the name of a case."""
    return case.partition("-")[0]
