"""The tables of results/quality.md, made from the lines of results/quality.jsonl."""

from pathlib import Path


def write_page(lines, path: Path) -> None:
    path.write_text("")
