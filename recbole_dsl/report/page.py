"""The page of a report."""

import os
from collections.abc import Sequence

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from recbole_dsl.report.charts import MOST
from recbole_dsl.report.facts import RunFacts
from recbole_dsl.report.figures import (
    counted,
    figures_of_rows,
    figures_of_topology,
    figures_of_training,
    figures_of_who_pays,
)
from recbole_dsl.report.night import parts_of_nights
from recbole_dsl.report.result import parts_of_result, tiles_of
from recbole_dsl.report.step_figures import parts_of_step
from recbole_dsl.training.run_files import from_here

_MARK = '<p class="faint">recbole-dsl report of '
# the part of a page in which the mark is
_BEGIN = 2**16
_FOLDER = os.path.dirname(__file__)


def page_of(runs: Sequence[RunFacts]) -> str:
    """The whole page of ``runs``, the first of which it is about."""
    with open(os.path.join(_FOLDER, "style.css"), encoding="utf-8") as file:
        style = file.read()
    page = Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, trim_blocks=True).get_template(
        "page.html"
    )
    # more lines than there are colours cannot be told apart
    drawn = runs[:MOST]
    return page.render(
        title=_title(runs),
        style=Markup(style),
        mark=Markup(_MARK),
        from_here=from_here,
        tiles=[(run, tiles_of(run)) for run in runs],
        result=parts_of_result(runs),
        nights=parts_of_nights(runs),
        training=figures_of_training(drawn),
        topology=figures_of_topology(drawn),
        rows=figures_of_rows(drawn),
        who_pays=figures_of_who_pays(drawn),
        step=parts_of_step(drawn),
        runs=runs,
        options=_options,
        most=MOST,
    )


def is_page(path: str) -> bool:
    """Whether the file at ``path`` is a page that `page_of` made."""
    with open(path, "rb") as file:
        begin = file.read(_BEGIN)
    return begin.startswith(b"<!doctype html>") and _MARK.encode() in begin


def _title(runs: Sequence[RunFacts]) -> str:
    first = runs[0]
    title = f"{first.model} on {first.dataset}, density {first.density:g}"
    return f"{title}, and {counted(len(runs) - 1, 'other run')}" if len(runs) > 1 else title


def _options(run: RunFacts) -> list[list[str]]:
    rows = [[name, str(value)] for name, value in sorted(run.changed.items())]
    return rows + [[f"version of {name}", text] for name, text in run.record.versions.items() if run.record.epoch]
