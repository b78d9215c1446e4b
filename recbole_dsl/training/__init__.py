"""RecBole's side: its options, trainers and quick start, with sparse weights."""

import recbole_dsl.compat  # noqa: F401
from recbole_dsl.environment import check_environment

# every module of this package imports RecBole
check_environment()
