"""What is public says of every parameter and result what it is."""

import inspect

import pytest

import recbole_dsl
from recbole_dsl import serving

PUBLIC = [
    *((recbole_dsl, name) for name in recbole_dsl.__all__),
    *((serving, name) for name in serving.__all__),
]


def functions_of(value):
    """``value`` itself, or the methods and properties of the class that are its own and public."""
    if not inspect.isclass(value):
        yield inspect.unwrap(value)
        return
    for name, member in vars(value).items():
        if name.startswith("_"):
            continue
        member = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if inspect.isfunction(member):
            yield member


@pytest.mark.parametrize("module, name", PUBLIC, ids=[name for _, name in PUBLIC])
def test_every_public_function_has_types_and_a_docstring(module, name):
    value = getattr(module, name)
    assert value.__doc__
    for function in functions_of(value):
        parameters = [p for p in inspect.signature(function).parameters.values() if p.name not in ("self", "cls")]
        untyped = [p.name for p in parameters if p.annotation is inspect.Parameter.empty]
        assert not untyped and "return" in function.__annotations__, f"{function.__qualname__}: {untyped}"
