"""Digests of code and images, by which a result that was made from others is told; free of slow imports."""

import ast
import hashlib
import json
from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from .layout import ANSWERS, PAPER

# Modules that only check, show or write: a new colour must not train 1600 networks again. What a data set holds is
# guarded by the format's name in `records`.
PRESENTATION = (
    "catalogue", "plots", "benchmark_plots", "question_plots", "drawing", "figures", "manifest", "progress", "records",
    "checks", "configuration", "digests", "files", "folders",
)  # fmt: skip
# module -> the file that it reads beside itself
DATA = {"page": "page.html", "drawing": "paper.mplstyle"}
executed: dict[str, str] = {}  # what data sets written by this process tell of the notebook that it executes


def notebook_digest(notebook: Path) -> str:
    """SHA-256 of the code that results of a notebook depend on."""
    return code_digest(notebook, without=() if notebook.stem in (PAPER, ANSWERS) else PRESENTATION)


def executing(notebook: Path | str, **origin: str) -> None:
    """Tell this process which notebook it executes, for the attributes of the data sets that it writes: `executed`.

    Args:
        notebook: its digest becomes ``code_digest``.
        origin: further attributes.
    """
    executed.update(origin)
    with suppress(SyntaxError):  # of cells with magics, which are not Python
        executed["code_digest"] = notebook_digest(Path(notebook))


def files_digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files in a folder, through links too, but hidden ones."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file in _files_in(path):
        if not file.name.startswith("."):
            content = file.read_bytes()
            digest.update(f"{file.relative_to(path)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _files_in(folder: Path, around: tuple[Path, ...] = ()) -> Iterator[Path]:
    """All files in a folder by name; a link back to a folder around it is not followed."""
    around = (*around, folder.resolve())
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and entry.resolve() not in around:
            yield from _files_in(entry, around)
        elif entry.is_file():
            yield entry


def notebook_code(notebook: Path) -> str:
    """The code cells of a notebook, as one text."""
    cells = json.loads(notebook.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def code_digest(notebook: Path, *, without: Collection[str] = ()) -> str:
    """SHA-256 of what a notebook computes with: its code cells and the library modules it imports.

    Comments and docstrings do not count, so that explaining code repeats no run; nor do the modules in ``without``, nor
    the version of Python.
    """
    source = notebook_code(notebook)
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
    for name, data in DATA.items():
        if name in seen:
            seen[name] += (library / data).read_text()
    content = [essence(ast.parse(source)), *(f"{name}:{seen[name]}" for name in sorted(seen))]
    return hashlib.sha256("\n".join(content).encode()).hexdigest()


@cache
def _module(text: str) -> tuple[str, frozenset[str]]:
    """What counts of a module's text, and the modules that it imports."""
    tree = ast.parse(text)
    return essence(tree), frozenset(_imports(tree, top=""))


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


def essence(tree: ast.Module) -> str:
    """What counts of code, as text: all but comments and docstrings, which are taken out of the tree."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return _dump(tree)


def _dump(node) -> str:
    """As `ast.dump`, but for fields that are empty: another version of Python may know more of them."""
    if isinstance(node, list):
        return f"[{', '.join(map(_dump, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [f"{name}={_dump(value)}" for name, value in ast.iter_fields(node) if value not in (None, [])]
    return f"{type(node).__name__}({', '.join(fields)})"
