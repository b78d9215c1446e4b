"""What the documentation shows from outside of docs/: results, changes, how to contribute, notebooks."""

from pathlib import Path

from mkdocs.structure.files import File, Files

_ROOT = Path(__file__).parent.parent
_PAGES = "results/*.md", "results/*.svg", "examples/*.ipynb", "CHANGELOG.md", "CONTRIBUTING.md"


def on_files(files: Files, *, config) -> Files:
    for pattern in _PAGES:
        for path in sorted(_ROOT.glob(pattern)):
            name = path.relative_to(_ROOT).as_posix()
            name = name if "/" in name else name.lower()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files
