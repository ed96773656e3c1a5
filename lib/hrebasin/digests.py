"""Digests of code and files, by which a result that was made from others is told; free of slow imports.

The digest of a piece of code covers its text and every definition of this library that it reaches, directly or by way
of others, but for comments and docstrings: a figure beside a measurement in one file does not count for what measures.
"""

import ast
import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

LIBRARY = "hrebasin"
# Modules that only check, show or write: a change there repeats no training.
NEUTRAL = ("checks", "digests", "files", "progress")
WHOLE = "*"  # stands for all definitions of a module


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


@cache
def module_digest(name: str) -> str:
    """SHA-256 of a module of the library, such as "training.train", and of what it reaches, but for `NEUTRAL`."""
    return code_digest("", modules={name}, without=NEUTRAL)


def code_digest(
    source: str, *, modules: Collection[str] = (), without: Collection[str] = (), library: Path | None = None
) -> str:
    """SHA-256 of code and of the definitions of the library that it reaches, whatever the version of Python.

    Args:
        source: Python code that imports by absolute names.
        modules: modules of which everything counts, by their names within the library ("matching.weights"), or single
            definitions ("matching.weights:match_weights").
        without: packages, modules or definitions ("matching.weights.match_weights") that do not count, nor what only
            they reach.
        library: the library's folder; by default the one that holds this file.

    Raises:
        ModuleNotFoundError: code imports a module of the library that is not there.
    """
    library = library or Path(__file__).parent
    tree = ast.parse(source)
    named = {(name, symbol or WHOLE) for name, _, symbol in (each.partition(":") for each in modules)}
    pending, seen = named | _reached(tree, _bound(tree, None, library)), {}
    while pending:
        place = pending.pop()
        if place in seen or any(".".join((*place, "")).startswith(f"{other}.") for other in without):
            continue
        seen[place], further = _part(*place, library)
        pending |= further
    content = [essence(tree), *(f"{name}.{symbol}:{text}" for (name, symbol), text in sorted(seen.items()))]
    return hashlib.sha256("\n".join(content).encode()).hexdigest()


@dataclass
class _Module:
    """What a module defines (name -> its statements), what else it runs, and where its imported names are from."""

    path: Path
    definitions: dict[str, list[ast.stmt]]
    others: list[ast.stmt]
    bound: dict[str, tuple[str, str]]


def _part(name: str, symbol: str, library: Path) -> tuple[str, set[tuple[str, str]]]:
    """What counts of a definition, or of a module without its definitions ("") or whole, and what they reach."""
    module = _module(name, library)
    if symbol == WHOLE:
        return "", {(name, each) for each in ("", *module.definitions)}
    if symbol not in ("", *module.definitions):  # imported there, or made when the module runs
        origin = _origin(name, symbol, library)
        return "", {origin if origin != (name, symbol) else (name, "")}
    statements = module.definitions[symbol] if symbol else module.others
    content = ast.Module(statements, [])
    known = {defined: (name, defined) for defined in module.definitions} | module.bound
    text = essence(content) + _data_beside(module.path, content)
    return text, _reached(content, known) | {(name, "")} - {(name, symbol)}


@cache
def _module(name: str, library: Path) -> _Module:
    path = _file(name, library)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    definitions, others = {}, []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
        else:
            names = []
            if not isinstance(node, ast.Import | ast.ImportFrom) and not _is_docstring(node):
                others.append(node)
        for each in names:
            definitions.setdefault(each, []).append(node)
    return _Module(path, definitions, others, _bound(tree, package, library))


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _bound(tree: ast.AST, package: str | None, library: Path) -> dict[str, tuple[str, str]]:
    """Names that imports anywhere in a tree bind to parts of the library: (module, definition or `WHOLE`).

    Args:
        tree: of the code.
        package: that the code is a module of, "" for the library itself; None for code elsewhere.
        library: the library's folder.
    """
    bound = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first, _, inner = alias.name.partition(".")
                if first == LIBRARY and _file(inner, library):
                    bound[alias.asname or alias.name] = inner, WHOLE
        elif isinstance(node, ast.ImportFrom) and (base := _base(node, package)) is not None:
            bound |= {alias.asname or alias.name: _origin(base, alias.name, library) for alias in node.names}
    return bound


def _reached(tree: ast.AST, known: dict[str, tuple[str, str]]) -> set[tuple[str, str]]:
    """Parts of the library that code uses; of a module that is used by attributes, these alone."""
    inside = {id(node.value): node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    found = {place for name, place in known.items() if "." in name}  # import hrebasin.x.y: used in full
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in known:
            module, symbol = known[node.id]
            found.add((module, inside.get(id(node), WHOLE) if symbol == WHOLE else symbol))
    return found


def _base(node: ast.ImportFrom, package: str | None) -> str | None:
    """The module that names are imported from, within the library; None for one elsewhere."""
    if node.level == 0:
        first, _, rest = (node.module or "").partition(".")
        return rest if first == LIBRARY else None
    if package is None:
        return None
    parts = package.split(".") if package else []
    return ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])


@cache
def _origin(base: str, name: str, library: Path) -> tuple[str, str]:
    """Where ``from <base> import <name>`` has a name from: a module, a definition in one, or what a package passes on."""
    inner = f"{base}.{name}" if base else name
    if _find(inner, library):
        return inner, WHOLE
    path = _file(base, library)
    stub = path.with_suffix(".pyi")  # what the library passes on when asked for it
    tree = ast.parse((stub if stub.is_file() else path).read_text(encoding="utf-8"))
    package = base if path.name == "__init__.py" else base.rpartition(".")[0]
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (source := _base(node, package)) is not None:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _origin(source, alias.name, library)
    return base, name


def _find(name: str, library: Path) -> Path | None:
    path = library.joinpath(*name.split(".")) if name else library
    return next((place for place in (path.with_suffix(".py"), path / "__init__.py") if place.is_file()), None)


def _file(name: str, library: Path) -> Path:
    if (path := _find(name, library)) is None:
        raise ModuleNotFoundError(f"no module {LIBRARY}.{name} in {library}, whose code a digest must cover")
    return path


def _data_beside(path: Path, tree: ast.AST) -> str:
    """Text of the files beside a module that its code names, such as a template or a style."""
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    beside = (path.with_name(text) for text in sorted(texts) if text.endswith((".html", ".mplstyle")))
    return "".join(file.read_text(encoding="utf-8") for file in beside if file.is_file())


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
