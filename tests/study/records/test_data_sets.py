import json
import os
import re
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import hrebasin
import synthetic
from hrebasin.evaluation import evaluate
from hrebasin.files import project_root
from hrebasin.lipschitz.bounds import measure
from hrebasin.merging.pairs import lines, pairs_of, permutation_choice
from hrebasin.robustness.attacks import attack_suite
from hrebasin.study import notebook_code, records
from hrebasin.study.records.data_sets import concat, read, write
from hrebasin.study.records.networks import load_networks
from hrebasin.study.records.provenance import Clock, provenance
from hrebasin.training.run import initial_bank


def merge_record(bank, *, method="tree", group=0, attrs=None):
    """A small but valid record of stage ``merge`` over the networks of a bank."""
    bank = bank.relabel(method=method, group=group)
    variables = {
        name: bank.array(np.arange(len(bank)) + group + place / 10, name=name, long_name=name, units="1")
        for place, name in enumerate(records.schema("merge"))
    }
    return xr.Dataset(variables, attrs=attrs or {})


@pytest.fixture(scope="module")
def bank(shallow):
    return initial_bank(shallow, range(3))


@pytest.fixture
def dataset(bank):
    return merge_record(bank)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "records" / "merge.nc"


# ---- parameters of a notebook

DECLARED = 'run_folder: str = "data"  # where\nepochs: int = 15  # passes'


def test_plain_values_are_the_parameters_and_what_papermill_sets_must_be_declared():
    cells = ["", "%matplotlib inline", "import json", DECLARED, "# Parameters\nepochs = 3\n"]
    namespace = {"In": cells, "Out": {}, "_": 7, "json": json, "run_folder": "data", "epochs": 3}
    assert records.plain_values(namespace) == {"run_folder": "data", "epochs": 3}
    startup = {"token": "secret", "scratch": [1]}  # of a start-up file, which no cell shows
    assert records.plain_values(startup | namespace) == {"run_folder": "data", "epochs": 3}
    cells[-1] = "# Parameters\nepochs = 3\nepoch = 5\n"
    with pytest.raises(ValueError, match=r"not declare the parameters \['epoch'\]; it declares \['epochs', 'run_fold"):
        records.plain_values(namespace | {"epoch": 5})
    corrected = [*cells, DECLARED, "# Parameters\nepochs = 5\n"]  # the same kernel, run again
    assert records.plain_values(namespace | {"In": corrected})["epochs"] == 3
    assert records.plain_values({"epochs": 3}) == {"epochs": 3}  # outside of a notebook


# ---- one record


def test_a_record_is_read_as_it_was_written(dataset, path):
    before = dataset.copy(deep=True)
    write(dataset, path, stage="merge", attrs={"setting": "tiny", "wall_seconds": 1.5})
    xr.testing.assert_identical(dataset, before)
    again = read(path, stage="merge")
    xr.testing.assert_equal(again, dataset)
    assert again.attrs == {"format": "hrebasin-record/1", "stage": "merge", "setting": "tiny", "wall_seconds": 1.5}
    for name, variable in dataset.variables.items():
        assert again[name].attrs == variable.attrs
    assert again.method.values.tolist() == ["tree"] * 3
    assert again.stage.dtype.kind == "i"
    assert again.sel(model="tree/group-000/stage-0/node-01").seed == 1
    assert list(path.parent.iterdir()) == [path]
    write(again, path, stage="merge")
    xr.testing.assert_equal(read(path, stage="merge"), dataset)


@pytest.mark.parametrize("kind", ["float16", "bool", "complex64"])
def test_types_that_netcdf_does_not_have_are_refused(kind, dataset, path):
    for change in ({"extra": dataset.test_loss.astype(kind)}, {}):
        other = dataset.assign(change).assign_attrs({} if change else {"extra": np.ones(2, kind)})
        with pytest.raises(ValueError, match=rf"merge\.nc: (attribute )?extra is .*{kind[:5]}.*, which netCDF-4 does"):
            write(other, path, stage="merge")
    assert not path.exists()


def test_float16_of_older_data_sets_is_read(dataset, path):
    write(dataset, path, stage="merge")
    kept = read(path, stage="merge")
    kept.assign(test_loss=kept.test_loss.astype("float16")).to_netcdf(path, engine="h5netcdf")
    again = read(path, stage="merge").test_loss
    assert again.dtype == "float32"
    assert np.array_equal(again, dataset.test_loss.astype("float16"))


@pytest.fixture
def made(trained, train_images, test_images):
    """``made(stage)``: the record that the method gives for a stage of the study."""

    def make(stage):
        given, pairs = (test_images.pixels[:9], test_images.labels[:9]), pairs_of(trained, 2)
        if stage == "train":
            test = evaluate(trained, test_images)
            return trained.history.assign(test_accuracy=test.accuracy, test_loss=test.loss)
        if stage == "attack":
            return attack_suite(trained, *given, epsilons=[0.0, 0.1], magnitudes=[0.0, 0.3], draws=2)
        if stage == "regularity":
            return measure(trained, *given, radii=[0.1, 1.0], bounded=7)
        curves = lines(*pairs, {"train": train_images, "test": test_images}, [0.0, 0.5, 1.0], seed=0)
        return xr.merge(
            [curves, permutation_choice(*pairs, test_images, seed=0)], compat="identical", combine_attrs="override"
        )

    return make


@pytest.mark.parametrize("stage", ["train", "attack", "regularity", "ablations"])
def test_what_the_method_gives_is_a_record_of_its_stage(stage, made, path):
    record = made(stage)
    assert records.schema(stage).items() <= {name: record[name].dims for name in record.data_vars}.items()
    for name, variable in record.variables.items():
        assert {"long_name", "units"} <= set(variable.attrs), name
    write(record, path, stage=stage)
    xr.testing.assert_equal(read(path, stage=stage), record)


def traced_as_without_locks(*command):
    """A command's run where the system has no locks; skips where strace is missing or may not trace."""
    strace = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=flock"]
    if not shutil.which("strace") or subprocess.run([*strace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no strace here")
    inject = ["-e", "inject=flock:error=ENOLCK"]
    return subprocess.run([*strace, *inject, *command], capture_output=True, encoding="utf-8", check=False)


def test_a_file_system_without_locks_lets_records_be_read(dataset, path):
    write(dataset, path, stage="merge", attrs={"parameters": "{}", "code_digest": "code"})
    code = (
        "import sys; from hrebasin.study.records import read; from hrebasin.study.running.stale import _made_so\n"
        "print(_made_so(sys.argv[1], 'code', {'dataset': ''}, ''), read(sys.argv[1], stage='merge').sizes)"
    )
    done = traced_as_without_locks(sys.executable, "-c", code, str(path))
    assert (done.returncode, done.stdout.split(" ")[0]) == (0, "True"), done.stderr


def test_a_failing_write_leaves_the_old_record(dataset, path, monkeypatch):
    write(dataset, path, stage="merge")

    def half(self, content):
        self.touch()
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="disk full"):
        write(dataset + 1, path, stage="merge")
    xr.testing.assert_equal(read(path, stage="merge"), dataset)
    assert list(path.parent.iterdir()) == [path]


# ---- provenance


def test_provenance_says_where_a_record_comes_from(dataset, path, train_images):
    parameters = {"leaves": 16, "limits": [1, 2], "strength": 0.5, "name": "Größe", "run_folder": "data/runs/cpu"}
    places = {"dataset": "/home/me/images.tar.xz", "other": "their/originals"}  # told without their folders
    attrs = provenance(
        setting="tiny",
        parameters=parameters | places,
        images={"train": train_images.first(9)},
        device="cpu",
        clock=Clock(),
    )
    write(dataset, path, stage="merge", attrs=attrs)
    attrs = read(path, stage="merge").attrs
    assert set(attrs) == {
        "format", "stage", "setting", "parameters", "data_source", "data_digest", "n_classes", "code_commit",
        "code_changed", "versions", "device", "wall_seconds", "created",
    }  # fmt: skip
    assert json.loads(attrs["parameters"]) == parameters | {"dataset": "images.tar.xz", "other": "originals"}
    assert json.loads(attrs["data_digest"]) == {"train": train_images.digest}  # of the whole split
    assert attrs["n_classes"] == 4
    assert attrs["data_source"] == train_images.source
    versions = json.loads(attrs["versions"])
    assert versions["torch"] in (torch.__version__, torch.__version__.split("+")[0])
    assert versions["hrebasin"] == hrebasin.__version__
    assert {"python", "torch", "numpy", "hrebasin"} < set(versions)
    assert attrs["device"].startswith("cpu, ")
    assert 0 <= attrs["wall_seconds"] < 60
    assert datetime.fromisoformat(attrs["created"]).utcoffset().total_seconds() == 0


def test_the_commit_is_the_checkouts_or_unknown(train_images, monkeypatch):
    def of(run=subprocess.run):
        monkeypatch.setattr(subprocess, "run", run)
        attrs = provenance(setting="p", parameters={}, images={"train": train_images}, device="cpu", clock=Clock())
        return attrs["code_commit"], attrs["code_changed"]

    def answers(commit, status):
        def run(command, **_):
            return subprocess.CompletedProcess(command, 0, stdout=commit if "rev-parse" in command else status)

        return run

    def fails(command, **_):
        raise FileNotFoundError("git")

    commit, changed = of()
    assert re.fullmatch("[0-9a-f]{40}|unknown", commit)
    assert changed in (0, 1)
    assert of(answers("abc\n", "")) == ("abc", 0)
    assert of(answers("abc\n", " M lib/hrebasin/bank.py\n")) == ("abc", 1)
    assert of(fails) == ("unknown", 0)


# ---- shards


def write_shards(bank, folder, changes=None, strings=object):
    """Two shards of one run, with method names of different length and other groups."""
    paths = []
    for group, (method, change) in enumerate(zip(("l1", "merge-many"), changes or ({}, {}), strict=True)):
        attrs = {"setting": "tiny", "data_digest": "{}", "wall_seconds": 1.5 + group} | change
        paths.append(folder / f"{group}.nc")
        record = merge_record(bank, method=method, group=group)
        for name in ("method", "model"):
            record[name] = record[name].astype(strings)
        write(record, paths[-1], stage="merge", attrs=attrs)
    return paths


@pytest.mark.parametrize("strings", [object, str])  # str: NumPy's strings of fixed length
def test_shards_join_without_cutting_names(bank, tmp_path, strings):
    paths = write_shards(bank, tmp_path, strings=strings)
    joined = concat(paths, stage="merge")
    assert joined.method.values.tolist() == ["l1"] * 3 + ["merge-many"] * 3
    assert joined.group.values.tolist() == [0] * 3 + [1] * 3
    assert joined.model.values[-1] == "merge-many/group-001/stage-0/node-02"
    for path, part in zip(paths, (slice(0, 3), slice(3, 6)), strict=True):
        xr.testing.assert_equal(joined.isel(model=part), read(path, stage="merge"))
    assert joined.attrs["wall_seconds"] == 4.0
    assert joined.attrs["shards"] == 2
    write(joined, tmp_path / "joined.nc", stage="merge", attrs=joined.attrs)
    xr.testing.assert_equal(read(tmp_path / "joined.nc", stage="merge"), joined)


def test_joined_shards_tell_what_they_have_in_common_and_every_commit(bank, tmp_path):
    def made(shard):
        origin = {
            "code_commit": "ab"[shard],
            "code_changed": shard,
            "created": f"2026-0{2 - shard}",
            "device": "cpu",
        }
        parameters = {"epochs": 15, "shard": shard, "groups": [shard], "run_folder": "r"}
        versions = {"torch": f"2.{shard}", "numpy": "2"}
        return origin | {"parameters": json.dumps(parameters), "versions": json.dumps(versions)}

    same = made(0), made(1)
    attrs = concat(write_shards(bank, tmp_path, same), stage="merge").attrs
    assert json.loads(attrs["parameters"]) == {"epochs": 15}
    assert (attrs["code_commit"], attrs["code_changed"], attrs["created"]) == ("a; b", 1, "2026-02")
    assert (attrs["device"], json.loads(attrs["versions"])) == ("cpu", {"torch": "2.0; 2.1", "numpy": "2"})


def test_data_sets_of_other_networks_are_told_by_the_training_that_they_name():
    results = synthetic.results(groups=4, leaves=2, stages=["train", "merge"])
    halves = {code: results["train"].isel(model=results["train"].group // 2 == k) for k, code in enumerate("ab")}
    halves = {code: half.assign_attrs(code_digest=code, parameters='{"epochs": 3}') for code, half in halves.items()}
    train = records.join(halves, stage="train")
    names = [records.networks_of(half) for half in halves.values()]
    assert len(set(names)) == 2
    assert train.attrs["networks"] == "; ".join(names)
    for told in (names[0], train.attrs["networks"]):
        assert not records.misfits({"train": train, "merge": results["merge"].assign_attrs(networks=told)})
    other = halves["a"].assign_attrs(parameters='{"epochs": 4}')
    stale = results["merge"].assign_attrs(networks=records.networks_of(other))
    assert records.misfits({"train": train, "merge": stale}) == {"merge": "the training of the networks"}


def test_networks_that_were_loaded_are_told_until_the_next_clock(write_run, train_images, test_images, tmp_path):
    images = {"train": train_images, "test": test_images}
    write_run(tmp_path)
    clock = Clock()
    load_networks(tmp_path, 0, images=images)
    given = {"setting": "p", "parameters": {}, "images": images, "device": "cpu"}
    expected = records.networks_of(read(tmp_path / "train" / "shard-000.nc", stage="train"))
    assert provenance(**given, clock=clock)["networks"] == expected
    assert "networks" not in provenance(**given, clock=Clock())


def test_an_installed_copy_does_not_tell_the_commit_of_the_project_around_it(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a"]
    subprocess.run(
        ["git", *identity, "commit", "--quiet", "--allow-empty", "--message", "of another project"],
        cwd=tmp_path, check=True,
    )  # fmt: skip
    monkeypatch.setattr(sys.modules[Clock.__module__], "__file__", str(tmp_path / "provenance.py"))
    assert (Clock().commit, Clock().dirty) == ("unknown", False)


def test_what_a_notebook_is_told_stands_in_its_data_sets(monkeypatch, train_images):
    notebook = project_root() / "notebooks" / "01_train.ipynb"
    monkeypatch.setattr(notebook_code, "executed", told := {})
    monkeypatch.setattr(sys.modules[Clock.__module__], "executed", told)
    notebook_code.executing(notebook, setting="sample", images_digest="abc")
    attrs = provenance(setting="folder", parameters={}, images={"train": train_images}, device="cpu", clock=Clock())
    assert (attrs["setting"], attrs["images_digest"]) == ("sample", "abc")
    assert attrs["code_digest"] == notebook_code.notebook_digest(notebook)
