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


@pytest.fixture
def concluded(published, monkeypatch):
    """Conclusions that were drawn before, for tests of data sets alone: to draw them anew takes longest."""
    for module, name, stage in ((publishing, "ledger", "ledger"), (publishing.answers, "answer", "answers")):
        found = records.read(published / f"{stage}.nc", stage=stage)
        monkeypatch.setattr(module, name, lambda results, found=found: found)


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*")}


def few(source, target):
    """A copy of a run or of what is published of it, with one question alone."""
    others = [f"{question}.nc" for question in SOME if question not in (*STAGES, "controls")]
    return shutil.copytree(source, target, ignore=shutil.ignore_patterns(*others))


def change(run, stage, **attrs):
    """Let a run's data set of one stage tell something else."""
    path = run / "results" / f"{stage}.nc"
    records.write(records.read(path, stage=stage).assign_attrs(attrs), path, stage=stage)


def test_published_results_keep_what_they_say(halves, published):
    for stage in STAGES:
        original = records.read(halves / "first" / "results" / f"{stage}.nc", stage=stage)
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


def test_a_setting_has_a_folder_of_its_own_and_can_say_what_its_images_are(halves, concluded, tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "project_root", lambda: tmp_path)
    written = publish(halves / "first", source="CIFAR-10, some copy")
    [folder] = {path.parent for path in written}
    assert folder == tmp_path / "data" / "published" / ATTRS["setting"]
    results = records.read_results(folder)
    told = results | {"ledger": records.read(folder / "ledger.nc", stage="ledger")}
    assert {dataset.attrs["data_source"] for dataset in told.values()} == {"CIFAR-10, some copy"}
    assert results["versions"].version.values.tolist() == ["CIFAR-10, some copy", "other version"]
    assert all("CIFAR-10, some copy" in figures.caption(name, results) for name in ("fig1_accuracy", "fig9_controls"))


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


def test_groups_add_up(halves, published, concluded, tmp_path):
    publish(halves / "whole", tmp_path / "whole")
    shutil.copytree(published, tmp_path / "parts")
    publish(halves / "second", tmp_path / "parts", add=True)
    for path in sorted((tmp_path / "whole").glob("*.nc")):
        folders = path.parent, tmp_path / "parts"
        whole, parts = (records.read(folder / path.name, stage=path.stem) for folder in folders)
        parts = parts.sel(model=whole.model) if "model" in whole.dims else parts  # joined by group, whatever the order
        for name, values in whole.variables.items():
            assert values.equals(parts.variables[name]), f"{path.stem}: {name}"
        if path.stem in STAGES:
            assert parts.attrs["code_commit"] == "0; 1"
    assert manifest.compare(tmp_path / "parts", "*.nc")[1] == []


def test_open_questions_add_up_alone(halves, published, concluded, tmp_path, capsys):
    shutil.copytree(published, tmp_path / "published")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "recipes.nc").symlink_to(halves / "second" / "results" / "recipes.nc")
    publish(tmp_path, tmp_path / "published", add=True)
    found = records.read_results(tmp_path / "published")
    groups = {stage: sorted(set(found[stage].group.values)) for stage in ("merge", "recipes")}
    assert groups == {"merge": [0, 1], "recipes": [0, 1, 2, 3]}
    assert main(["publish", str(tmp_path), str(tmp_path / "published")]) == 2  # not instead of all others
    assert main(["publish", "--add", str(tmp_path), str(tmp_path / "nothing")]) == 2
    assert "no data set at" in capsys.readouterr().err


def test_conclusions_that_say_the_same_stay(published, concluded, tmp_path):
    folder = shutil.copytree(published, tmp_path / "published")
    before, ledger = files_of(folder), folder / "ledger.nc"
    publishing.conclude(folder)
    assert files_of(folder) == before
    found = records.read(ledger, stage="ledger")
    records.write(found.assign(effect=found.effect + 1), ledger, stage="ledger", attrs=found.attrs)
    publishing.conclude(folder)
    assert records.read(ledger, stage="ledger").equals(found)
    assert (folder / "answers.nc").read_bytes() == before["answers.nc"]
    assert manifest.compare(folder, "*.nc")[1] == []


def test_what_cannot_be_added_leaves_all_as_it_was(halves, published, tmp_path, capsys, monkeypatch):
    folder = few(published, tmp_path / "published")
    others, run = few(halves / "second", tmp_path / "others"), few(halves / "second", tmp_path / "run")
    change(others, "ablations", created="2022", parameters='{"n_lambdas": 7}')
    before = files_of(folder)
    for given, message in (
        (few(halves / "first", tmp_path / "same"), "published holds the groups of "),
        (tmp_path / "nowhere", "no data set at"),
        (others, "differ in n_lambdas: None and 7"),
    ):
        assert main(["publish", "--add", str(given), str(folder)]) == 2
        assert message in capsys.readouterr().err
        assert files_of(folder) == before
    monkeypatch.setattr(publishing, "_conclude", lambda *_: 1 / 0)  # stopped midway
    for how in ({"replace": True}, {"add": True}):
        with pytest.raises(ZeroDivisionError):
            publish(run, folder, **how)
        assert files_of(folder) == before
        assert not list(folder.glob(".hrebasin-*"))


def test_an_addition_that_was_stopped_is_finished_by_the_same_command(halves, published, concluded, tmp_path):
    run, whole = few(halves / "second", tmp_path / "run"), few(published, tmp_path / "whole")
    publish(run, whole, add=True)
    added, data_sets = {path.name for path in whole.glob("*.nc")}, {f"{stage}.nc" for stage in (*STAGES, "controls")}
    for name, done in (("early", {"train.nc", "merge.nc", "controls.nc"}), ("late", added - {"ledger.nc"})):
        folder = few(published, tmp_path / name)
        for file in done:
            shutil.copy(whole / file, folder)
        publish(run, folder, add=True)
        assert all((whole / file).read_bytes() == (folder / file).read_bytes() for file in added & data_sets)
        for file in added - data_sets:  # conclusions tell when they were drawn
            expected, found = (records.read(place / file, stage=file[:-3]) for place in (whole, folder))
            assert expected.equals(found), file


def test_data_sets_that_do_not_belong_together_are_not_published(halves, tmp_path, capsys):
    train = {"parameters": '{"epochs": 3, "leaves": 16}', "data_digest": '{"test": "a", "train": "c"}'}
    several = {
        "attack": {"data_digest": '{"test": "b"}'},
        "merge": {"parameters": '{"leaves": 8}'},
        "controls": {"parameters": '{"epochs": 2}'},
    }
    for number, (changes, *reasons) in enumerate((
        (several, "attack.nc (test images)", "merge.nc (leaves)", "controls.nc (epochs)"),
        ({"controls": {"networks": "others"}}, "controls.nc (the training of the networks)"),
        ({}, "attack.nc (groups ([0, 1, 2, 3] beside [0, 1]))"),
        ({"attack": {"created": "2030"}}, "ledger.nc was not drawn from attack.nc"),
    )):  # fmt: skip
        run = few(halves / "first", tmp_path / str(number))
        change(run, "train", **train)
        for stage, attrs in changes.items():
            change(run, stage, **attrs)
        if not changes:
            shutil.copy(halves / "whole" / "results" / "attack.nc", run / "results")
        if "created" in changes.get("attack", {}):
            claims = ledger(records.read_results(run / "results"))
            attrs = ATTRS | {"parameters": '{"made_from": {"attack": "2029"}}'}
            records.write(claims, run / "results" / "ledger.nc", stage="ledger", attrs=attrs)
        assert main(["publish", str(run), str(tmp_path / "published")]) == 2
        said = capsys.readouterr().err
        assert all(reason in said for reason in reasons)
        assert not list((tmp_path / "published").glob("[!.]*"))


def test_questions_to_other_networks_do_not_stay_beside_a_run(halves, published, concluded, tmp_path):
    folder = shutil.copytree(published, tmp_path / "published")
    run = shutil.copytree(halves / "second", tmp_path / "run")
    change(run, "train", data_digest='{"test": "a"}')
    for question in set(QUESTIONS) & set(SOME):
        (run / "results" / f"{question}.nc").unlink()
        record = records.read(folder / f"{question}.nc", stage=question)
        records.write(record.assign_attrs(data_digest='{"test": "b"}'), folder / f"{question}.nc", stage=question)
    before = files_of(folder)
    with pytest.raises(ValueError, match=r"would lose the groups \[0, 1\] and controls.nc"):
        publish(run, folder)
    assert files_of(folder) == before
    publish(run, folder, replace=True)
    kept = {*STAGES, "versions", "ledger"}
    assert {path.stem for path in folder.glob("*.nc")} == kept
    assert {path.stem for path in manifest.compare(folder, "*.nc")[0]} == kept


def test_values_per_image_are_published_of_the_first_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "IMAGE_GROUPS", 2)
    found = synthetic.results(groups=4, leaves=4, stages=STAGES)
    results = {stage: data.assign_attrs(ATTRS) for stage, data in found.items()}
    write_results(results, tmp_path)
    publish(tmp_path, tmp_path / "published")
    again = records.read_results(tmp_path / "published")
    claims = records.read(tmp_path / "published" / "ledger.nc", stage="ledger")
    assert claims.verdict.values.tolist() == ledger(results).verdict.values.tolist()
    for stage, dataset in again.items():
        for name, values in dataset.data_vars.items():
            if not {"model", "image"} <= set(values.dims):
                np.testing.assert_array_equal(values, results[stage][name])
                continue
            kept = values["group"].isin(np.unique(values["group"])[:2]).values
            np.testing.assert_allclose(values[kept], results[stage][name][kept], rtol=1e-3, atol=1e-3)
            if name in ("correct", "success"):
                assert (values[~kept] == -1).all()
            elif name in ("perturbation_norm", "margin"):
                assert values[~kept].isnull().all()
    bounded = again["regularity"].local_lipschitz.notnull().all(["model", "radius"])
    assert again["regularity"].gradient_norm[:, bounded.values].notnull().all()
