import ast
import json
import re
import tempfile

import nbformat
import pytest
import yaml
from PIL import Image

from hrebasin.configuration import Profile
from hrebasin.figures import BENCHMARKS
from hrebasin.files import project_root
from hrebasin.layout import NOTEBOOKS, PAPER, STAGES
from hrebasin.notebook import declared_parameters, main, run_notebook
from hrebasin.records import PROVENANCE, describe, read
from hrebasin.workflow import Plan

ROOT = project_root()
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STAGE_NOTEBOOKS = [*NOTEBOOKS.values(), PAPER]
WIRING = {"run_folder", "shard", "shards", "groups"}
MOST_CELLS, MOST_LINES, MOST_LINES_A_CELL = 14, 80, 15


def cells(path, kind="code"):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def is_parameters(cell):
    return "parameters" in cell.metadata.get("tags", [])


def test_every_stage_has_its_notebook():
    assert {path.stem for path in PATHS} >= set(STAGE_NOTEBOOKS)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_notebooks_stay_thin(path):
    code = [cell for cell in cells(path) if not is_parameters(cell)]
    lines = [[line for line in cell.source.splitlines() if line.strip()] for cell in code]
    assert len(code) <= MOST_CELLS
    assert sum(map(len, lines)) <= MOST_LINES
    assert max(map(len, lines)) <= MOST_LINES_A_CELL
    for cell in code:
        kinds = {type(node) for node in ast.walk(ast.parse(cell.source))}
        assert not kinds & {ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef}, (
            "what needs a function belongs to lib/"
        )


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_notebooks_are_committed_without_outputs(path):
    assert all(not cell.outputs and cell.execution_count is None for cell in cells(path))
    assert str(ROOT) not in path.read_text()


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_notebooks_open_with_a_question_and_have_one_parameters_cell(path):
    assert "**Question.**" in cells(path, "markdown")[0].source
    assert sum(map(is_parameters, cells(path))) == 1


@pytest.mark.parametrize("name", STAGE_NOTEBOOKS)
def test_parameters_are_typed_literals_with_a_comment(name):
    [cell] = filter(is_parameters, cells(ROOT / "notebooks" / f"{name}.ipynb"))
    for statement in ast.parse(cell.source).body:
        assert isinstance(statement, ast.AnnAssign)
        ast.literal_eval(statement.value)
    # the formatter may move a comment behind the last line of a long list
    assert len(re.findall(r"  # \S", cell.source)) == len(ast.parse(cell.source).body)


def test_default_parameters_are_the_sample_profile():
    sample = yaml.safe_load((ROOT / "config" / "sample.yaml").read_text())
    declared_by_any = set()
    for name in STAGE_NOTEBOOKS:
        declared = declared_parameters(ROOT / "notebooks" / f"{name}.ipynb")
        for parameter, source in declared.items():
            if parameter not in WIRING:
                assert ast.literal_eval(source) == sample[parameter], f"{name}: {parameter}"
        declared_by_any |= set(declared)
    shards_only = {"n_groups", "groups_per_shard"}  # they decide which groups a notebook gets
    assert set(Profile.__dataclass_fields__) - shards_only <= declared_by_any


@pytest.fixture(scope="session")
def executed(tmp_path_factory):
    """Every stage run once, on one tree of two leaves and a few images."""
    folder = tmp_path_factory.mktemp("run")
    plan = Plan.from_config({"profile": "tiny"})
    smaller = {"leaves": 2, "merge_many_sizes": [2], "epochs": 4, "ablation_pairs": 1, "train_images": 300, "shard": 0}
    smaller |= {"groups": [0], "shards": [0], "attacked_images": 10, "bounded_images": 2, "run_folder": str(folder)}
    for name in STAGE_NOTEBOOKS:
        values = json.loads(plan.parameters(name, None if name == PAPER else 0))
        values |= {key: value for key, value in smaller.items() if key in values}
        run_notebook(ROOT / "notebooks" / f"{name}.ipynb", folder / "notebooks" / f"{name}.ipynb", values, threads=1)
    return folder


def test_every_notebook_runs_and_writes_its_data_set(executed):
    for stage in STAGES:
        assert read(executed / stage / "shard-000.nc", stage=stage).attrs["profile"] == executed.name
    ledger = read(executed / "results" / "ledger.nc", stage="ledger")
    assert set(ledger.verdict.values) <= {"no verdict", "not tested"}, "one group decides nothing"
    assert (executed / "index.html").stat().st_size > 100_000


def test_every_result_tells_where_it_comes_from(executed):
    paths = [*executed.glob("*/shard-000.nc"), *executed.glob("results/*.nc")]
    assert {path.stem for path in paths} >= {*STAGES, "ledger"}
    for path in paths:
        stage = path.stem if path.parent.name == "results" else path.parent.name
        attrs = read(path, stage=stage).attrs
        assert all(attrs.get(name, "") != "" for name in PROVENANCE), path
    with Image.open(executed / "figures" / "fig1_accuracy.png") as png:
        assert png.info["Description"] == describe(read(executed / "results" / "merge.nc", stage="merge"))


def test_a_stage_refuses_networks_that_were_trained_on_other_images(executed, tmp_path):
    for number in range(20):
        path = tmp_path / "mine" / ("train", "test")[number % 2] / f"class-{number // 2}" / f"{number}.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (32, 32), (number, 0, 0)).save(path)
    record = executed / "attack" / "shard-000.nc"
    before = record.read_bytes()
    values = {"dataset": str(tmp_path / "mine"), "run_folder": str(executed), "attacked_images": 10}
    with pytest.raises(RuntimeError, match=r"(?s)unmerged-000\.safetensors.* networks of other images: test digest"):
        run_notebook(ROOT / "notebooks" / "03_attack.ipynb", tmp_path / "out.ipynb", values, threads=1)
    assert record.read_bytes() == before
    assert not (tmp_path / "out.ipynb").exists()


def test_executed_copies_are_whole_and_leave_nothing_behind(executed):
    copies = sorted((executed / "notebooks").iterdir())
    assert [path.stem for path in copies] == sorted(STAGE_NOTEBOOKS)
    for path in copies:
        outputs = [output for cell in cells(path) for output in cell.outputs]
        assert not [output for output in outputs if output.output_type == "error"]


def test_a_failing_notebook_says_where_and_why_and_keeps_its_copy(tmp_path, capsys):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1"), nbformat.v4.new_code_cell("1 / 0")])
    nbformat.write(notebook, tmp_path / "bad.ipynb")
    assert main([str(tmp_path / "bad.ipynb"), str(tmp_path / "out.ipynb"), "--label", "shard 7"]) == 1
    message = capsys.readouterr().err
    assert "[shard 7] bad.ipynb failed in cell 2: ZeroDivisionError: division by zero" in message
    assert not (tmp_path / "out.ipynb").exists()
    assert (tmp_path / "out.failed.ipynb").is_file()


def test_kernels_are_reached_even_where_temporary_files_have_long_names(tmp_path, monkeypatch):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    nbformat.write(notebook, tmp_path / "one.ipynb")
    (long := tmp_path / ("long name " * 9)).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    run_notebook(tmp_path / "one.ipynb", tmp_path / "out.ipynb", {})
    assert nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[0].outputs


def test_the_benchmark_notebook_runs(tmp_path):
    values = {"train_images": 1000, "widths": [32, 32, 16], "batch_size": 32, "epochs": 2, "repeats": 1, "workers": 0}
    values |= {"rows_wanted": ["training-float32", "matching", "tree", "fgsm", "lipschitz"], "counts": [16]}
    values |= {"full_counts": [], "epochs_timed": 1}
    values |= dict.fromkeys(("run_folder", "output_folder", "figures_folder"), str(tmp_path))
    run_notebook(ROOT / "notebooks" / "90_benchmarks.ipynb", tmp_path / "out.ipynb", values, threads=1)
    record = read(tmp_path / "benchmarks.nc", stage="benchmarks")
    assert record.row.values.tolist() == values["rows_wanted"]
    assert record.share.sel(row="training-float32") > 0
    assert {path.name for path in tmp_path.glob("bench*.p??")} == {
        f"{name}.{ending}" for name in BENCHMARKS for ending in ("pdf", "png")
    }
