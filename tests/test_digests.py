import ast
import hashlib

import nbformat
import pytest

from hrebasin.digests import _dump, code_digest, files_digest, module_digest
from hrebasin.files import project_root
from hrebasin.study.notebook_code import notebook_digest

# A library in small: the names of its files and their text.
FILES = {
    "__init__.py": '"""A library."""\n__getattr__ = object()\n',
    "__init__.pyi": "from .matching.weights import match as match\nfrom .merging.tree import merge as merge_tree\n",
    "bank.py": 'class Bank:\n    """Networks."""\n    def size(self):\n        """Their number."""\n        return 8\n',
    "matching/__init__.py": "",
    "matching/assignment.py": "import numpy\nROUNDS = 9\ndef solve(x): return ROUNDS\ndef plot(): return 'plain'\n",
    "matching/weights.py": "from ..bank import Bank\nfrom . import assignment as a\nTABLE = {}\nTABLE['x'] = 2\n"
    "'Sizes'\ndef match(bank: Bank): return a.solve(bank)\ndef show(): return a.plot()\n",
    "merging/__init__.py": "from .tree import merge\nfrom .rules import named\n",
    "merging/tree.py": "from ..matching.weights import match\ndef merge(b):\n    # both\n    return 0.5 * match(b)\n",
    "merging/rules.py": "from . import table  # noqa: F401\nfrom .calls import RULES\ndef named(): return RULES\n",
    "merging/calls.py": "RULES = {}\ndef rule(f): return RULES.setdefault(f.__name__, f)\n",
    "merging/table.py": "from .calls import rule\n@rule\ndef linear(): return 1\ndef helper(): return 2\n",
    "study/__init__.py": "",
    "study/deep/__init__.py": "",
    "study/deep/page.py": "from ...bank import Bank\nfrom ..notes import note\ndef page(): return 'page.html'\n",
    "study/deep/page.html": "<p>a page</p>",
    "study/notes.py": "from ..matching.weights import show\ndef merge(): return 5\n"
    "def note():\n    from ..merging.tree import merge\n    return merge\n"
    "def other():\n    from ..bank import Bank as merge\n    return merge\n",
}
MATCH, MERGE = "matching/weights.py", "merging/tree.py"


@pytest.fixture(scope="module")
def digest(tmp_path_factory):
    """``digest(source, file, old, new)``: of code on a copy of the library in which a file's text was replaced."""
    written = {}

    def library(file=None, old="", new=""):
        folder = tmp_path_factory.mktemp("digest") / "hrebasin"
        for name, text in FILES.items():
            if name == file:
                assert text.count(old) == 1, f"{old!r} must stand once in {name}"
                text = text.replace(old, new)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return folder

    def of(source, *change, **options):
        written[change] = written.get(change) or library(*change)
        return code_digest(source, library=written[change], **options)

    return of


CHANGES = {  # what is changed, and in which file
    "solve": ("matching/assignment.py", "ROUNDS = 9", "ROUNDS = 8"),
    "plot": ("matching/assignment.py", "'plain'", "'fancy'"),
    "bank": ("bank.py", "return 8", "return 7"),
    "table": (MATCH, "TABLE['x'] = 2", "TABLE['x'] = 3"),
    "show": (MATCH, "return a.plot()", "return [a.plot()]"),
    "merge": (MERGE, "0.5", "0.25"),
    "docs": ("bank.py", '        """Their number."""\n', ""),
    "module docs": ("__init__.py", '"""A library."""', '"""The library."""'),
    "attribute docs": (MATCH, "'Sizes'", "'All sizes'"),
    "comment": (MERGE, "# both", "# all"),
    "layout": (MERGE, "0.5 * match(b)", "(0.5\n        * match(b))"),
    "import": ("matching/assignment.py", "import numpy\n", "import os\nimport numpy\n"),
    "linear": ("merging/table.py", "return 1", "return 3"),
    "helper": ("merging/table.py", "return 2", "return 3"),
    "own": ("study/notes.py", "return 5", "return 6"),
    "html": ("study/deep/page.html", "a page", "another"),
}
MATCHING = {"solve", "bank", "table"}  # what counts for `match`
RULES = {"linear", "helper"}


FROM, MERGING = "from hrebasin.", MATCHING | {"merge"}
REACHED = [
    (FROM + "matching.weights import match as m\nm(1)", MATCHING),
    (FROM + "matching import weights\nweights.match(1)", MATCHING),
    ("from hrebasin import matching\nmatching.weights.match(1)", MATCHING),
    ("import hrebasin.matching.weights as w\nw.match(1)", MATCHING),
    ("if True:\n    from hrebasin import match\n    match(1)", MATCHING),
    ("import hrebasin as h\nh.merge_tree(1)", MERGING),
    (FROM + "merging import merge\nmerge(1)", MERGING),
    ("import hrebasin.bank\nhrebasin.merge_tree(1)", MERGING),
    (FROM + "study.notes import note\nnote()", MERGING | {"own"}),
    (FROM + "study.notes import other\nother()", {"bank", *MERGING, "own"}),  # a name's scope is not told
    ("import hrebasin.matching.weights", MATCHING | {"show", "plot"}),
    ("import hrebasin.study.notes", MERGING | {"own"}),
    (FROM + "matching import weights\nvars(weights)", MATCHING | {"show", "plot"}),
    ("from hrebasin import matching", set()),
    ("import hrebasin.merging", MERGING | RULES),
    (FROM + "merging.rules import named\nnamed()", RULES),
    (FROM + "merging.table import helper\nhelper()", RULES),
    (FROM + "study.deep.page import page\npage()", {"html"}),
    (FROM + "study.deep.page import Bank\nBank()", {"bank"}),
    ("import numpy as match\nmatch.merge_tree", set()),
]


@pytest.mark.parametrize(("source", "counting"), REACHED)
def test_what_is_reached_counts_and_nothing_else(source, counting, digest):
    before = digest(source)
    assert before == digest(source)
    assert {name for name, change in CHANGES.items() if digest(source, *change) != before} == counting


def test_everything_in_a_module_counts_and_modules_may_be_left_out(digest):
    def changed(**options):
        before = digest("", **options)
        return {name for name, change in CHANGES.items() if digest("", *change, **options) != before}

    assert changed(modules={"matching.weights"}) == MATCHING | {"show", "plot"}
    assert changed(modules={"matching.weights"}, without={"matching.assignment"}) == {"bank", "table", "show"}
    assert changed(modules={"merging.tree"}, without={"matching"}) == {"merge"}
    assert changed(modules={"merging.tree"}, without={"match"}) == MATCHING | {"merge"}


ABSENT = {
    "import hrebasin.gone": "hrebasin.gone",
    "from hrebasin.matching.weights.deeper import f": "hrebasin.matching.weights.deeper",
    "from hrebasin import merge_forest": "merge_forest",
    "from hrebasin.matching.weights import solver": "solver",
    "from .gone import f": "gone",
    "from ..gone import f": "leads out",
}


@pytest.mark.parametrize(("line", "missing"), ABSENT.items())
def test_an_import_that_is_not_there_is_an_error(line, missing, digest):
    with pytest.raises(ModuleNotFoundError, match=missing):  # in the library too
        digest("import hrebasin.bank", "bank.py", "class Bank", f"{line}\nclass Bank")
    if "hrebasin" in line:
        with pytest.raises(ModuleNotFoundError, match=missing):
            digest(line)


def test_code_counts_but_for_layout_comments_and_docstrings(digest):
    code = "from hrebasin.bank import Bank\nsizes: list = [0.0]  # in pixels\nBank(sizes)"
    assert digest(code.replace("in pixels", "range").replace("(sizes)", "( sizes )")) == digest(code)
    assert digest(code.replace("0.0", "0.1")) != digest(code)
    twice = "def f():\n    '''Told.'''\n    'more'\n"
    assert (
        code_digest(twice) == code_digest(twice.replace("Told", "Said")) != code_digest(twice.replace("more", "less"))
    )
    assert code_digest("'''Told.'''\nf()") == code_digest("f()")
    nothing = [code_digest(line) for line in ("f(None)", "f()", "f(0)", "f(False)", "f('')", "f([])", "f({})")]
    assert len(set(nothing)) == len(nothing)


def test_a_notebook_is_its_code(tmp_path):
    def written(*cells, text="# Question", outputs=()):
        made = [nbformat.v4.new_markdown_cell(text), *map(nbformat.v4.new_code_cell, cells)]
        made[-1].outputs = list(outputs)
        nbformat.write(nbformat.v4.new_notebook(cells=made), tmp_path / "notebook.ipynb")
        return notebook_digest(tmp_path / "notebook.ipynb")

    cells = "from hrebasin import merge_tree", "merge_tree([0.0])"
    digest = written(*cells)
    assert digest == written(*cells, text="# Another") == written(*cells, outputs=[nbformat.v4.new_output("stream")])
    assert digest != written(cells[0], "merge_tree([0.1])")
    assert digest != written(*cells, "merge_tree([])")


def test_every_notebook_has_a_digest_of_its_own():
    paths = sorted((project_root() / "notebooks").glob("0[136]*.ipynb"))
    assert len({notebook_digest(path) for path in paths}) == len(paths) >= 3
    assert module_digest("training.train") != module_digest("merging.tree")


@pytest.mark.parametrize("line", ["def f(x): return x", "class A: pass", "x = f'{y:.1f} {z!r}'", "[*a, None, 0, '']"])
def test_fields_that_only_another_python_knows_do_not_count(line):
    tree = ast.parse(line)
    told = _dump(tree)
    for node in ast.walk(tree):  # as Python 3.12 did, which knows type parameters of every function and class
        node._fields = (*node._fields, "unheard_of")
        node.unheard_of = []
    assert _dump(tree) == told


# ---- digests of images


def write_files(folder, contents):
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def test_the_digest_of_a_folder_is_over_names_and_contents_in_order(tmp_path):
    write_files(tmp_path, {"b/0.png": "B", "a-b.png": "AB", "a/1.png": "longer", ".lock": "", "a/.hidden": ""})
    assert files_digest(tmp_path) == hashlib.sha256(b"a/1.png 6\nlongera-b.png 2\nABb/0.png 1\nB").hexdigest()


def test_links_count_as_what_they_lead_to_and_circles_are_left_out(tmp_path):
    write_files(tmp_path / "set", {"train/cat/0.png": "A", "train/dog/0.png": "B", "test/cat/0.png": "C"})
    write_files(tmp_path / "away", {"dog/0.png": "B", "test/cat/0.png": "C"})
    write_files(tmp_path / "links", {"train/cat/0.png": "A"})
    (tmp_path / "links" / "train" / "dog").symlink_to(tmp_path / "away" / "dog")
    (tmp_path / "links" / "test").symlink_to(tmp_path / "away" / "test")
    digest = files_digest(tmp_path / "links")
    assert digest == files_digest(tmp_path / "set")
    for name, target in (
        ("train/cat/up", ".."),
        ("train/all", tmp_path / "links"),
        ("itself", "itself"),
        ("gone", "no"),
    ):
        (tmp_path / "links" / name).symlink_to(target)
    assert files_digest(tmp_path / "links") == digest
    write_files(tmp_path / "away", {"test/cat/0.png": "other"})
    changed = files_digest(tmp_path / "links")
    (tmp_path / "links" / "train" / "emu").symlink_to("cat")  # images that `load_images` would see twice
    assert len({digest, changed, files_digest(tmp_path / "links")}) == 3
