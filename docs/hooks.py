"""Pages of the documentation that lie outside of docs/: the results, the changes, how to contribute."""

from pathlib import Path

from mkdocs.structure.files import File, Files

_ROOT = Path(__file__).parent.parent
_PAGES = "results/*.md", "results/*.svg", "results/*.png", "CHANGELOG.md", "CONTRIBUTING.md"


def on_files(files: Files, *, config) -> Files:
    for pattern in _PAGES:
        for path in sorted(_ROOT.glob(pattern)):
            name = path.relative_to(_ROOT).as_posix()
            name = name if "/" in name else name.lower()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files
