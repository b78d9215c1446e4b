import subprocess
import sys
from pathlib import Path

import pytest
import recbole

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python shows such warnings from 3.12 on")
def test_compiling_recbole_warns_of_nothing(tmp_path):
    own = tmp_path / "own.py"
    own.write_text('"\\p"\n')
    code = """if True:
        import pathlib, sys
        import recbole_dsl.compat
        for file in (*pathlib.Path(sys.argv[1]).rglob("*.py"), pathlib.Path(sys.argv[2])):
            compile(file.read_text(), str(file), "exec")
    """
    arguments = [sys.executable, "-c", code, str(Path(recbole.__file__).parent), str(own)]
    shown = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True).stderr
    assert [line.split(":")[0] for line in shown.splitlines() if "Warning" in line] == [str(own)]
