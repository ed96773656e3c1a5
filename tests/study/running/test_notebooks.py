import ast
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import nbformat
import papermill
import pytest
import torchvision
import yaml
from matplotlib.figure import Figure
from papermill.parameterize import parameterize_notebook
from PIL import Image

from hrebasin.files import project_root
from hrebasin.merging import methods
from hrebasin.merging.looks import LOOKS
from hrebasin.merging.methods import MERGES
from hrebasin.study import records
from hrebasin.study.benchmarks import growth, speed
from hrebasin.study.command import main
from hrebasin.study.figures.registry import BENCHMARKS
from hrebasin.study.notebook_code import notebook_digest
from hrebasin.study.records.data_sets import read
from hrebasin.study.records.origins import describe
from hrebasin.study.records.provenance import PROVENANCE
from hrebasin.study.running import notebook_runner
from hrebasin.study.running.notebook_runner import declared_parameters, failure, run_notebook
from hrebasin.study.running.plan import Plan
from hrebasin.study.settings import Setting
from hrebasin.study.stages import ANSWERS, NOTEBOOKS, PAPER, QUESTIONS, STAGES
from hrebasin.study.tour.example_networks import write_example

ROOT = project_root()
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PIPELINE = [*NOTEBOOKS.values(), PAPER]
STAGE_NOTEBOOKS = [*PIPELINE, *QUESTIONS.values(), ANSWERS]
WIRING = {"run_folder", "shard", "shards", "groups", "neighbour", "questions", "recipe_shards"}
NOTEBOOK = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
MOST_CELLS, MOST_LINES, MOST_LINES_A_CELL = 14, 80, 15


def cells(path, kind="code"):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def is_parameters(cell):
    return "parameters" in cell.metadata.get("tags", [])


def test_every_stage_has_its_notebook():
    assert {path.stem for path in PATHS} >= set(STAGE_NOTEBOOKS)


@NOTEBOOK
def test_notebooks_open_with_a_question_and_stay_thin_and_empty(path):
    code = cells(path)
    assert "**Question.**" in cells(path, "markdown")[0].source
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert str(ROOT) not in path.read_text()
    code = [cell for cell in code if not is_parameters(cell)]
    lines = [[line for line in cell.source.splitlines() if line.strip()] for cell in code]
    assert len(code) <= MOST_CELLS
    assert sum(map(len, lines)) <= MOST_LINES
    assert max(map(len, lines)) <= MOST_LINES_A_CELL
    kinds = {type(node) for cell in code for node in ast.walk(ast.parse(cell.source))}
    assert not kinds & {ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef}, "what needs a function belongs to lib/"


@NOTEBOOK
def test_parameters_are_typed_explained_literals_in_one_cell_and_checked_in_the_next(path):
    [cell] = filter(is_parameters, cells(path))
    for statement in ast.parse(cell.source).body:
        assert isinstance(statement, ast.AnnAssign)
        ast.literal_eval(statement.value)
    declared = papermill.inspect_notebook(str(path))
    assert len(declared) == len(ast.parse(cell.source).body) > 0
    assert [name for name, entry in declared.items() if not entry["help"]] == []
    assert {entry["inferred_type_name"] for entry in declared.values()} <= {"str", "int", "float", "bool", "list"}
    after = cells(path)[cells(path).index(cell) + 1]
    assert "records.plain_values(globals())" in "".join(after.source.splitlines()[:2])


def test_papermill_alone_refuses_a_parameter_that_is_not_declared():
    notebook = papermill.iorw.load_notebook_node(str(ROOT / "notebooks" / "01_train.ipynb"))
    sources = [cell.source for cell in parameterize_notebook(notebook, {"epsilons": [0.1]}).cells]
    with pytest.raises(ValueError, match=r"not declare the parameters \['epsilons'\]; it declares"):
        records.plain_values({"In": sources, "epsilons": [0.1]})


def test_default_parameters_are_the_sample_setting():
    sample = yaml.safe_load((ROOT / "config" / "sample.yaml").read_text())
    declared_by_any = set()
    for name in STAGE_NOTEBOOKS:
        declared = declared_parameters(ROOT / "notebooks" / f"{name}.ipynb")
        for parameter, source in declared.items():
            if parameter not in WIRING:
                assert ast.literal_eval(source) == sample[parameter], f"{name}: {parameter}"
        declared_by_any |= set(declared)
    # they decide which groups a notebook gets
    shards_only = {"n_groups", "first_group", "groups_per_shard", "recipe_groups"}
    assert set(Setting.model_fields) - shards_only <= declared_by_any


def run_here(name, *, added="", **values):
    """What a notebook shows, its cells run in this process; a kernel would take seconds to start.

    ``added``: lines as a user writes them at the end of ``methods.py``.
    """
    shown, registries = [], (MERGES, LOOKS)
    namespace, before = {"display": shown.append}, [dict(registry) for registry in registries]
    try:
        exec(added, dict(vars(methods)))
        for cell in cells(ROOT / "notebooks" / f"{name}.ipynb"):
            *body, last = ast.parse(cell.source).body
            body, last = (body, last.value) if isinstance(last, ast.Expr) else ([*body, last], None)
            exec(compile(ast.Module(body, []), name, "exec"), namespace)
            shown += [] if last is None else [eval(compile(ast.Expression(last), name, "eval"), namespace)]  # noqa: S307
            if is_parameters(cell):
                assert set(values) <= set(namespace)
                namespace |= values
    finally:
        for registry, kept in zip(registries, before, strict=True):
            registry.clear()
            registry.update(kept)
    return shown


def figures_in(shown):
    return sum(isinstance(each, Figure) for each in shown)


@pytest.fixture(scope="session")
def executed(tmp_path_factory):
    """Every stage run once, on one tree of two leaves and a few images: the first by a kernel, the others here, with an
    own method of merging that conclusions have never heard of. Its lines are those of the worked example."""
    example = cells(ROOT / "notebooks" / "11_your_networks.ipynb")
    [lines] = [cell.source for cell in example if cell.source.startswith("register(")]
    assert len(lines.splitlines()) <= 10
    folder, plan = tmp_path_factory.mktemp("own") / "run", Plan.from_config({"setting": "tiny"})
    smaller = {"leaves": 2, "merge_many_sizes": [2], "epochs": 4, "ablation_pairs": 1, "train_images": 300, "shard": 0}
    smaller |= {"groups": [0], "shards": [0], "attacked_images": 10, "bounded_images": 2, "run_folder": str(folder)}
    for name in PIPELINE:
        values = json.loads(plan.parameters(name, None if name == PAPER else 0))
        values |= {key: value for key, value in smaller.items() if key in values}
        if name == NOTEBOOKS["train"]:
            run_notebook(ROOT / "notebooks" / f"{name}.ipynb", folder / f"{name}.ipynb", values, threads=1)
        else:
            assert figures_in(run_here(name, added="" if name == PAPER else lines, **values)), name
    return folder


def test_every_notebook_runs_and_writes_its_data_set(executed):
    for stage in STAGES:
        assert read(executed / stage / "shard-000.nc", stage=stage).attrs["setting"] == executed.name
    ledger = read(executed / "results" / "ledger.nc", stage="ledger")
    assert set(ledger.verdict.values) <= {"no verdict", "not measured", "reported"}, "one group decides nothing"
    assert (executed / "index.html").stat().st_size > 100_000


def test_every_result_tells_where_it_comes_from(executed):
    paths = [*executed.glob("*/shard-000.nc"), *executed.glob("results/*.nc")]
    assert {path.stem for path in paths} >= {*STAGES, "ledger"}
    for path in paths:
        stage = path.stem if path.parent.name == "results" else path.parent.name
        attrs = read(path, stage=stage).attrs
        assert all(attrs.get(name, "") != "" for name in PROVENANCE), path
    code = notebook_digest(ROOT / "notebooks" / "01_train.ipynb")
    assert read(executed / "train" / "shard-000.nc", stage="train").attrs["code_digest"] == code
    with Image.open(executed / "figures" / "fig1_accuracy.png") as png:
        assert png.info["Description"] == describe(read(executed / "results" / "merge.nc", stage="merge"))


def test_a_stage_refuses_networks_that_were_trained_on_other_images(executed, tmp_path):
    for number in range(20):
        path = tmp_path / "mine" / ("train", "test")[number % 2] / f"class-{number // 2}" / f"{number}.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (32, 32), (number, 0, 0)).save(path)
    record = executed / "attack" / "shard-000.nc"
    before = record.read_bytes()
    with pytest.raises(ValueError, match=r"unmerged-000\.safetensors.* networks of other images: test digest"):
        run_here("03_attack", dataset=str(tmp_path / "mine"), run_folder=str(executed), attacked_images=10)
    assert record.read_bytes() == before


def test_an_executed_copy_is_whole_and_leaves_nothing_behind(executed):
    assert [path.name for path in executed.iterdir() if path.name.startswith(".")] == []
    copy = executed / "01_train.ipynb"
    assert not [o for cell in cells(copy) for o in cell.outputs if o.output_type == "error"]
    assert pictures(copy) >= 1


def pictures(path):
    return sum("image/png" in output.get("data", {}) for cell in cells(path) for output in cell.outputs)


def test_the_tour_runs():
    assert figures_in(run_here("00_tour", train_images=600, evaluated_images=200, widths=[48, 32])) == 5


def test_the_explorer_runs_and_leaves_figure_and_tables(tmp_path):
    run_notebook(ROOT / "notebooks" / "10_explore.ipynb", tmp_path / "out.ipynb", {"epsilon": 0.005}, threads=1)
    assert pictures(tmp_path / "out.ipynb") == 1
    text = (tmp_path / "out.ipynb").read_text()
    assert "robust at 0.005" in text
    assert "widget-view" not in text, "nobody is there to move them"


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # a temporary folder goes with the namespace
def test_own_networks_run(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    networks, images, mean, std = write_example(
        tmp_path, data=ROOT / "data", n=3, widths=(24, 16), epochs=8, n_images=400
    )
    values = {"networks": f"~/{networks.relative_to(tmp_path)}", "images": str(images), "mean": mean, "std": std}
    values |= {"merged_folder": "~/out"}
    values |= {"attacked_images": 8, "bounded_images": 2, "epsilons": [0.0, 0.01]}
    with pytest.warns(UserWarning, match="read as ReLU after all but the last layer, in the order 1, 3, 5"):
        shown = run_here("11_your_networks", **values)
    assert figures_in(shown) == 4
    tables = "".join(str(each.to_html()) for each in shown if hasattr(each, "to_html"))
    assert "median, matched to the first of 3" in tables
    assert "accuracy on 100 images (%)" in tables
    assert "tree of network-0 and network-1" in tables
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"tree-of-network-0-and-network-1.safetensors", "MergeMany-of-network-0-to-network-2.safetensors"} < written


def test_federated_averaging_runs():
    values = {"train_images": 300, "unlabelled_images": 60, "evaluated_images": 100, "clients": [2], "alphas": [1.0]}
    shown = run_here("30_federated", **values, repeats=2, widths=[16], epochs=3)
    assert figures_in(shown) == 1
    assert "ensemble" in shown[2].columns


def test_an_added_method_takes_part_in_every_stage(executed):
    for stage in ("merge", "attack", "regularity"):
        for folder in (executed / stage, executed / "results"):
            [path] = [*folder.glob("shard-*.nc"), *folder.glob(f"{stage}.nc")]
            assert (read(path, stage=stage).method == "median").sum() == 1, path
    html = (executed / "index.html").read_text(encoding="utf-8")
    title, colour = json.loads(read(path, stage=stage).method.attrs["looks"])["median"]
    assert (title, colour) != ("median", "")
    assert title in html
    assert colour.lower().replace("#", "%23") in html.lower()  # as an address of data has it


def test_a_failing_notebook_says_where_and_why_and_keeps_its_copy(tmp_path, capsys):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1"), nbformat.v4.new_code_cell("1 / 0")])
    nbformat.write(notebook, tmp_path / "bad.ipynb")
    assert main(["notebook", str(tmp_path / "bad.ipynb"), str(tmp_path / "out.ipynb"), "--label", "shard 7"]) == 1
    message = capsys.readouterr().err
    assert "[shard 7] bad.ipynb failed in cell 2: ZeroDivisionError: division by zero" in message
    assert not (tmp_path / "out.ipynb").exists()
    assert (tmp_path / "out.failed.ipynb").is_file()


@pytest.mark.parametrize(("gpus", "device"), [("1", "cuda"), ("0", "cpu")])
def test_a_job_without_a_gpu_runs_on_the_cpu(gpus, device, monkeypatch):
    ran = []
    monkeypatch.setattr(notebook_runner, "run_notebook", lambda *values, **_: ran.append(values[2]))
    monkeypatch.setattr(notebook_runner, "declared_parameters", lambda _: dict.fromkeys(("device", "shard")))
    assert main(["notebook", "a.ipynb", "b.ipynb", "-p", "shard", "1", "--device", "cuda", "--gpus", gpus]) == 0
    assert ran == [{"device": device, "shard": 1}]


def test_what_is_changed_in_a_run_s_place_or_device_makes_nothing_anew():
    plans = [Plan.from_config({"setting": "tiny"} | other) for other in ({}, {"device": "cuda"}, {"run": "other"})]
    assert len({plan.parameters("01_train", 0) for plan in plans}) == 1


def test_the_runner_takes_parameters_as_papermill_does_and_logs_whole_lines(tmp_path, capsys):
    source = "import sys, time\nfrom hrebasin import progress\nprogress.SECONDS = 0\n"
    source += "for _ in progress.track(range(3), label='work'): time.sleep(0.01)\nprint(a, b, c, d)"
    declared = "a: int = 1  # first\nb: float = 1.0  # second\nc: list = []  # third\nd: str = ''  # fourth"
    parameters = nbformat.v4.new_code_cell(declared, metadata={"tags": ["parameters"]})
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(source)], metadata=kernel)
    nbformat.write(notebook, tmp_path / "in.ipynb")
    (tmp_path / "more.yaml").write_text("a: 2\nc: [2]\n")
    command = ["notebook", str(tmp_path / "in.ipynb"), str(tmp_path / "out.ipynb"), '{"a": 0, "d": "json"}']
    command += ["-p", "b", "1e-5", "-y", "a: 3", "-f", str(tmp_path / "more.yaml"), "--label", "a run"]
    assert main(command) == 0
    [printed] = [o.text for cell in cells(tmp_path / "out.ipynb") for o in cell.outputs if o.get("name") == "stdout"]
    assert printed == "3 1e-05 [2] json\n"
    lines = capsys.readouterr().err.split("\n")
    assert lines.pop() == ""
    assert len(lines) >= 3
    assert all(line.startswith("[a run] work: ") and "\r" not in line for line in lines)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-p", "epoch", "3"], r"does not declare the parameters ['epoch']"),
        (["-y", "[1, 2]"], "-y '[1, 2]' must hold names and values of parameters, got [1, 2]"),
        (["-y", "{a: "], "parameters are not valid YAML"),
        (["-f", "absent.yaml"], "absent.yaml"),
    ],
)
def test_parameters_that_cannot_be_are_an_error_in_words(tmp_path, capsys, options, message):
    assert main(["notebook", str(ROOT / "notebooks" / "01_train.ipynb"), str(tmp_path / "out.ipynb"), *options]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_kernel_that_dies_is_told_apart_and_leaves_the_copy(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import os; os.kill(os.getpid(), 9)")])
    nbformat.write(notebook, tmp_path / "greedy.ipynb")
    with pytest.raises(RuntimeError, match=r"greedy.ipynb: Kernel died; .* memory did not suffice"):
        run_notebook(tmp_path / "greedy.ipynb", tmp_path / "out.ipynb", {})
    assert failure(tmp_path / "out.failed.ipynb").startswith("out failed: its kernel died (see ")
    assert not (tmp_path / "out.ipynb").exists()


def test_kernels_are_reached_even_where_temporary_files_have_long_names(tmp_path, monkeypatch):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    nbformat.write(notebook, tmp_path / "one.ipynb")
    (long := tmp_path / ("long name " * 9)).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    run_notebook(tmp_path / "one.ipynb", tmp_path / "out.ipynb", {})
    assert nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[0].outputs


@pytest.mark.filterwarnings("ignore")  # lines through one point
def test_the_benchmark_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "product_rate", partial(speed.product_rate, repeats=2))
    monkeypatch.setattr(growth, "ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(1))  # starts in no time
    monkeypatch.setattr(torchvision.models, "resnet50", torchvision.models.resnet18)
    values = {"train_images": 600, "widths": [32, 32, 16], "batch_size": 16, "epochs": 3, "repeats": 1, "workers": 0}
    values |= {
        "rows_wanted": ["training-float32", "matching", "cycle-consistent-2", "cycle-consistent-4", "vgg16"],
        "counts": [16],
    }
    values |= {"full_counts": [], "epochs_timed": 2, "stages_wanted": ["merge"], "small": True}
    values |= dict.fromkeys(("run_folder", "output_folder", "figures_folder"), str(tmp_path))
    run_here("90_benchmarks", **values)
    record = read(tmp_path / "benchmarks.nc", stage="benchmarks")
    assert record.row.values.tolist() == values["rows_wanted"]
    for name in ("derivation_seconds", "proving_seconds", "planted_loss"):
        assert record[name].notnull(), name
    assert record.share.sel(row="training-float32") > 0
    assert (record.scaling_seconds > 0).all()
    assert (record.scaling_memory >= 0).all()
    assert {path.name for path in tmp_path.glob("bench*.p??")} == {
        f"{name}.{ending}" for name in BENCHMARKS for ending in ("pdf", "png")
    }
