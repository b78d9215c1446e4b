"""Writing the page of some runs."""

import logging
import os
from collections.abc import Sequence

from recbole_dsl.errors import DSLError
from recbole_dsl.files import output_file, require_writable, whole_file
from recbole_dsl.patching import Setting
from recbole_dsl.report.facts import name_apart, read_run
from recbole_dsl.report.page import is_page, page_of
from recbole_dsl.turns import turn

_LOG = Setting(
    "logging.disable",
    "what RecBole logs of options and data is of the training",
    lambda: logging.root.manager.disable,
    logging.disable,
)


@turn()
def write_report(model_files: Sequence[str], path: str, data_path: str | None = None) -> None:
    """Write the page of ``model_files`` to ``path``, about the first, with the others beside it.

    What needs the data (costs, the test result, groups, widths, times) is left out if that is missing, and so is
    what a file of an earlier version does not have; the page says so.

    Args:
        model_files: checkpoints of the best epochs of runs.
        data_path: where the folder of the dataset is, if it has moved since.

    Raises:
        DSLError: if one is no whole checkpoint, the page cannot be written, or ``path`` is a file of another kind.
    """
    place = output_file(path, "output", "a page of recbole-dsl report", is_page, model_files)
    require_writable(os.path.dirname(place), "output")
    with _LOG.by(logging.INFO):
        runs = [read_run(file, data_path) for file in dict.fromkeys(map(os.path.normpath, model_files))]
    name_apart(runs)
    content = page_of(runs).encode()
    try:
        with whole_file(place) as file:
            file.write(content)
    except OSError as error:
        raise DSLError(f"output={path}: must be a file that can be written: {error.strerror}") from error
