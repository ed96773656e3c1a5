import ast
import hashlib
import shutil
from pathlib import Path

import nbformat
import pytest

from hrebasin import digests
from hrebasin.digests import code_digest, files_digest, module_digest
from hrebasin.files import project_root

ROOT = project_root()


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A copy of the library that `code_digest` reads instead."""
    folder = tmp_path / "hrebasin"
    shutil.copytree(Path(digests.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(digests, "__file__", str(folder / "digests.py"))
    return folder


@pytest.fixture
def notebook(tmp_path):
    """``notebook(*cells)``: the path of a notebook with these code cells."""

    def write(*cells, text="# Question"):
        path = tmp_path / "01_question.ipynb"
        made = [nbformat.v4.new_markdown_cell(text), *(nbformat.v4.new_code_cell(cell) for cell in cells)]
        nbformat.write(nbformat.v4.new_notebook(cells=made), path)
        return path

    return write


CODE = ("from hrebasin.robustness.attacks import attack", "epsilons: list = [0.0]  # sizes", "attack(epsilons)")


def test_every_notebook_has_a_digest_of_its_own():
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    digests = [code_digest(path) for path in paths]
    assert all(len(digest) == 64 and int(digest, 16) >= 0 for digest in digests)
    assert len(set(digests)) == len(paths) > 0
    assert code_digest(paths[0]) == digests[0]


def test_text_comments_and_outputs_of_a_notebook_do_not_count(notebook, library):
    digest = code_digest(notebook(*CODE))
    assert code_digest(notebook(*CODE, text="# Another question")) == digest
    assert code_digest(notebook(CODE[0], "epsilons: list = [0.0]  # pixel range", "attack( epsilons )")) == digest
    path = notebook(*CODE)
    executed = nbformat.read(path, as_version=4)
    executed.cells[-1].outputs = [nbformat.v4.new_output("stream", text="done")]
    executed.cells[-1].execution_count = 3
    nbformat.write(executed, path)
    assert code_digest(path) == digest


def test_code_of_a_notebook_counts(notebook, library):
    digest = code_digest(notebook(*CODE))
    assert code_digest(notebook(CODE[0], "epsilons: list = [0.1]", CODE[2])) != digest
    assert code_digest(notebook(*CODE, "attack([])")) != digest


@pytest.mark.parametrize("line", ["def f(x): return x", "class A: pass", "x = f'{y:.1f} {z!r}'", "[*a, None, 0, '']"])
def test_fields_that_only_another_python_knows_do_not_count(line):
    tree = ast.parse(line)
    told = digests._dump(tree)
    for node in ast.walk(tree):  # as Python 3.12 did, which knows type parameters of every function and class
        node._fields = (*node._fields, "unheard_of")
        node.unheard_of = []
    assert digests._dump(tree) == told


def test_values_that_are_nothing_count_where_they_stand():
    dumps = [
        digests._dump(ast.parse(line)) for line in ("f(None)", "f()", "f(0)", "f(False)", "f('')", "f([])", "f({})")
    ]
    assert len(set(dumps)) == len(dumps)


# robustness imports bank, which imports networks; matching is imported by neither
@pytest.mark.parametrize(
    ("module", "old", "new", "counts"),
    [
        ("robustness", '"""Robustness of whole banks', '"""Robustness, said differently, of whole banks', False),
        ("robustness", '        """Slice m of the batch through network m."""\n', "", False),
        ("robustness", "import numpy as np\n", "# arrays\nimport numpy as np  # as ever\n\n", False),
        ("robustness", "ROUNDS = (1, 3, 50)", "ROUNDS = (1, 3, 51)", True),
        ("bank", "torch.relu(x)", "torch.tanh(x)", True),
        ("networks", "nn.ReLU()", "nn.Tanh()", True),
        ("networks", "1 / torch.tensor", "2 / torch.tensor", True),
        ("networks", '"""Number of trained parameters of one network."""', '"""Parameters of a network."""', False),
        ("seeding", "sha256", "sha512", True),
        ("matching", "TOLERANCE = 1e-7", "TOLERANCE = 1e-3", False),
        ("claims", "import", "import sys\nimport", False),
    ],
)
def test_what_counts_in_the_library(module, old, new, counts, notebook, library):
    path, file = notebook(*CODE), library / f"{module}.py"
    before = code_digest(path)
    source = file.read_text()
    assert old in source
    file.write_text(source.replace(old, new, 1))
    assert (code_digest(path) != before) == counts
    file.write_text(source)
    assert code_digest(path) == before


@pytest.mark.parametrize(
    "line",
    [
        "from hrebasin.matching.weights import match_weights",
        "from hrebasin import matching",
        "from hrebasin import seeding, matching as m",
        "import hrebasin.matching.weights",
        "if True:\n    import hrebasin.matching.weights as m",
    ],
)
def test_every_way_to_import_counts(line, notebook, library):
    path, file = notebook(line), library / "matching.py"
    before = code_digest(path)
    file.write_text(file.read_text().replace("TOLERANCE = 1e-7", "TOLERANCE = 1e-3"))
    assert code_digest(path) != before


def test_modules_may_be_left_out(notebook, library):
    path, file = notebook(*CODE), library / "robustness.py"
    before, without = code_digest(path), code_digest(path, without=("robustness",))
    assert before != without
    file.write_text(file.read_text().replace("ROUNDS = (1, 3, 50)", "ROUNDS = (1, 3, 51)"))
    assert code_digest(path) != before
    assert code_digest(path, without=("robustness",)) == without


def test_a_module_has_the_digest_of_what_it_imports(library):
    training = module_digest.__wrapped__("training")
    for module, old, new, counts in (
        ("batches", "import", "import sys\nimport", True),
        ("progress", "SECONDS = 5", "SECONDS = 6", False),
        ("merging", "import", "import sys\nimport", False),
    ):
        file = library / f"{module}.py"
        source = file.read_text()
        assert old in source
        file.write_text(source.replace(old, new, 1))
        assert (module_digest.__wrapped__("training") != training) == counts, module
        file.write_text(source)


# ---- digests of images


def write_files(folder, contents):
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def test_the_digest_of_a_folder_is_over_names_and_contents_in_order(tmp_path):
    write_files(tmp_path, {"b/0.png": "B", "a-b.png": "AB", "a/1.png": "longer", ".lock": "", "a/.hidden": ""})
    told = b"a/1.png 6\nlongera-b.png 2\nABb/0.png 1\nB"
    assert files_digest(tmp_path) == hashlib.sha256(told).hexdigest()


def test_links_count_as_what_they_lead_to(tmp_path):
    write_files(tmp_path / "set", {"train/cat/0.png": "A", "train/dog/0.png": "B", "test/cat/0.png": "C"})
    write_files(tmp_path / "away", {"dog/0.png": "B", "test/cat/0.png": "C"})
    write_files(tmp_path / "links", {"train/cat/0.png": "A"})
    (tmp_path / "links" / "train" / "dog").symlink_to(tmp_path / "away" / "dog")
    (tmp_path / "links" / "test").symlink_to(tmp_path / "away" / "test")
    digest = files_digest(tmp_path / "links")
    assert digest == files_digest(tmp_path / "set")
    for changed in ("dog/0.png", "test/cat/0.png"):
        before = (tmp_path / "away" / changed).read_text()
        write_files(tmp_path / "away", {changed: "other"})
        assert files_digest(tmp_path / "links") != digest
        write_files(tmp_path / "away", {changed: before})
    (tmp_path / "links" / "train" / "emu").symlink_to("cat")  # images that `load_images` would see twice
    assert files_digest(tmp_path / "links") != digest


def test_links_in_a_circle_are_left_out(tmp_path):
    write_files(tmp_path, {"train/cat/0.png": "A"})
    digest = files_digest(tmp_path)
    for name, target in (("train/cat/up", ".."), ("train/all", tmp_path), ("itself", "itself"), ("gone", "nowhere")):
        (tmp_path / name).symlink_to(target)
    assert files_digest(tmp_path) == digest
