"""Sums of files as ``sha256sum --check SHA256SUMS`` reads them: a list in each folder, kept by whoever writes there."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from ...files import read_text, write_atomically

NAME = "SHA256SUMS"
LINE = re.compile(r"[0-9a-f]{64}  .")


def enter(paths: Iterable[Path | str]) -> None:
    """Enter files that were just written into the lists of their folders; what is no longer there is left out."""
    paths = [Path(path) for path in paths]
    for folder in dict.fromkeys(path.parent for path in paths):
        sums = _listed(folder)[0] | {path.name: _sum(path) for path in paths if path.parent == folder}
        lines = [f"{sums[name]}  {name}\n" for name in sorted(sums) if (folder / name).is_file()]
        write_atomically(folder / NAME, "".join(lines))


def compare(folder: Path | str, *patterns: str) -> tuple[list[Path], list[str]]:
    """The files of a folder against its list.

    Args:
        folder: with a list.
        patterns: files that must be in the list, such as ``"*.nc"``.

    Returns:
        The files listed, and what is wrong, in words that name the file.
    """
    folder = Path(folder)
    if not (folder / NAME).is_file():
        return [], [f"{folder / NAME} is missing"]
    sums, others = _listed(folder)
    wrong = [f"{folder / NAME} has a line that is no sum: {line!r}" for line in others]
    for name, expected in sums.items():
        if not (folder / name).is_file():
            wrong.append(f"{folder / name} is missing")
        elif _sum(folder / name) != expected:
            wrong.append(f"{folder / name} is not the file that was written: its SHA-256 is not that in {NAME}")
    there = {path.name for pattern in patterns for path in folder.glob(pattern)}
    wrong += [f"{folder / name} is not listed in {NAME}" for name in sorted(there - set(sums))]
    return [folder / name for name in sums], wrong


def _listed(folder: Path) -> tuple[dict[str, str], list[str]]:
    """The sums of a folder's list by name of the file, and its lines that are none; nothing where there is no list."""
    lines = read_text(folder / NAME).splitlines() if (folder / NAME).is_file() else []
    sums = (line.partition("  ") for line in lines if LINE.match(line))
    return {name: expected for expected, _, name in sums}, [line for line in lines if not LINE.match(line)]


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
