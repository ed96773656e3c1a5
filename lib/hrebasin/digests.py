"""Digests of code, by which a result that was made by other code is told; free of other modules and slow imports."""

import ast
import hashlib
import json
from collections.abc import Collection
from functools import cache
from pathlib import Path

# Modules that only check, show or write: a new colour must not train 1600 networks again. What a data set holds is
# guarded by the format's name in `records`.
PRESENTATION = (
    "plots", "benchmark_plots", "question_plots", "drawing", "figures", "manifest", "progress", "records",
    "configuration", "digests", "files", "folders",
)  # fmt: skip


def code_digest(notebook: Path, *, without: Collection[str] = ()) -> str:
    """SHA-256 of what a notebook computes with: its code cells and the library modules it imports.

    Comments and docstrings do not count, so that explaining code repeats no run; nor do the modules in ``without``.
    """
    cells = json.loads(notebook.read_text())["cells"]
    source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return _digest(source, _imports(ast.parse(source), top="hrebasin"), without)


@cache
def module_digest(name: str) -> str:
    """The same of a module of the library, but for `PRESENTATION`."""
    return _digest("", {name}, PRESENTATION)


def _digest(source: str, modules: set[str], without: Collection[str]) -> str:
    library = Path(__file__).parent
    pending, seen = set(modules), {}
    while pending:
        name = pending.pop()
        path = library / f"{name}.py"
        if name not in seen and name not in without and path.is_file():
            seen[name], imports = _module(path.read_text())
            pending |= imports
    content = [_without_docstrings(ast.parse(source)), *(f"{name}:{seen[name]}" for name in sorted(seen))]
    return hashlib.sha256("\n".join(content).encode()).hexdigest()


@cache
def _module(text: str) -> tuple[str, frozenset[str]]:
    """What counts of a module's text, and the modules that it imports."""
    tree = ast.parse(text)
    return _without_docstrings(tree), frozenset(_imports(tree, top=""))


def _imports(tree: ast.Module, *, top: str) -> set[str]:
    """Names of the modules of this library that a tree imports."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level == 1 or (node.module or "").split(".")[0] == "hrebasin"):
            module = (node.module or "").removeprefix("hrebasin").strip(".")
            names |= {module} if module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import) and top:
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith(f"{top}.")}
    return names


def _without_docstrings(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)
