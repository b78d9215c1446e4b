"""Searches on "tiny", and what they leave."""

import json
from pathlib import Path

from recbole_dsl.tuning.search import SearchSettings, run_search


def search(options, lines, model="BPR", dataset="tiny", **settings):
    """The result of a search over the parameters in ``lines``."""
    Path("p.hyper").write_text(lines)
    return run_search(model, dataset, None, SearchSettings(**{"params_file": "p.hyper", **settings}), options)


def table(output):
    """The rows of the table in the folder ``output``."""
    return [json.loads(line) for line in Path(output, "trials.jsonl").read_text().splitlines()]


def files(folder):
    """path -> bytes of all the files in ``folder``."""
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
