"""Pages of the documentation that lie outside of docs/: results, changes, how to contribute, notebooks."""

import re
from pathlib import Path

from mkdocs.structure.files import File, Files

_ROOT = Path(__file__).parent.parent
_PAGES = "results/*.md", "results/*.svg", "results/*.png", "examples/*.ipynb", "CHANGELOG.md", "CONTRIBUTING.md"


def on_files(files: Files, *, config) -> Files:
    for pattern in _PAGES:
        for path in sorted(_ROOT.glob(pattern)):
            name = path.relative_to(_ROOT).as_posix()
            name = name if "/" in name else name.lower()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_) -> str:
    """Links from docs/ as a code host needs them, for the site, of which docs/ is the root."""
    markdown = re.sub(r"(\]\()\.\./((?:results|examples)/)", r"\1\2", markdown)
    return re.sub(
        r"(\]\()\.\./((?:CHANGELOG|CONTRIBUTING)\.md)", lambda found: found[1] + found[2].lower(), markdown
    )
