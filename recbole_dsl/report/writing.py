"""Writing the page of some runs."""

import logging
import os
from collections.abc import Sequence
from html import escape

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


class Report:
    """The page of some runs; at the end of a notebook's cell it shows itself.

    What needs the data (costs, the test result, groups, widths, times) is left out if that is missing, and so is
    what a file of an earlier version does not have; the page says so.

    Args:
        model_files: checkpoints of the best epochs of runs; the page is about the first.
        data_path: where the folder of the dataset is, if it has moved since.

    Attributes:
        page: HTML, whole, which loads nothing and runs no script.

    Raises:
        DSLError: if a file is no whole checkpoint.
    """

    @turn()
    def __init__(self, model_files: Sequence[str], data_path: str | None = None):
        with _LOG.by(logging.INFO):
            runs = [read_run(file, data_path) for file in dict.fromkeys(map(os.path.normpath, model_files))]
        name_apart(runs)
        self.page = page_of(runs)

    def _repr_html_(self) -> str:
        # in a frame, as the page has colours and rules of its own
        return f'<iframe srcdoc="{escape(self.page)}" style="width:100%;height:85vh;border:0"></iframe>'


def write_report(model_files: Sequence[str], path: str, data_path: str | None = None) -> Report:
    """Write the `Report` of ``model_files`` to ``path``, and return it.

    Raises:
        DSLError: as `Report`, or if the page cannot be written, or ``path`` is a file of another kind.
    """
    place = output_file(path, "output", "a page of recbole-dsl report", is_page, model_files)
    require_writable(os.path.dirname(place), "output")
    report = Report(model_files, data_path)
    try:
        with whole_file(place) as file:
            file.write(report.page.encode())
    except OSError as error:
        raise DSLError(f"output={path}: must be a file that can be written: {error.strerror}") from error
    return report
