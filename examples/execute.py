"""Run the notebooks and keep what they print, for those who look at them on a page.

    pip install nbclient ipykernel
    python examples/execute.py [first_model ...]

Each runs in a folder of its own, which is removed.
"""

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

_FOLDER = Path(__file__).parent


def execute(file: Path) -> None:
    """Run ``file`` and write it with its outputs, without the times and versions of this machine.

    Raises:
        CellExecutionError: if a cell fails; the file stays as it is.
    """
    notebook = nbformat.read(file, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=600, resources=resources, coalesce_streams=True).execute()
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata = {}
    file.write_text(nbformat.writes(notebook) + "\n")


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in _FOLDER.glob("*.ipynb")):
        execute(_FOLDER / f"{name}.ipynb")
