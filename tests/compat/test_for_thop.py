import sys

import pytest
from recbole.utils import get_flops

from recbole_dsl.errors import DSLError


def test_without_distutils_the_count_says_what_to_install(monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] in ("thop", "distutils")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "distutils", None)
    with pytest.raises(DSLError, match=r"distutils.*pip install thop setuptools") as error:
        get_flops(None, None, "cpu", None, None)
    assert "\n" not in str(error.value)
