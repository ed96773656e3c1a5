"""What a command line says: the values of a run, and the parameters of a notebook."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import yaml

from ...files import read_text
from .plan import TEXTS

WORDS = {"True": True, "False": False, "None": None}
YES_OR_NO = {"true": True, "false": False}


def run_values(texts: Sequence[str]) -> dict:
    """Values of a run by name, from ``["setting=tiny", "epochs=3", ...]``.

    Raises:
        ValueError: a text without ``=``, or a name twice.
    """
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ValueError(f"values are written key=value, got {text!r}")
        if not value:
            raise ValueError(f"{name}= names no value")
        if name in values:
            raise ValueError(f"{name!r} is set twice")
        values[name] = value if name in TEXTS else YES_OR_NO.get(value.lower(), _number(value))
    return values


def notebook_parameters(
    given: Mapping,
    *,
    files: Sequence[Path],
    texts: Sequence[str],
    values: Sequence[tuple[str, str]],
    raw: Sequence[tuple[str, str]],
) -> dict:
    """Parameters of a notebook by name; of the same name, later arguments of this function win, as papermill has it.

    Args:
        given: a JSON object.
        files: YAML files with names and values.
        texts: such YAML.
        values: names, and texts that may be numbers, True, False or None.
        raw: names, and texts that stay texts.

    Raises:
        OSError: a file that cannot be read.
        ValueError: no YAML, or no names and values.
    """
    sources = [("JSON", given)]
    try:
        sources += [(str(path), yaml.safe_load(read_text(path))) for path in files]
        sources += [(f"-y {text!r}", yaml.safe_load(text)) for text in texts]
    except yaml.YAMLError as error:
        raise ValueError(f"parameters are not valid YAML: {error}") from error
    for where, found in sources:
        if not isinstance(found, dict):
            raise ValueError(f"{where} must hold names and values of parameters, got {found!r}")
    together = {name: value for _, found in sources for name, value in found.items()}
    together |= {name: WORDS.get(text, _number(text)) for name, text in values}
    return together | dict(raw)


def _number(text: str) -> int | float | str:
    """A whole number, a number, or the text itself."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text
