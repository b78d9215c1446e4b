"""The table of docs/layout.md of all that the package changes in other modules and in the process, from its code.

python docs/changes.py
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "layout.md"
BEGIN, END = "<!-- made by docs/changes.py -->", "<!-- end -->"
_BLOCK = "its block ends"
# what makes the changes that others declare, and what names the package's own modules
_OWN = "patching.py", "lazy_names.py"


class Change(NamedTuple):
    """A row of the table."""

    where: str
    what: str
    why: str
    until: str


def files() -> list[Path]:
    """The files in which changes are declared."""
    return [path for path in (ROOT / "recbole_dsl").rglob("*.py") if path.name not in _OWN]


def declared(path: Path) -> Iterator[Change]:
    """The changes that a file declares."""
    where = path.relative_to(ROOT / "recbole_dsl").as_posix()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            for decorator in node.decorator_list:
                if _name(decorator) in ("replaces", "around_import"):
                    why = " ".join(ast.get_docstring(node).split("\n\n")[0].split()).rstrip(".")
                    (until,) = (ast.literal_eval(k.value) for k in decorator.keywords)
                    yield Change(where, _targets(decorator), why, until)
        if isinstance(node, ast.Call) and _name(node) in ("Patch", "Setting", "variable", "changes"):
            # what is no literal is refused: a reader of the table must find it by its words
            # those of a Setting that read and write it are no words
            args = node.args[:2] if _name(node) == "Setting" else node.args
            given = [ast.literal_eval(one) for one in args]
            given += [ast.literal_eval(k.value) for k in node.keywords]
            if _name(node) == "Patch":
                given[:2] = [".".join(given[:2])]
            if _name(node) == "variable":
                given[0] = f"os.environ[{given[0]}]"
            yield Change(where, given[0], given[1], given[2] if len(given) > 2 else _BLOCK)


def _name(node: ast.AST) -> str:
    node = node.func if isinstance(node, ast.Call) else node
    return node.id if isinstance(node, ast.Name) else ""


def _targets(decorator: ast.Call) -> str:
    """Names of one attribute in several modules as one."""
    found: dict[str, list[str]] = {}
    for one in decorator.args:
        # a module's constant
        target = one.value if isinstance(one, ast.Constant) else ast.unparse(one)
        module, _, name = target.partition(":")
        found.setdefault(name, []).append(module)
    return "; ".join(
        f"{modules[0]}{':' if name else ''}{name}"
        + (f" and in {len(modules) - 1} more" if len(modules) > 1 else "")
        for name, modules in found.items()
    )


# calls that change the process, or a module; who may draw from the random generators is the subject of turns.py
_CALLS = re.compile(
    r"""signal\.(signal|setitimer)|warnings\.(filterwarnings|simplefilter|resetwarnings)
    |logging\.(disable|basicConfig|captureWarnings|setLoggerClass|addLevelName)
    |(root|(logging\.)?getLogger\(\))\.(addHandler|removeHandler|setLevel|addFilter|removeFilter)
    |sys\.(set\w+|(meta_path|path|path_hooks)\.(insert|append|remove|pop))
    |os\.(chdir|umask|putenv|unsetenv|dup2|environ\.(pop|update|setdefault|clear))
    |torch\.([\w.]+\.)?(set_(?!rng_state)\w+|use_deterministic_algorithms|add_safe_globals|safe_globals)
    |(np|numpy)\.seterr|(contextlib\.)?redirect_std(out|err)
    |atexit\.register|faulthandler\.\w+|gc\.(disable|freeze)|locale\.setlocale|multiprocessing\.set_\w+
    |importlib\.reload""",
    re.VERBOSE,
)


def undeclared(path: Path) -> Iterator[str]:
    """The lines of a file that change another module or the process, and that no declaration is about."""
    tree = ast.parse(path.read_text())
    imported = {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        and not (getattr(node, "module", None) or "").startswith("recbole_dsl")
        for alias in node.names
    }

    for node in ast.walk(tree):
        if isinstance(node, ast.For) and isinstance(node.iter, ast.Tuple) and isinstance(node.target, ast.Name):
            imported |= {node.target.id} if any(_root(one) in imported for one in node.iter.elts) else set()
        if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith(
            ("importlib.import_module(", "sys.modules[")
        ):
            imported |= {_root(target) for target in node.targets}

    def visit(node: ast.AST, is_declared: bool) -> Iterator[str]:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            is_declared |= any(
                _name(one) in ("changes", "replaces", "around_import") for one in node.decorator_list
            )
        if not is_declared and _changes(node, imported):
            yield f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node).splitlines()[0]}"
        for child in ast.iter_child_nodes(node):
            yield from visit(child, is_declared)

    yield from visit(tree, False)


def _changes(node: ast.AST, imported: set[str]) -> bool:
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        if called in ("setattr", "delattr"):
            return _root(node.args[0]) in imported
        return bool(_CALLS.fullmatch(called))
    if isinstance(node, (ast.Assign, ast.Delete)):
        targets = node.targets
    elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
        targets = [node.target]
    else:
        return False
    targets = [one for target in targets for one in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return any(
        (isinstance(one, ast.Attribute) and (_root(one) in imported or one.attr == "__code__"))
        or (isinstance(one, ast.Subscript) and ast.unparse(one.value) in ("os.environ", "sys.modules"))
        for one in targets
    )


def _root(node: ast.AST) -> str:
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def table() -> str:
    """The rows, by file."""
    found = {change for path in files() for change in declared(path)}
    rows = [f"| `{c.where}` | {c.what} | {c.why} | {c.until} |" for c in sorted(found)]
    return "\n".join(["| declared in | what | why | until |", "| --- | --- | --- | --- |", *rows])


def page() -> str:
    """docs/layout.md with the table as it is now."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page())
