import ast
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import nbformat
import numpy as np
import papermill
import pytest
import torchvision
import yaml
from finished_runs import save_nothing
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from pages import check_links
from PIL import Image

from hrebasin.files import project_root
from hrebasin.merging import methods
from hrebasin.merging.looks import LOOKS
from hrebasin.merging.methods import MERGES
from hrebasin.study.benchmarks import growth, speed
from hrebasin.study.command import main
from hrebasin.study.figures import registry as figures
from hrebasin.study.figures import style
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
MOST_CELLS, MOST_LINES, MOST_LINES_A_CELL = 14, 80, 15


def cells(path, kind="code"):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def is_parameters(cell):
    return "parameters" in cell.metadata.get("tags", [])


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_notebooks_open_with_a_question_stay_thin_and_empty_and_declare_typed_explained_parameters(path):
    code = cells(path)
    assert "**Question.**" in cells(path, "markdown")[0].source
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert str(ROOT) not in path.read_text()
    [parameters] = filter(is_parameters, code)
    after = code[code.index(parameters) + 1]
    assert "records.plain_values(globals())" in "".join(after.source.splitlines()[:2])
    code.remove(parameters)
    lines = [[line for line in cell.source.splitlines() if line.strip()] for cell in code]
    assert len(code) <= MOST_CELLS
    assert sum(map(len, lines)) <= MOST_LINES
    assert max(map(len, lines)) <= MOST_LINES_A_CELL
    kinds = {type(node) for cell in code for node in ast.walk(ast.parse(cell.source))}
    assert not kinds & {ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef}, "what needs a function belongs to lib/"
    statements = ast.parse(parameters.source).body
    assert all(isinstance(statement, ast.AnnAssign) for statement in statements)
    assert all(ast.literal_eval(statement.value) is not None for statement in statements)
    declared = papermill.inspect_notebook(str(path)).values()
    assert len(declared) == len(statements) > 0
    assert all(entry["help"] for entry in declared)
    assert {entry["inferred_type_name"] for entry in declared} <= {"str", "int", "float", "bool", "list"}


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


def save_one(figure, stem, **about):
    """Figure 1 as it is, and empty files of others: to write all takes long."""
    return (style.save if stem.name == "fig1_accuracy" else save_nothing)(figure, stem, **about)


@pytest.fixture(scope="session")
def executed(tmp_path_factory):
    """Every stage run once, on one tree of two leaves and a few images: the first by a kernel, the others here, with an
    own method of merging that conclusions have never heard of. Its lines are those of the worked example."""
    example = cells(ROOT / "notebooks" / "11_your_networks.ipynb")
    [lines] = [cell.source for cell in example if cell.source.startswith("register(")]
    assert len(lines.splitlines()) <= 10
    folder, plan = tmp_path_factory.mktemp("own") / "run", Plan.from_config({"setting": "tiny"})
    smaller = {"leaves": 2, "merge_many_sizes": [2], "epochs": 4, "ablation_pairs": 1, "train_images": 300, "shard": 0}
    smaller |= {"groups": [0], "shards": [0], "attacked_images": 10, "bounded_images": 2}
    for name in PIPELINE:
        values = json.loads(plan.parameters(name, None if name == PAPER else 0))
        values |= {key: value for key, value in smaller.items() if key in values} | {"run_folder": str(folder)}
        if name == NOTEBOOKS["train"]:
            copy = folder / "notebooks" / f"{name}-000.ipynb"
            run_notebook(ROOT / "notebooks" / f"{name}.ipynb", copy, values, threads=1)
        else:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(figures, "save", save_one)
                assert figures_in(run_here(name, added="" if name == PAPER else lines, **values)), name
    return folder


def test_every_notebook_runs_and_its_data_set_tells_where_it_comes_from(executed):
    paths = [*executed.glob("*/shard-000.nc"), *executed.glob("results/*.nc")]
    stages = {path: path.stem if path.parent.name == "results" else path.parent.name for path in paths}
    assert sorted(stages.values()) == sorted([*STAGES, *STAGES, "ledger"])
    for path, stage in stages.items():
        record = read(path, stage=stage)
        assert record.attrs["setting"] == executed.name
        assert all(record.attrs.get(name, "") != "" for name in PROVENANCE), path
        if stage in ("merge", "attack", "regularity"):  # the added method takes part in every stage
            assert (record.method == "median").sum() == 1, path
    code = notebook_digest(ROOT / "notebooks" / "01_train.ipynb")
    assert read(executed / "train" / "shard-000.nc", stage="train").attrs["code_digest"] == code
    ledger = read(executed / "results" / "ledger.nc", stage="ledger")
    assert set(ledger.verdict.values) <= {"no verdict", "not measured", "reported"}, "one group decides nothing"
    with Image.open(executed / "figures" / "fig1_accuracy.png") as png:
        assert png.info["Description"] == describe(read(executed / "results" / "merge.nc", stage="merge"))
        drawn = np.asarray(png.convert("RGB"), float) / 255
    check_links(executed / "index.html")
    regularity = read(executed / "results" / "regularity.nc", stage="regularity")
    title, colour = json.loads(regularity.method.attrs["looks"])["median"]
    assert title in (executed / "index.html").read_text(encoding="utf-8")
    assert (abs(drawn - to_rgb(colour)).max(-1) < 0.05).any(), "in its own colour, which a palette may shift"
    assert [path.name for path in executed.iterdir() if path.name.startswith(".")] == []
    copy = executed / "notebooks" / "01_train-000.ipynb"
    assert not [output for cell in cells(copy) for output in cell.outputs if output.output_type == "error"]
    assert pictures(copy) >= 1


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
    how = {"n": 3, "widths": (24, 16), "epochs": 8, "n_images": 400}
    networks, images, mean, std = write_example(tmp_path, data=ROOT / "data", **how)
    values = {"networks": f"~/{networks.relative_to(tmp_path)}", "images": str(images), "mean": mean, "std": std}
    values |= {"merged_folder": "~/out", "attacked_images": 8, "bounded_images": 2, "epsilons": [0.0, 0.01]}
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


def write_notebook(path, *sources, parameters=""):
    cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})] if parameters else []
    cells += map(nbformat.v4.new_code_cell, sources)
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)


def test_a_failing_notebook_and_a_kernel_that_dies_say_where_and_why_and_keep_the_copy(tmp_path, capsys):
    write_notebook(tmp_path / "bad.ipynb", "x = 1", "1 / 0")
    assert main(["notebook", str(tmp_path / "bad.ipynb"), str(tmp_path / "out.ipynb"), "--label", "shard 7"]) == 1
    message = capsys.readouterr().err
    assert "[shard 7] bad.ipynb failed in cell 2: ZeroDivisionError: division by zero" in message
    assert {path.name for path in tmp_path.iterdir()} == {"bad.ipynb", "out.failed.ipynb"}
    write_notebook(tmp_path / "greedy.ipynb", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(RuntimeError, match=r"greedy.ipynb: Kernel died; .* memory did not suffice"):
        run_notebook(tmp_path / "greedy.ipynb", tmp_path / "end.ipynb", {})
    assert failure(tmp_path / "end.failed.ipynb").startswith("end failed: its kernel died (see ")
    assert not (tmp_path / "end.ipynb").exists()


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


def test_the_runner_takes_parameters_as_papermill_does_and_logs_whole_lines(tmp_path, capsys, monkeypatch):
    (long := tmp_path / ("long name " * 9)).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))  # too long for sockets
    source = "import sys, time\nfrom hrebasin import progress\nprogress.SECONDS = 0\n"
    source += "for _ in progress.track(range(3), label='work'): time.sleep(0.01)\nprint(a, b, c, d)"
    declared = "a: int = 1  # first\nb: float = 1.0  # second\nc: list = []  # third\nd: str = ''  # fourth"
    write_notebook(tmp_path / "in.ipynb", source, parameters=declared)
    (tmp_path / "more.yaml").write_text("a: 2\nc: [2]\n")
    command = ["notebook", str(tmp_path / "in.ipynb"), str(tmp_path / "out.ipynb"), '{"a": 0, "d": "json"}']
    command += ["-p", "b", "1e-5", "-y", "a: 3", "-f", str(tmp_path / "more.yaml"), "--label", "a run"]
    assert main(command) == 0
    [printed] = [o.text for cell in cells(tmp_path / "out.ipynb") for o in cell.outputs if o.get("name") == "stdout"]
    assert printed == "3 1e-05 [2] json\n"
    *lines, last = capsys.readouterr().err.split("\n")
    assert last == ""
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


@pytest.mark.filterwarnings("ignore")  # lines through one point
def test_the_benchmark_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "product_rate", partial(speed.product_rate, repeats=2))
    monkeypatch.setattr(growth, "ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(1))  # starts in no time
    monkeypatch.setattr(torchvision.models, "resnet50", torchvision.models.resnet18)
    rows = ["training-float32", "cycle-consistent-2", "vgg16"]
    values = {"train_images": 600, "widths": [32, 32, 16], "batch_size": 16, "epochs": 3, "repeats": 1, "workers": 0}
    values |= {"rows_wanted": rows, "counts": [16], "full_counts": [], "stages_wanted": ["merge"]}
    values |= {"epochs_timed": 2, "small": True}
    values |= dict.fromkeys(("run_folder", "output_folder", "figures_folder"), str(tmp_path))
    run_here("90_benchmarks", **values)
    record = read(tmp_path / "benchmarks.nc", stage="benchmarks")
    assert record.row.values.tolist() == rows
    assert all(record[name].notnull() for name in ("derivation_seconds", "proving_seconds", "planted_loss"))
    assert record.share.sel(row="training-float32") > 0
    assert (record.scaling_seconds > 0).all()
    assert (record.scaling_memory >= 0).all()
    assert {path.name for path in tmp_path.glob("bench*.p??")} == {
        f"{name}.{ending}" for name in figures.BENCHMARKS for ending in ("pdf", "png")
    }
