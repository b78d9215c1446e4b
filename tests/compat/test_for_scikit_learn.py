import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def run(script, *folders):
    path = os.pathsep.join(map(str, (*folders, ROOT)))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    return done.stdout.split(), done.stderr


def test_it_is_imported_when_something_of_it_is_called():
    script = (
        "import sys\n"
        "import recbole_dsl.compat\n"
        "from recbole.evaluator import metrics\n"
        "from recbole.model.general_recommender import nceplrec, slimelastic\n"
        "print('sklearn' in sys.modules, 'scipy.stats' in sys.modules)\n"
        "print(metrics.sk_auc([0, 0.5, 1], [0, 1, 1]), metrics.mean_absolute_error([1, 2], [2, 4]))\n"
        "slimelastic.ElasticNet()\n"
        "import sklearn.exceptions, sklearn.metrics, sklearn.utils.extmath\n"
        "print(slimelastic.ConvergenceWarning is sklearn.exceptions.ConvergenceWarning)\n"
        "print(metrics.mean_squared_error is sklearn.metrics.mean_squared_error)\n"
        "import numpy as np\n"
        "matrix = np.random.rand(9, 5)\n"
        "print(nceplrec.randomized_svd(matrix, 3)[1].shape)\n"
        "print(nceplrec.randomized_svd is sklearn.utils.extmath.randomized_svd)\n"
    )
    found, said = run(script)
    assert found == ["False", "False", "0.75", "1.5", "True", "True", "(3,)", "True"], said


def test_one_that_fails_is_named_then(tmp_path):
    (tmp_path / "sklearn.py").write_text("raise ValueError('numpy.dtype size changed')\n")
    script = "import recbole_dsl.compat; from recbole.evaluator import metrics; metrics.sk_auc([0, 1], [0, 1])"
    _, said = run(script, tmp_path)
    last = said.splitlines()[-1]
    assert "scikit-learn cannot be imported (numpy.dtype size changed): " in last and last.endswith(
        "pip install --upgrade scikit-learn"
    )
