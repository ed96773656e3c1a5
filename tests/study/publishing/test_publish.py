import shutil

import numpy as np
import pytest
from finished_runs import ATTRS, SOME, write_results

import synthetic
from hrebasin.study import records
from hrebasin.study.claims.ledger import ledger
from hrebasin.study.command import main
from hrebasin.study.figures import registry as figures
from hrebasin.study.publishing import publish as publishing
from hrebasin.study.publishing.publish import publish
from hrebasin.study.records import checksums as manifest
from hrebasin.study.stages import QUESTIONS, STAGES

pytestmark = pytest.mark.usefixtures("few_resamples")


def test_published_results_keep_what_they_say(run, published):
    for stage in STAGES:
        original = records.read(run / "results" / f"{stage}.nc", stage=stage)
        copy = records.read(published / f"{stage}.nc", stage=stage)
        assert set(original.data_vars) == set(copy.data_vars)
        for name, variable in original.data_vars.items():
            if variable.dtype.kind == "f":
                close = abs(copy[name].astype(float) - variable) <= 2e-3 * abs(variable) + 1e-3
                assert (close | variable.isnull()).all(), name
        assert copy.attrs["data_source"] == "synthetic images"
    listed, wrong = manifest.compare(published, "*.nc")
    assert {path.stem for path in listed} >= {*STAGES, "ledger"}
    assert wrong == []


def test_a_setting_has_a_folder_of_its_own(run, concluded, tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "project_root", lambda: tmp_path)
    written = publish(run)
    assert {path.parent for path in written} == {tmp_path / "data" / "published" / ATTRS["setting"]}


def test_values_per_image_are_rounded_as_float16_would_at_any_size():
    values = np.random.default_rng(0).normal(size=1000) * 10.0 ** np.arange(-3, 5).repeat(125)
    rounded = publishing._rounded(values)
    inside = (abs(rounded) > 1e-4) & (abs(rounded) < 65_504)
    assert np.array_equal(rounded[inside], values.astype(np.float32).astype(np.float16).astype(np.float32)[inside])
    for each in (rounded, publishing._rounded(values * 1e30), publishing._rounded(values * 1e-30)):
        assert not (each.view(np.uint32) & 0x1FFF).any()
    assert (abs(rounded / values - 1) <= 2.0**-11).all()
    special = np.array([np.nan, np.inf, -np.inf, 0.0])
    assert np.array_equal(publishing._rounded(special), special, equal_nan=True)


def test_published_results_can_say_what_the_images_are(run, concluded, tmp_path):
    publish(run, tmp_path, source="CIFAR-10, some copy")
    for stage, dataset in records.read_results(tmp_path).items():
        assert dataset.attrs["data_source"] == "CIFAR-10, some copy", stage
    versions = records.read_results(tmp_path)["versions"]
    assert versions.version.values.tolist() == ["CIFAR-10, some copy", "other version"]
    assert records.read(tmp_path / "ledger.nc", stage="ledger").attrs["data_source"] == "CIFAR-10, some copy"
    results = records.read_results(tmp_path)
    assert all("CIFAR-10, some copy" in figures.caption(name, results) for name in figures.drawable(results))


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """Four groups in one folder, and two in each of two others, measured by different commits."""
    root = tmp_path_factory.mktemp("halves")
    for name, groups, commit in (("whole", range(4), "0; 1"), ("first", (0, 1), "0"), ("second", (2, 3), "1")):
        found = synthetic.results(groups=4, stages=SOME)
        attrs = ATTRS | {"code_commit": commit, "created": f"202{commit[-1]}"}
        results = {stage: data.assign_attrs(attrs) for stage, data in found.items()}
        write_results(results, root / name, list(groups))
    return root


@pytest.fixture(scope="module")
def first(halves, tmp_path_factory):
    """The first two groups, published."""
    folder = tmp_path_factory.mktemp("first")
    publish(halves / "first", folder)
    return folder


@pytest.fixture
def concluded(first, monkeypatch):
    """Conclusions that were drawn before, for tests of data sets alone: to draw them anew takes longest."""
    for module, name, stage in ((publishing, "ledger", "ledger"), (publishing.answers, "answer", "answers")):
        found = records.read(first / f"{stage}.nc", stage=stage)
        monkeypatch.setattr(module, name, lambda results, found=found: found)


def test_groups_add_up(halves, first, tmp_path):
    publish(halves / "whole", tmp_path / "whole")
    shutil.copytree(first, tmp_path / "parts")
    publish(halves / "second", tmp_path / "parts", add=True)
    for path in sorted((tmp_path / "whole").glob("*.nc")):
        whole, parts = (
            records.read(path.parent.with_name(name) / path.name, stage=path.stem) for name in ("whole", "parts")
        )
        parts = parts.sel(model=whole.model) if "model" in whole.dims else parts  # joined by group, whatever the order
        for name, values in whole.variables.items():
            assert values.equals(parts.variables[name]), f"{path.stem}: {name}"
        if path.stem in STAGES:
            assert parts.attrs["code_commit"] == "0; 1"
    assert manifest.compare(tmp_path / "parts", "*.nc")[1] == []


def test_open_questions_add_up_alone(halves, first, concluded, tmp_path, capsys):
    shutil.copytree(first, tmp_path / "published")
    (tmp_path / "results").mkdir()
    name = "recipes.nc"
    (tmp_path / "results" / name).symlink_to(halves / "second" / "results" / name)
    publish(tmp_path, tmp_path / "published", add=True)
    found = records.read_results(tmp_path / "published")
    assert {
        stage: sorted(set(data.group.values)) for stage, data in found.items() if stage in ("merge", "recipes")
    } == {
        "merge": [0, 1],
        "recipes": [0, 1, 2, 3],
    }
    assert main(["publish", str(tmp_path), str(tmp_path / "published")]) == 2  # not instead of all others
    assert main(["publish", "--add", str(tmp_path), str(tmp_path / "nothing")]) == 2
    assert "no data set at" in capsys.readouterr().err


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*")}


def test_what_cannot_be_added_leaves_all_as_it_was(halves, first, tmp_path, capsys):
    folder = shutil.copytree(first, tmp_path / "published")
    before = files_of(folder)
    assert main(["publish", "--add", str(halves / "first"), str(folder)]) == 2
    assert "published holds the groups of " in capsys.readouterr().err
    assert main(["publish", "--add", str(tmp_path / "nowhere"), str(folder)]) == 2
    assert "no data set at" in capsys.readouterr().err
    attrs = ATTRS | {"created": "2022"}
    others = {stage: data.assign_attrs(attrs) for stage, data in synthetic.results(groups=4, stages=SOME).items()}
    others["ablations"].attrs["parameters"] = '{"n_lambdas": 7}'
    write_results(others, tmp_path / "others", [2, 3])
    assert main(["publish", "--add", str(tmp_path / "others"), str(folder)]) == 2
    assert "differ in n_lambdas: None and 7" in capsys.readouterr().err
    assert files_of(folder) == before


def few(source, target):
    """A copy of a run or of what is published of it, with one question alone."""
    kept = {*STAGES, "controls", "ledger", "answers"}
    shutil.copytree(source, target)
    for path in target.rglob("*.nc"):
        if path.stem not in kept:
            path.unlink()
    return target


def test_an_addition_that_was_stopped_is_finished_by_the_same_command(halves, first, concluded, tmp_path):
    run, whole = few(halves / "second", tmp_path / "run"), few(first, tmp_path / "whole")
    publish(run, whole, add=True)
    added = {path.name for path in whole.glob("*.nc")}
    for name, done in (("early", {"train.nc", "merge.nc", "controls.nc"}), ("late", added - {"ledger.nc"})):
        folder = few(first, tmp_path / name)
        for file in done:
            shutil.copy(whole / file, folder)
        publish(run, folder, add=True)
        for file in added:
            expected, found = (records.read(place / file, stage=file[:-3]) for place in (whole, folder))
            assert expected.equals(found), file


def test_what_is_stopped_while_it_is_published_changes_nothing(halves, first, tmp_path, monkeypatch):
    run, folder = few(halves / "second", tmp_path / "run"), few(first, tmp_path / "published")
    before = files_of(folder)
    monkeypatch.setattr(publishing, "_conclude", lambda folder: 1 / 0)
    for add in (False, True):
        with pytest.raises(ZeroDivisionError):
            publish(run, folder, add=add)
        assert files_of(folder) == before
        assert not list(folder.glob(".hrebasin-*"))


def changed(run, folder, stage, **attrs):
    """A run whose data set of one stage tells something else."""
    shutil.copytree(run, folder)
    record = records.read(folder / "results" / f"{stage}.nc", stage=stage).assign_attrs(attrs)
    records.write(record, folder / "results" / f"{stage}.nc", stage=stage)
    return folder


@pytest.mark.parametrize(
    ("stage", "attrs", "reason"),
    [
        ("attack", {"data_digest": '{"test": "b"}'}, "attack.nc (test images)"),
        ("merge", {"parameters": '{"leaves": 8}'}, "merge.nc (leaves)"),
        ("controls", {"parameters": '{"epochs": 2}'}, "controls.nc (epochs)"),
        ("scale", {"networks": "others"}, "scale.nc (the training of the networks)"),
    ],
)
def test_data_sets_that_do_not_belong_together_are_not_published(stage, attrs, reason, halves, tmp_path, capsys):
    train = {"parameters": '{"epochs": 3, "leaves": 16}', "data_digest": '{"test": "a", "train": "c"}'}
    run = changed(changed(halves / "first", tmp_path / "a", "train", **train), tmp_path / "b", stage, **attrs)
    assert main(["publish", str(run), str(tmp_path / "published")]) == 2
    assert reason in capsys.readouterr().err
    assert not list((tmp_path / "published").glob("[!.]*"))


def test_a_stage_of_other_groups_is_not_published(halves, tmp_path, capsys):
    shutil.copytree(halves / "first", tmp_path / "run")
    shutil.copy(halves / "whole" / "results" / "attack.nc", tmp_path / "run" / "results")
    assert main(["publish", str(tmp_path / "run"), str(tmp_path / "published")]) == 2
    assert "attack.nc (groups ([0, 1, 2, 3] beside [0, 1]))" in capsys.readouterr().err


def test_a_run_whose_conclusions_are_of_other_data_sets_is_not_published(halves, tmp_path, capsys):
    run = changed(halves / "first", tmp_path / "run", "attack", created="2030")
    made_from = {"parameters": '{"made_from": {"attack": "2029"}}'}
    results = records.read_results(run / "results")
    records.write(ledger(results), run / "results" / "ledger.nc", stage="ledger", attrs=ATTRS | made_from)
    assert main(["publish", str(run), str(tmp_path / "published")]) == 2
    assert "ledger.nc was not drawn from attack.nc beside it; finish the run first" in capsys.readouterr().err


def test_questions_to_other_networks_do_not_stay_beside_a_run(halves, first, concluded, tmp_path):
    folder = shutil.copytree(first, tmp_path / "published")
    run = changed(halves / "second", tmp_path / "run", "train", data_digest='{"test": "a"}')
    for question in set(QUESTIONS) & set(SOME):
        (run / "results" / f"{question}.nc").unlink()
        record = records.read(folder / f"{question}.nc", stage=question)
        records.write(record.assign_attrs(data_digest='{"test": "b"}'), folder / f"{question}.nc", stage=question)
    publish(run, folder)
    kept = {*STAGES, "versions", "ledger"}
    assert {path.stem for path in folder.glob("*.nc")} == kept
    assert {path.stem for path in manifest.compare(folder, "*.nc")[0]} == kept


def test_values_per_image_are_published_of_the_first_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "IMAGE_GROUPS", 2)
    found = synthetic.results(groups=4, stages=SOME)
    results = {stage: data.assign_attrs(ATTRS) for stage, data in found.items()}
    write_results(results, tmp_path)
    publish(tmp_path, tmp_path / "published")
    again = records.read_results(tmp_path / "published")
    claims = records.read(tmp_path / "published" / "ledger.nc", stage="ledger")
    whole = ledger(results)
    assert claims.verdict.values.tolist() == whole.verdict.values.tolist()
    for stage, dataset in again.items():
        for name, values in dataset.data_vars.items():
            if not {"model", "image"} <= set(values.dims):
                np.testing.assert_array_equal(values, results[stage][name])
                continue
            few = values["group"].isin(np.unique(values["group"])[:2]).values
            first, others = values[few], values[~few]
            np.testing.assert_allclose(first, results[stage][name][few], rtol=1e-3, atol=1e-3)
            if name in ("correct", "success"):
                assert (others == -1).all()
            elif name in ("perturbation_norm", "margin"):
                assert others.isnull().all()
    bounded = again["regularity"].local_lipschitz.notnull().all(["model", "radius"])
    assert again["regularity"].gradient_norm[:, bounded.values].notnull().all()
