"""Results made from other parameters or other code are made again, and nothing else is."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py

from hrebasin import digests
from hrebasin.files import project_root
from hrebasin.study.figures import figure_files
from hrebasin.study.notebook_code import notebook_digest
from hrebasin.study.running import stale
from hrebasin.study.running.plan import Plan
from hrebasin.study.stages import NOTEBOOKS, PAPER

ROOT = project_root()
ALL = {*NOTEBOOKS, "paper"}
LIBRARY, RUN = "lib/hrebasin", "data/runs/tiny"
# name, file that changes, old text, new text, what is given, stages that are due then
STEPS = [
    ("a docstring", f"{LIBRARY}/training/train.py", "Train one network for", "Train a network for", [], set()),
    ("a value of merging", "", "", "", ["merge_many_sets=2"], ALL - {"train", "ablations"}),
    ("code of one stage", f"{LIBRARY}/robustness/deepfool.py", "(1, 3, 50)", "(1, 3, 51)", [], {"attack", "paper"}),
    ("other images of the same name", "data/cifar10-sample.nc", "images", "others", [], ALL),
    ("deleted networks", f"{RUN}/weights/unmerged-000.safetensors", "", "deleted", [], ALL),
    ("a deleted data set", f"{RUN}/merge/shard-001.nc", "", "deleted", [], ALL - {"train", "ablations"}),
    ("a deleted ledger", f"{RUN}/results/ledger.nc", "", "deleted", [], {"paper"}),
    ("a job that did not end", "", "", "", [], ALL - {"train", "ablations"}),
    ("a copied folder", "", "", "", [], set()),
    ("a copied folder, another value", "", "", "", ["noise_draws=3"], {"attack", "paper"}),
]
DRIVER = """
import json, shutil, sys
from base64 import b64encode
from pathlib import Path
from hrebasin import digests
from hrebasin.study.command import main
from hrebasin.study.running.workflow import _snakemake

steps = json.loads(sys.argv[1])
command = ["--cores", "1", "--nolock", "--config", "setting=tiny"]
assert _snakemake([*command, "--touch", "--forceall", "--quiet", "all"]) == 0
for name, file, old, new, given in steps:
    if new == "deleted":
        Path(file).rename("away")
    elif file:
        kept = Path(file).read_text()
        assert old in kept
        Path(file).write_text(kept.replace(old, new))
    if name == "a job that did not end":  # Snakemake's mark of a job that has begun
        unfinished = Path(".snakemake/incomplete", b64encode(b"data/runs/tiny/merge/shard-001.nc").decode())
        unfinished.write_text("{}")
    if name == "a copied folder":
        unfinished.unlink()
        shutil.rmtree(".snakemake")  # what Snakemake noted of the jobs stays behind
    for cached in vars(digests).keys() - {"_parsed", "_nodes"}:  # as if every step were a command of its own
        getattr(getattr(digests, cached), "cache_clear", int)()
    print("STEP", name, flush=True)
    assert main(["run", "--cores", "1", "--dry-run", *given, "setting=tiny"]) == 0
    if new == "deleted":
        Path("away").rename(file)
    elif file:
        Path(file).write_text(kept)
"""


def write_results(folder):
    """Files of a finished run; its data sets hold nothing but their parameters and the digest of their code."""
    plan = Plan.from_config({"setting": "tiny"})
    run = folder / plan.run
    files = [run / "index.html", run / "notebooks" / f"{PAPER}.ipynb", run / "figures" / "fig9_controls.png"]
    files += [folder / path for path in figure_files(f"{plan.run}/figures", NOTEBOOKS)]
    files += [run / "results" / f"{stage}.nc" for stage in (*NOTEBOOKS, "ledger")]
    for shard in plan.shards:
        files += [run / "weights" / f"{part}-{shard:03d}.safetensors" for part in ("unmerged", "merged")]
        files += [run / "notebooks" / f"{notebook}-{shard:03d}.ipynb" for notebook in NOTEBOOKS.values()]
        for stage, notebook in NOTEBOOKS.items():
            path = run / stage / f"shard-{shard:03d}.nc"
            path.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(path, "w") as file:
                file.attrs["parameters"] = plan.parameters(notebook, shard)
                file.attrs["code_digest"] = plan.code(notebook)
                if stage == "train":
                    file.attrs["images_digest"] = hashlib.sha256(b"images").hexdigest()
    (run / "results").mkdir()
    with h5py.File(run / "results" / "ledger.nc", "w") as file:
        file.attrs["code_digest"] = plan.code(PAPER)
    (folder / "data" / "cifar10-sample.nc").write_text("images")
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_what_a_change_makes_due(tmp_path):
    for name in ("config", "notebooks", "lib"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    write_results(tmp_path)
    run = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps([step[:-1] for step in STEPS])],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path / "lib")}, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
    due = {}
    for part in run.stdout.split("STEP")[1:]:
        name, *lines = part.splitlines()
        due[name.strip()] = ALL & {line.split()[0] for line in lines if len(line.split()) == 2}
    assert due == {name: stages for name, *_, stages in STEPS}


def test_questions_are_refused_of_networks_made_with_other_values(tmp_path, monkeypatch):
    write_results(tmp_path)
    monkeypatch.setattr(stale, "project_root", lambda: tmp_path)
    plans = [
        Plan.from_config({"setting": "tiny"} | other) for other in ({}, {"noise_draws": 3}, {"learning_rate": 0.5})
    ]
    same, attacked_otherwise, trained_otherwise = map(stale.other_networks, plans)
    assert same == attacked_otherwise == ""
    learned = plans[0].setting.learning_rate
    assert trained_otherwise == f"{RUN}/train/shard-000.nc was made with learning_rate={learned}, not 0.5"


def test_what_is_found_by_name_makes_conclusions_due_and_what_only_shows_results_no_results(tmp_path, monkeypatch):
    concluding = {"06_paper", "29_answers"}
    names = {"23_scale", "24_repair", *concluding}
    shutil.copytree(Path(digests.__file__).parent, folder := tmp_path / "hrebasin")
    monkeypatch.setattr(digests, "__file__", str(folder / "digests.py"))

    def now():
        for cached in vars(digests).keys() - {"_parsed", "_nodes"}:  # these remember texts, whichever file has them
            getattr(getattr(digests, cached), "cache_clear", int)()
        return {name: notebook_digest(ROOT / "notebooks" / f"{name}.ipynb") for name in names}

    before = now()
    for module, old, new, changed in (
        ("study/questions/scale", 'set_yscale("log")', 'set_yscale("linear")', concluding),
        ("study/questions/scale", ".prod(1)", ".prod(0)", {"23_scale"}),
        ("study/questions/scale", '"""Frobenius norms', '"""The Frobenius norms', set()),
        ("study/claims/accuracy", "SMALL, LARGE = 4, 8", "SMALL, LARGE = 4, 16", {"06_paper"}),
        ("merging/repair", "SMALLEST = 1e-6", "SMALLEST = 1e-5", {"24_repair"}),
    ):
        source = (file := folder / f"{module}.py").read_text()
        assert old in source
        file.write_text(source.replace(old, new, 1))
        after = now()
        assert {name for name in names if before[name] != after[name]} == changed, new
        file.write_text(source)
    monkeypatch.undo()
    now()  # so that nothing of the copy is remembered
