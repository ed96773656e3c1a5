"""Published files, changed in copies in all the ways that must be noticed."""

import shutil
import subprocess

import pytest

from hrebasin.files import project_root
from hrebasin.study import records, resampling
from hrebasin.study.command import main
from hrebasin.study.publishing.places import places
from hrebasin.study.publishing.verify import verify_all
from hrebasin.study.records import checksums as manifest

ROOT = project_root()


@pytest.fixture
def copy(tmp_path):
    """The main setting's data sets and figures in a copy of what is published: (data, figures)."""
    for folder in ("data/published", "figures"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    main, *others = places(tmp_path)
    for place in others:
        shutil.rmtree(place.data)
    return main.data, main.figures


def rewrite(data, stage, **changes):
    """A published data set written again with other attributes or variables, and entered as if that were right."""
    record = records.read(data / f"{stage}.nc", stage=stage)
    for name, value in changes.items():
        if name in record:
            record[name][:] = value
        elif value is None:
            del record.attrs[name]
        else:
            record.attrs[name] = value
    records.write(record, data / f"{stage}.nc", stage=stage)
    manifest.enter([data / f"{stage}.nc"])


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def cut(path):
    path.write_bytes(path.read_bytes()[:200])


def replace(path, old, new):
    """Another text of the same length in a figure's metadata, entered as if that were right."""
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))
    manifest.enter([path])


# What is changed together and what must be said of each; files that cannot be read end the comparisons
CHANGES = {
    "files": (
        (lambda data, _: damage(data / "ablations.nc"), "ablations.nc is not the file that was written"),
        (lambda _, drawn: damage(drawn / "fig7_noise.pdf"), "fig7_noise.pdf is not the file"),
        (lambda _, drawn: (drawn / "fig4_lipschitz.png").unlink(), "fig4_lipschitz.png is missing"),
        (lambda _, drawn: (drawn / "fig9.png").touch(), "fig9.png is not listed in SHA256SUMS"),
        (lambda _, drawn: shutil.rmtree(drawn / "notebooks"), "notebooks/SHA256SUMS is missing"),
        (lambda data, _: (data / "attack.nc").unlink(), "attack.nc cannot be used"),
    ),
    "lists": (
        (lambda _, drawn: (drawn / "SHA256SUMS").write_text("junk"), "SHA256SUMS has a line that is no sum: 'junk'"),
        (lambda data, _: (data / "SHA256SUMS").unlink(), "SHA256SUMS is missing"),
        (lambda data, _: (data / "attack.nc").unlink(), "attack.nc cannot be used"),
    ),
    "origins and conclusions": (
        (lambda _, drawn: cut(drawn / "fig2_robust_accuracy.png"), "fig2_robust_accuracy.png cannot be read as a pic"),
        ("train", {"device": None}, "train.nc does not tell device"),
        ("merge", {"code_changed": 1}, "merge.nc was made by code that is in no"),
        ("strong", {"code_commit": "unknown"}, "strong.nc was made by code that is in"),
        ("attack", {"created": "2030-01-01T00:00:00+00:00"}, "fig7_noise.png was drawn from other data sets"),
        (
            lambda _, drawn: replace(drawn / "fig1_accuracy.pdf", b"merge.nc of setting", b"spoon.nc of setting"),
            "fig1_accuracy.pdf was drawn from other data sets",
        ),
        ("attack", {"data_digest": '{"test": "b"}'}, "attack.nc differs from train.nc in test images"),
        ("controls", {"networks": "b"}, "controls.nc differs from train.nc in the training of the networks"),
        ("ledger", {"effect": 1.0}, "ledger.nc: effect of C1, C2, C3, C4"),
        ("ledger", {"verdict": "reproduced"}, "ledger.nc: verdict of C1"),
    ),
}


def test_what_is_published_is_what_was_written(capsys):
    assert main(["verify"]) == 0
    assert "the 12 claims of the ledger" in capsys.readouterr().out


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_every_change_is_noticed_and_the_file_named(copy, changes, capsys, monkeypatch):
    monkeypatch.setattr(resampling, "RESAMPLES", 99)  # other p values add problems and take none away
    for change, *given, _ in changes:
        if isinstance(change, str):
            rewrite(copy[0], change, **given[0])
        else:
            change(*copy)
    assert main(["verify", str(copy[1].parent)]) == 1
    said = capsys.readouterr()
    for *_, message in changes:
        assert message in said.err
    assert said.out == ""


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="no sha256sum here")
def test_sha256sum_reads_the_lists_where_a_listed_file_stays_as_it_was_when_another_is_entered(copy):
    data, figures = copy
    damage(figures / "fig1_accuracy.png")
    manifest.enter([figures / "fig2_robust_accuracy.png"])
    answers = [
        subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
        for folder in (data, figures)
    ]
    assert [answer.returncode for answer in answers] == [0, 1]
    assert answers[1].stdout == "fig1_accuracy.png: FAILED\n"


def test_a_setting_without_its_ledger_and_one_under_another_name_are_noticed(copy, tmp_path):
    copy[0].rename(mine := copy[0].with_name("mine"))
    damage(mine / "attack.nc")
    (gone := mine.with_name("gone")).mkdir()
    shutil.copy(mine / manifest.NAME, gone)
    wrong = verify_all(tmp_path)[1]
    assert f"{gone / 'ledger.nc'} is missing" in wrong
    assert f"{mine / 'train.nc'} is of the setting 'augmented', not of 'mine'" in wrong
    damage(mine / "train.nc")
    assert any("train.nc" in problem for problem in verify_all(tmp_path)[1]), "and not the end of all checks"
