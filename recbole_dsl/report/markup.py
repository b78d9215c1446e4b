"""The pieces that a page is made of."""

from collections.abc import Sequence
from html import escape


def figure(title: str, inside: str, words: str, legend: Sequence[str] = ()) -> str:
    """A figure with its title, and what it shows in ``words``; nothing if there is nothing ``inside``."""
    if not inside:
        return ""
    keys = "".join(
        f'<li><svg viewBox="0 0 26 10"><line class="line s{number}" x1="0" x2="26" y1="5" y2="5"/></svg>'
        f"{escape(name)}</li>"
        for number, name in enumerate(legend)
    )
    keys = f'<ul class="legend">{keys}</ul>' if len(legend) > 1 else ""
    return f"<figure><h3>{escape(title)}</h3>{inside}{keys}<figcaption>{escape(words)}</figcaption></figure>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], style: str = "") -> str:
    """A table that is scrolled where it is too wide."""
    cells = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    return f'<div class="wide"><table class="{style}"><tr>{top}</tr>{body}</table></div>'


def tile(value: str, words: str) -> str:
    """A number that is seen first."""
    return f'<div class="tile"><b>{escape(value)}</b>{escape(words)}</div>'


def grid(figures: Sequence[str], style: str = "") -> list[str]:
    """``figures`` side by side where there is room; with the style "broad", of fewer columns."""
    found = [one for one in figures if one]
    return [f'<div class="figures {style}">{"".join(found)}</div>'] if found else []
