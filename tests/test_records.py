import json
import re
import subprocess
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import hrebasin
from hrebasin import records
from hrebasin.evaluation import evaluate
from hrebasin.records import Clock, concat, provenance, read, write
from hrebasin.training import initial_bank


def merge_record(bank, *, method="tree", group=0, attrs=None):
    """A small but valid record of stage ``merge`` over the networks of a bank."""
    bank = bank.relabel(method=method, group=group)
    variables = {
        name: bank.array(np.arange(len(bank)) + group + place / 10, name=name, long_name=name, units="1")
        for place, name in enumerate(records.SCHEMAS["merge"])
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


# ---- one record


def test_a_record_is_read_as_it_was_written(dataset, path):
    before = dataset.copy(deep=True)
    write(dataset, path, stage="merge", attrs={"profile": "tiny", "wall_seconds": 1.5})
    xr.testing.assert_identical(dataset, before)
    again = read(path, stage="merge")
    xr.testing.assert_equal(again, dataset)
    assert again.attrs == {"format": "hrebasin-record/1", "stage": "merge", "profile": "tiny", "wall_seconds": 1.5}
    for name, variable in dataset.variables.items():
        assert again[name].attrs == variable.attrs
    assert again.method.values.tolist() == ["tree"] * 3
    assert again.stage.dtype.kind == "i"
    assert again.sel(model="tree/group-000/stage-0/node-01").seed == 1
    assert list(path.parent.iterdir()) == [path]


def test_a_record_that_was_read_can_be_written_again(dataset, path):
    write(dataset, path, stage="merge")
    first = read(path, stage="merge")
    write(first, path, stage="merge")
    xr.testing.assert_identical(read(path, stage="merge"), first)


def test_a_trained_bank_gives_a_record(trained, train_images, test_images, path):
    test = evaluate(trained, test_images)
    record = trained.history.assign(test_accuracy=test.accuracy, test_loss=test.loss)
    write(record, path, stage="train")
    again = read(path, stage="train")
    np.testing.assert_array_equal(again.train_loss, trained.history.train_loss)
    assert again.test_accuracy.sel(model="unmerged/group-000/stage-0/node-05") == test.accuracy[5]


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
    parameters = {"leaves": 16, "limits": [1, 2], "strength": 0.5, "name": "Größe"}
    attrs = provenance(
        profile="tiny", parameters=parameters, images={"train": train_images.first(9)}, device="cpu", clock=Clock()
    )
    write(dataset, path, stage="merge", attrs=attrs)
    attrs = read(path, stage="merge").attrs
    assert set(attrs) == {
        "format",
        "stage",
        "profile",
        "parameters",
        "data_source",
        "data_digest",
        "n_classes",
        "code_commit",
        "code_changed",
        "versions",
        "device",
        "wall_seconds",
        "created",
    }
    assert json.loads(attrs["parameters"]) == parameters
    assert json.loads(attrs["data_digest"]) == {"train": train_images.digest}  # of the whole split
    assert attrs["n_classes"] == 4
    assert attrs["data_source"] == train_images.source
    versions = json.loads(attrs["versions"])
    assert versions["torch"] == torch.__version__.split("+")[0] or versions["torch"] == torch.__version__
    assert versions["hrebasin"] == hrebasin.__version__
    assert set(versions) == {"python", *records.PACKAGES}
    assert attrs["device"].startswith("cpu, ")
    assert 0 <= attrs["wall_seconds"] < 60
    assert datetime.fromisoformat(attrs["created"]).utcoffset().total_seconds() == 0


def test_the_commit_is_the_checkouts_or_unknown(train_images, monkeypatch):
    def of(run=subprocess.run):
        monkeypatch.setattr(subprocess, "run", run)
        attrs = provenance(profile="p", parameters={}, images={"train": train_images}, device="cpu", clock=Clock())
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


# ---- damaged or unfit records


def test_a_missing_file_is_named(path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(path))):
        read(path, stage="merge")


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_file_is_named(dataset, path, share):
    write(dataset, path, stage="merge")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=re.escape(f"{path} is not a readable netCDF file")):
        read(path, stage="merge")


def test_another_format_is_named(dataset, path):
    path.parent.mkdir()
    dataset.to_netcdf(path, engine="h5netcdf")
    with pytest.raises(ValueError, match=re.escape(f"{path}: format None instead of 'hrebasin-record/1'")):
        read(path, stage="merge")


def test_another_stage_is_named(dataset, path):
    write(dataset, path, stage="merge")
    with pytest.raises(ValueError, match=re.escape(f"{path} is a data set of stage 'merge', not 'train'")):
        read(path, stage="train")
    with pytest.raises(ValueError, match="unknown stage 'merging'"):
        write(dataset, path, stage="merging")


def unit_less(dataset):
    dataset = dataset.copy()
    dataset["seconds"] = dataset.seconds.copy()
    dataset.seconds.attrs = {"long_name": "time"}
    return dataset


def nameless_coordinate(dataset):
    return dataset.assign_coords(note=("model", [1, 2, 3], {"units": "1"}))


UNFIT = [
    (lambda d: d.drop_vars("converged"), "variable 'converged' of stage 'merge' is missing"),
    (lambda d: d.assign(seconds=d.seconds.expand_dims(draw=2)), "seconds has dimensions ('draw', 'model')"),
    (lambda d: d.drop_vars(["method", "node"]), "coordinates ['method', 'node'] of the networks are missing"),
    (lambda d: d.drop_vars("model"), "coordinates ['model'] of the networks are missing"),
    (lambda d: d.isel(model=[0, 1, 1]), "the same network appears twice"),
    (unit_less, "seconds lacks long_name or units"),
    (nameless_coordinate, "note lacks long_name or units"),
]


@pytest.mark.parametrize(("change", "message"), UNFIT)
def test_an_unfit_data_set_is_not_written(dataset, path, change, message):
    with pytest.raises(ValueError, match=re.escape(f"{path}: {message}")):
        write(change(dataset), path, stage="merge")
    assert not path.exists()


@pytest.mark.parametrize(("change", "message"), UNFIT[:5])
def test_an_unfit_data_set_is_not_read(dataset, path, change, message):
    path.parent.mkdir()
    unfit = change(dataset).assign_attrs(format="hrebasin-record/1", stage="merge")
    unfit.to_netcdf(path, engine="h5netcdf")
    with pytest.raises(ValueError, match=re.escape(f"{path}: {message}")):
        read(path, stage="merge")


# ---- shards


def write_shards(bank, folder, changes=({}, {}), strings=object):
    """Two shards of one run, with method names of different length and other groups."""
    paths = []
    for group, (method, change) in enumerate(zip(("l1", "merge-many"), changes, strict=True)):
        attrs = {"profile": "tiny", "data_digest": "abc", "wall_seconds": 1.5 + group} | change
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


def test_a_group_by_works_on_joined_shards(bank, tmp_path):
    joined = concat(write_shards(bank, tmp_path), stage="merge")
    means = joined.seconds.groupby("method").mean()
    place = list(records.SCHEMAS["merge"]).index("seconds") / 10
    np.testing.assert_allclose(means.sel(method=["l1", "merge-many"]), [1 + place, 2 + place])


@pytest.mark.parametrize("key", ["profile", "data_digest"])
def test_shards_of_different_origin_are_named(bank, tmp_path, key):
    _, second = paths = write_shards(bank, tmp_path, ({key: "one"}, {key: "two"}))
    with pytest.raises(ValueError, match=re.escape(str(second)) + f" differ in {key}: 'one' and 'two'"):
        concat(paths, stage="merge")


def test_shards_of_other_parameters_are_named(bank, tmp_path):
    def parameters(**values):
        return {"parameters": json.dumps(values)}

    same = parameters(epochs=15, shard=0, groups=[0]), parameters(epochs=15, shard=1, groups=[1])
    assert concat(write_shards(bank, tmp_path, same), stage="merge").sizes["model"] == 6
    _, second = paths = write_shards(bank, tmp_path, (parameters(epochs=15), parameters(epochs=2)))
    with pytest.raises(ValueError, match=re.escape(str(second)) + " differ in epochs: 15 and 2"):
        concat(paths, stage="merge")
    _, second = paths = write_shards(bank, tmp_path, (parameters(epochs=15), parameters(epochs=15, flip=True)))
    with pytest.raises(ValueError, match=re.escape(str(second)) + " differ in flip: None and True"):
        concat(paths, stage="merge")


def test_the_same_shard_twice_is_refused(bank, tmp_path):
    first, _ = write_shards(bank, tmp_path)
    with pytest.raises(ValueError, match="the same network appears twice"):
        concat([first, first], stage="merge")


def test_no_shards_are_refused():
    with pytest.raises(ValueError, match="no shards of stage 'merge' to join"):
        concat([], stage="merge")


def test_every_stage_has_a_schema():
    assert set(records.STAGES) < set(records.SCHEMAS)
    for stage in records.STAGES:
        first = {dims[0] for dims in records.SCHEMAS[stage].values()}
        assert len(first) == 1  # the dimension that shards are joined along
