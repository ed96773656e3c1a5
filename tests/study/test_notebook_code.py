"""What results of a notebook depend on: not on what only shows them, and conclusions also on what is found by name."""

import shutil
from functools import cache
from pathlib import Path

import pytest

from hrebasin import digests
from hrebasin.files import project_root
from hrebasin.study.notebook_code import notebook_digest

CONCLUDING = {"06_paper", "29_answers"}
NOTEBOOKS = ("23_scale", "24_repair", *sorted(CONCLUDING))


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A copy of the library that digests are made of instead."""
    digests_at_first()
    folder = tmp_path / "hrebasin"
    shutil.copytree(Path(digests.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(digests, "__file__", str(folder / "digests.py"))
    return folder


def digests_now() -> dict[str, str]:
    for cached in (each for each in vars(digests).values() if hasattr(each, "cache_clear")):
        cached.cache_clear()
    return {name: notebook_digest(project_root() / "notebooks" / f"{name}.ipynb") for name in NOTEBOOKS}


digests_at_first = cache(digests_now)


@pytest.mark.parametrize(
    ("module", "old", "new", "changed"),
    [
        ("questions/scale", 'set_yscale("log")', 'set_yscale("linear")', CONCLUDING),
        ("questions/scale", ".prod(1)", ".prod(0)", {"23_scale"}),
        ("questions/scale", '"""Frobenius norms', '"""The Frobenius norms', set()),
        ("claims/accuracy", "SMALL, LARGE = 4, 8", "SMALL, LARGE = 4, 16", {"06_paper"}),
        ("../merging/repair", "SMALLEST = 1e-6", "SMALLEST = 1e-5", {"24_repair"}),
    ],
)
def test_what_a_change_makes_due(module, old, new, changed, library):
    file, before = library / "study" / f"{module}.py", digests_at_first()
    source = file.read_text()
    assert old in source
    file.write_text(source.replace(old, new, 1))
    after = digests_now()
    assert {name for name in NOTEBOOKS if before[name] != after[name]} == changed
