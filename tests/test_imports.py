"""No two modules import each other, however far round, for their types included."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
# circles through imports for types alone, to be broken
KNOWN = {tuple(f"recbole_dsl.training.{name}" for name in ("console", "resumable", "run_state", "trainer"))}


def imports_of_package(root, package):
    """Each module of ``package`` -> the modules of it that it imports when it is loaded, or for types."""
    files = {}
    for file in sorted((root / package).rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return {name: set(_imports(ast.parse(file.read_text()), files)) - {name} for name, file in files.items()}


def _imports(tree, known):
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if id(node) in inside:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in known else node.module


def circles_in(graph):
    """The strongly connected components of two or more, each sorted (Tarjan 1972)."""
    order, low, stack, circles = {}, {}, [], []

    def visit(node):
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in order:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == order[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                circles.append(tuple(sorted(component)))

    for node in graph:
        if node not in order:
            visit(node)
    return circles


def test_a_circle_is_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": {"e"}, "e": set(), "f": {"g"}, "g": {"f"}}
    assert sorted(circles_in(graph)) == [("b", "c"), ("f", "g")]


def test_imports_for_types_count_and_those_within_functions_do_not(tmp_path):
    package = tmp_path / "p"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.b import B\n")
    (package / "b.py").write_text("import p.a\ndef f():\n    import p.c\n")
    (package / "c.py").write_text("from p import b\n")
    graph = imports_of_package(tmp_path, "p")
    assert graph == {"p": set(), "p.a": {"p.b"}, "p.b": {"p.a"}, "p.c": {"p.b"}}
    assert circles_in(graph) == [("p.a", "p.b")]


def test_no_modules_import_each_other():
    graph = imports_of_package(ROOT, "recbole_dsl")
    # the names of the package are loaded when they are used
    del graph["recbole_dsl"]
    for imported in graph.values():
        imported.discard("recbole_dsl")
    assert set(circles_in(graph)) == KNOWN
