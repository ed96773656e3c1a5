import json
import os
import re
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

import hrebasin
import synthetic
from hrebasin.files import project_root
from hrebasin.study import notebook_code, records
from hrebasin.study.records.data_sets import concat, read, write
from hrebasin.study.records.networks import load_networks
from hrebasin.study.records.provenance import Clock, provenance
from hrebasin.training.run import initial_bank


def merge_record(bank, *, method="tree", group=0):
    """A small but valid record of stage ``merge`` over the networks of a bank."""
    bank = bank.relabel(method=method, group=group)
    variables = {
        name: bank.array(np.arange(len(bank)) + group + place / 10, name=name, long_name=name, units="1")
        for place, name in enumerate(records.schema("merge"))
    }
    return xr.Dataset(variables)


@pytest.fixture(scope="module")
def bank(shallow):
    return initial_bank(shallow, range(3))


@pytest.fixture
def dataset(bank):
    return merge_record(bank)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "records" / "merge.nc"


def attributes(images, *, setting="tiny", parameters=(), clock=None):
    """What `provenance` tells."""
    return provenance(setting=setting, parameters=parameters, images=images, device="cpu", clock=clock or Clock())


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


def test_types_that_netcdf_does_not_have_are_refused_but_float16_of_older_data_sets_is_read(dataset, path):
    for kind in ("float16", "bool", "complex64"):
        for change in ({"extra": dataset.test_loss.astype(kind)}, {}):
            other = dataset.assign(change).assign_attrs({} if change else {"extra": np.ones(2, kind)})
            match = rf"merge\.nc: (attribute )?extra is .*{kind[:5]}.*, which netCDF-4 does"
            with pytest.raises(ValueError, match=match):
                write(other, path, stage="merge")
    assert not path.exists()
    write(dataset, path, stage="merge")
    kept = read(path, stage="merge")
    kept.assign(test_loss=kept.test_loss.astype("float16")).to_netcdf(path, engine="h5netcdf")
    again = read(path, stage="merge").test_loss
    assert again.dtype == "float32"
    assert np.array_equal(again, dataset.test_loss.astype("float16"))


def test_a_file_system_without_locks_lets_records_be_read(dataset, path):
    strace = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=flock"]
    if not shutil.which("strace") or subprocess.run([*strace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace is not here, or may not trace")
    write(dataset, path, stage="merge", attrs={"parameters": "{}", "code_digest": "code"})
    code = (
        "import sys; from hrebasin.study.records import read; from hrebasin.study.running.stale import _made_so\n"
        "print(_made_so(sys.argv[1], 'code', {'dataset': ''}, ''), read(sys.argv[1], stage='merge').sizes)"
    )
    command = [*strace, "-e", "inject=flock:error=ENOLCK", sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stdout.split(" ")[0]) == (0, "True"), done.stderr


def test_networks_keep_their_bytes_when_others_are_added(dataset, tmp_path):
    values = np.arange(3 * 600).reshape(3, 600) / 7
    whole = dataset.assign(margin=(("model", "image"), values, {"long_name": "margin", "units": "1"}))
    packed = []
    for n in (2, 3):
        write(whole.isel(model=slice(n)), tmp_path / f"{n}.nc", stage="merge")
        with h5py.File(tmp_path / f"{n}.nc") as file:
            packed.append([file["margin"].id.read_direct_chunk((k, 0))[1] for k in range(n)])
    assert packed[0] == packed[1][:2]


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


def test_provenance_says_where_a_record_comes_from(dataset, path, train_images):
    parameters = {"leaves": 16, "limits": [1, 2], "strength": 0.5, "name": "Größe", "run_folder": "data/runs/cpu"}
    places = {"dataset": "/home/me/images.tar.xz", "other": "their/originals"}  # told without their folders
    attrs = attributes({"train": train_images.first(9)}, parameters=parameters | places)
    write(dataset, path, stage="merge", attrs=attrs)
    attrs = read(path, stage="merge").attrs
    assert json.loads(attrs["parameters"]) == parameters | {"dataset": "images.tar.xz", "other": "originals"}
    assert json.loads(attrs["data_digest"]) == {"train": train_images.digest}  # of the whole split
    assert attrs["n_classes"] == 4
    assert attrs["data_source"] == train_images.source
    versions = json.loads(attrs["versions"])
    assert versions["hrebasin"] == hrebasin.__version__
    assert {"python", "torch", "numpy"} < set(versions)
    assert attrs["device"].startswith("cpu, ")
    assert 0 <= attrs["wall_seconds"] < 60
    assert datetime.fromisoformat(attrs["created"]).utcoffset().total_seconds() == 0


def test_what_a_notebook_is_told_stands_in_its_data_sets(monkeypatch, train_images):
    notebook = project_root() / "notebooks" / "01_train.ipynb"
    monkeypatch.setattr(notebook_code, "executed", told := {})
    monkeypatch.setattr(sys.modules[Clock.__module__], "executed", told)
    notebook_code.executing(notebook, setting="sample", images_digest="abc")
    attrs = attributes({"train": train_images}, setting="folder")
    assert (attrs["setting"], attrs["images_digest"]) == ("sample", "abc")
    assert attrs["code_digest"] == notebook_code.notebook_digest(notebook)


def test_the_commit_is_the_checkouts_or_unknown(tmp_path, monkeypatch):
    real = subprocess.run
    assert re.fullmatch("[0-9a-f]{40}|unknown", Clock().commit)
    for status, expected in (
        ("", ("abc", False)),
        (" M lib/hrebasin/bank.py\n", ("abc", True)),
        (None, ("unknown", False)),
    ):

        def run(command, status=status, **_):
            if status is None:
                raise FileNotFoundError("git")
            return subprocess.CompletedProcess(command, 0, stdout="abc\n" if "rev-parse" in command else status)

        monkeypatch.setattr(subprocess, "run", run)
        assert (Clock().commit, Clock().dirty) == expected
    monkeypatch.setattr(subprocess, "run", real)  # an installed copy, in another project's repository
    commit = ["commit", "--quiet", "--allow-empty", "--message", "of another project"]
    for words in (["init", "--quiet"], ["-c", "user.name=a", "-c", "user.email=a", *commit]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(sys.modules[Clock.__module__], "__file__", str(tmp_path / "provenance.py"))
    assert (Clock().commit, Clock().dirty) == ("unknown", False)


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
    made = []
    for shard, commit in enumerate("ab"):
        parameters = {"epochs": 15, "shard": shard, "groups": [shard], "run_folder": "r"}
        versions = {"torch": f"2.{shard}", "numpy": "2"}
        origin = {"code_commit": commit, "code_changed": shard, "created": f"2026-0{2 - shard}", "device": "cpu"}
        made.append(origin | {"parameters": json.dumps(parameters), "versions": json.dumps(versions)})
    attrs = concat(write_shards(bank, tmp_path, made), stage="merge").attrs
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
    expected = records.networks_of(read(tmp_path / "train" / "shard-000.nc", stage="train"))
    assert attributes(images, clock=clock)["networks"] == expected
    assert "networks" not in attributes(images)
