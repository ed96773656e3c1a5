"""Digests of code and files, by which a result that was made from others is told; free of slow imports.

The digest of a piece of code covers its text and every definition of this library that it reaches, directly or by way
of others, but for comments and docstrings: a figure beside a measurement in one file does not count for what measures.
"""

import ast
import hashlib
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

LIBRARY = "hrebasin"
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
Place = tuple[str, str]  # a module, by its name within the library, and a definition there
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
            # The name as it lies on the disk, whatever text the locale takes it for
            digest.update(os.fsencode(file.relative_to(path)) + f" {len(content)}\n".encode() + content)
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
        modules: modules of which everything counts, by their names within the library ("matching.weights"), or a
            definition ("matching.weights:Descent").
        without: modules, packages with all in them, or definitions ("matching.weights.Descent") that do not count, nor
            what only they reach.
        library: the library's folder; by default the one that holds this file.

    Raises:
        ModuleNotFoundError: code imports a part of the library that is not there.
    """
    library = library or Path(__file__).parent
    tree = ast.parse(source)
    bound = _bound(tree, None, library)
    named = {(name, symbol or WHOLE) for name, _, symbol in (each.partition(":") for each in modules)}
    pending = named | _reached(tree, bound, library) | _only_imported(tree, bound, library)
    seen = {}
    while pending:
        place = pending.pop()
        if place in seen or any(".".join((*place, "")).startswith(f"{other}.") for other in without):
            continue
        seen[place], further = _part(*place, library)
        pending |= further
    content = [_dump(tree), *(f"{name}.{symbol}:{text}" for (name, symbol), text in sorted(seen.items()))]
    return hashlib.sha256("\n".join(content).encode()).hexdigest()


@dataclass
class _Module:
    """What a module defines (name -> its statements), what else it runs, and what it has from elsewhere."""

    path: Path
    definitions: dict[str, list[ast.stmt]]
    others: list[ast.stmt]
    bound: dict[str, set[Place]]
    on_import: set[Place]


@cache
def _part(name: str, symbol: str, library: Path) -> tuple[str, set[Place]]:
    """What counts of a definition, or of a module without its definitions ("") or whole, and what they reach."""
    module = _module(name, library)
    if symbol == WHOLE:
        passed_on = module.bound.values() if module.path.name == "__init__.py" else ()
        return "", {(name, each) for each in ("", *module.definitions)}.union(*passed_on)
    if symbol and symbol not in module.definitions:  # imported there, or made when the module runs
        return "", {(name, ""), *module.bound.get(symbol, ())}
    content = ast.Module(module.definitions[symbol] if symbol else module.others, [])
    further = _reached(content, _known(name, module), library) | {(name, "")}
    return _dump(content) + _data_beside(module.path, content), further if symbol else further | module.on_import


def _known(name: str, module: _Module) -> dict[str, set[Place]]:
    """What the names in a module's code may stand for."""
    own = {each: {(name, each)} for each in module.definitions}
    return own | {each: places | own.get(each, set()) for each, places in module.bound.items()}


@cache
def _module(name: str, library: Path) -> _Module:
    path = _file(name, library)
    tree, package = _parse(path), _package(name, path)
    definitions, others = {}, []
    for node in tree.body:
        names = [] if isinstance(node, ast.Import | ast.ImportFrom) or _is_docstring(node) else _defined(node)
        others += [node] if names is None else []
        for each in names or ():
            definitions.setdefault(each, []).append(node)
    bound = _bound(tree, package, library)
    module = _Module(path, definitions, others, bound, _only_imported(tree, bound, library))
    for stub in _stub(path):  # what the library passes on when it is asked for
        for each, places in _bound(_parse(stub), package, library).items():
            bound.setdefault(each, set()).update(places)
    known = _known(name, module)
    for each, nodes in definitions.items():  # a decorator of the library may enter in a table what no code names
        decorators = [decorator for node in nodes for decorator in getattr(node, "decorator_list", ())]
        if _reached(ast.Module(decorators, []), known, library):
            module.on_import.add((name, each))
    return module


def _defined(node: ast.stmt) -> list[str] | None:
    """The names that a statement of a module defines or changes; None for one that does more, or something else."""
    if isinstance(node, DEFINITIONS):
        return [node.name]
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return None
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    if any(isinstance(part, ast.Attribute | ast.Subscript) for target in targets for part in ast.walk(target)):
        return None
    return [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _bound(tree: ast.Module, package: str | None, library: Path) -> dict[str, set[Place]]:
    """The parts of the library that names stand for by imports anywhere in a tree.

    The code is a module of ``package``, "" for the library itself; None for code elsewhere.
    """
    bound = {}
    for node in _walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first, _, inner = alias.name.partition(".")
                if first == LIBRARY and _file(inner, library):
                    bound.setdefault(alias.asname or alias.name, set()).add((inner, WHOLE))
                    if inner and not alias.asname:
                        bound.setdefault(LIBRARY, set()).add(("", WHOLE))
        elif isinstance(node, ast.ImportFrom) and (base := _base(node, package)) is not None:
            for alias in node.names:
                if not (places := _places(base, alias.name, library)):
                    raise ModuleNotFoundError(f"no {alias.name} in {LIBRARY}.{base} of {library}")
                bound.setdefault(alias.asname or alias.name, set()).update(places)
    return bound


def _reached(tree: ast.Module, known: dict[str, set[Place]], library: Path) -> set[Place]:
    """Parts of the library that code names; of a module that is used by attributes, these alone."""
    around = {id(node.value): node for node in _walk(tree) if isinstance(node, ast.Attribute)}
    found = set()
    for name in (node for node in _walk(tree) if isinstance(node, ast.Name)):
        node, places = name, known.get(name.id, set())
        while node := around.get(id(node)):
            wholes = {place for place in places if place[1] == WHOLE}
            inner = [_places(base, node.attr, library) or {(base, node.attr)} for base, _ in wholes]
            places = (places - wholes).union(*inner)
        found |= places
    return found


def _only_imported(tree: ast.Module, bound: dict[str, set[Place]], library: Path) -> set[Place]:
    """Modules that code imports but never names (or as ``import a.b``): for what they do when they are imported."""
    named = {node.id for node in _walk(tree) if isinstance(node, ast.Name)} | {LIBRARY}
    silent = (places for name, places in bound.items() if name not in named)
    return {place for places in silent for place in places if place[1] == WHOLE}


def _base(node: ast.ImportFrom, package: str | None) -> str | None:
    """The module that names are imported from, within the library; None for one elsewhere."""
    if node.level == 0:
        first, _, rest = (node.module or "").partition(".")
        return rest if first == LIBRARY else None
    if package is None:
        return None
    parts = package.split(".") if package else []
    if node.level > len(parts) + 1:
        raise ModuleNotFoundError(f"{'.' * node.level}{node.module or ''} leads out of {LIBRARY} from {package}")
    return ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])


def _places(base: str, name: str, library: Path) -> set[Place]:
    """What ``from <base> import <name>`` may mean: a module, and what a module defines or passes on."""
    inner, path = f"{base}.{name}" if base else name, _file(base, library)
    places = {(inner, WHOLE)} if _find(inner, library) else set()
    return places | ({(base, name)} if any(name in _makes(file) for file in (path, *_stub(path))) else set())


@cache
def _makes(path: Path) -> set[str]:
    """All names that a module's code may make, wherever it does."""
    nodes = list(_walk(_parse(path)))
    aliases = {node.asname or node.name for node in nodes if isinstance(node, ast.alias)}
    definitions = {node.name for node in nodes if isinstance(node, DEFINITIONS)}
    return aliases | definitions | {node.id for node in nodes if isinstance(node, ast.Name)}


def _walk(tree: ast.Module) -> Iterator[ast.AST]:
    """All nodes in a tree; many ask, and most of a digest's time is walking."""
    return chain.from_iterable(map(_nodes, tree.body))


@cache
def _nodes(statement: ast.AST) -> list[ast.AST]:
    return list(ast.walk(statement))


def _parse(path: Path) -> ast.Module:
    return _parsed(path.read_text(encoding="utf-8"))


@cache
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


def _stub(path: Path) -> list[Path]:
    return [stub] if (stub := path.with_suffix(".pyi")).is_file() else []


def _package(name: str, path: Path) -> str:
    return name if path.name == "__init__.py" else name.rpartition(".")[0]


def _find(name: str, library: Path) -> Path | None:
    path = library.joinpath(*name.split(".")) if name else library
    return next((place for place in (path / "__init__.py", path.with_suffix(".py")) if place.is_file()), None)


def _file(name: str, library: Path) -> Path:
    if (path := _find(name, library)) is None:
        raise ModuleNotFoundError(f"no module {LIBRARY}.{name} in {library}, whose code a digest must cover")
    return path


def _data_beside(path: Path, tree: ast.Module) -> str:
    """Text of the files beside a module that its code names, such as a template or a style."""
    texts = {node.value for node in _walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    names = (text for text in sorted(texts) if text.endswith((".html", ".mplstyle")) and Path(text).name == text)
    beside = map(path.with_name, names)
    return "".join(file.read_text(encoding="utf-8") for file in beside if file.is_file())


def _dump(node) -> str:
    """As `ast.dump`, but for docstrings, and for fields that are empty: another Python may know more of them."""
    if isinstance(node, list):
        return f"[{', '.join(map(_dump, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    told = dict(ast.iter_fields(node))
    if isinstance(node, (ast.Module, *DEFINITIONS)) and ast.get_docstring(node, clean=False) is not None:
        told["body"] = node.body[1:] or [ast.Pass()]
    fields = [f"{name}={_dump(value)}" for name, value in told.items() if value not in (None, [])]
    return f"{type(node).__name__}({', '.join(fields)})"
