"""What was lost, taken or waited for without a word before: refused now, and everything stays as it was."""

import os
import struct
import tarfile

import pytest
import torch

import hrebasin
from hrebasin.files import project_root
from hrebasin.images.folders import decode, images_in
from hrebasin.images.sources import load_images
from hrebasin.state_names import loaded
from hrebasin.study import records
from hrebasin.study.publishing.publish import publish
from hrebasin.study.running import workflow
from hrebasin.study.running.notebook_runner import run_notebook
from hrebasin.study.running.plan import Plan
from hrebasin.study.settings import load_setting
from hrebasin.weight_files import read_weights, write_weights

ROOT = project_root()


@pytest.mark.parametrize(
    ("values", "options", "reason"),
    [
        ({"device": "cuda"}, {}, "device 'cuda' is not there"),
        ({"dataset": "folder"}, {}, "dataset is a folder without test"),
        ({}, {"cores": "0"}, "cores must be a positive number or all, got '0'"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_a_run_that_cannot_be_is_refused_before_snakemake_removes_results(
    values, options, reason, tmp_path, monkeypatch
):
    (tmp_path / "folder" / "train").mkdir(parents=True)
    monkeypatch.setattr(workflow, "_snakemake", lambda _: pytest.fail("it was started"))
    values = {name: str(tmp_path / value) if name == "dataset" else value for name, value in values.items()}
    with pytest.raises(ValueError, match=reason):
        workflow.run({"setting": "tiny", **values}, **options)


def test_a_notebook_is_not_its_own_copy(tmp_path):
    path = tmp_path / "a.ipynb"
    path.write_bytes((ROOT / "notebooks" / "01_train.ipynb").read_bytes())
    with pytest.raises(ValueError, match="a.ipynb is the notebook itself"):
        run_notebook(path, tmp_path / "folder" / ".." / "a.ipynb", {})


def test_a_run_is_not_published_into_itself(tmp_path):
    for folder in (tmp_path, tmp_path / "results"):
        with pytest.raises(ValueError, match="lies in the run itself"):
            publish(tmp_path, folder)


@pytest.mark.parametrize(("text", "reason"), [("epochs: 8\nepochs: 3", "keys stand twice"), ("[" * 3000, "YAML")])
def test_a_setting_that_cannot_be_read_is_named(text, reason, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"mine\.yaml is not valid YAML: .*{reason}" if reason != "YAML" else reason):
        load_setting(tmp_path / "mine.yaml")


def test_a_folder_beside_does_not_hide_images_of_that_name(tmp_path, monkeypatch):
    (tmp_path / "cifar10").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_setting(ROOT / "config" / "plain.yaml", dataset="cifar10").dataset == "cifar10"


def test_an_archive_that_ends_between_two_images_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for name in ("train/a/1.png", "train/a/2.png"):
            file.addfile(tarfile.TarInfo(name))
    (tmp_path / "cut.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:512])
    with pytest.raises(ValueError, match=r"cut\.tar cannot be unpacked: it ends before its end"):
        load_images(str(tmp_path / "cut.tar"), "train", root=tmp_path / "data")


def test_planes_of_16_bits_are_refused(tmp_path):
    planes, start = b"".join(struct.pack("<4H", *range(k, k + 4)) for k in (0, 300, 600)), 8
    bits, offsets, counts = (start + len(planes) + 12 * k for k in range(3))
    tables = struct.pack("<3H", 16, 16, 16).ljust(12) + struct.pack("<3I", 8, 16, 24) + struct.pack("<3I", 8, 8, 8)
    entries = [(256, 3, 1, 2), (257, 3, 1, 2), (258, 3, 3, bits), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 3, offsets)]
    entries += [(277, 3, 1, 3), (278, 3, 1, 2), (279, 4, 3, counts), (284, 3, 1, 2)]
    fields = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    head = struct.pack("<2sHI", b"II", 42, start + len(planes) + len(tables))
    (tmp_path / "a.tif").write_bytes(head + planes + tables + fields)
    with pytest.raises(ValueError, match=r"a\.tif has mode RGB of more than 8 bits"):
        decode([tmp_path / "a.tif"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_among_images_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "9.png")
    with pytest.raises(ValueError, match=r"9\.png is neither a file nor a link to one"):
        images_in(tmp_path)


def test_weights_that_stand_twice_or_are_no_dense_tensors_are_refused(tmp_path):
    network = torch.nn.Linear(2, 2)
    twice = network.state_dict() | {f"module.{name}": value for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match="'weight' twice"):
        loaded(network, twice, "a.pt")
    for name, value in ((1, torch.ones(2)), ("a", torch.ones(2).to_sparse())):
        torch.save({name: value}, tmp_path / "odd.pt")
        with pytest.raises(ValueError, match=r"odd\.pt.* (no text|no dense tensor)"):
            read_weights(tmp_path / "odd.pt")


@pytest.mark.parametrize("images", [torch.zeros(4, 3, dtype=torch.int64), torch.zeros(0, 3)])
def test_images_are_some_bytes_or_floats(images):
    networks = [torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)) for _ in range(2)]
    with pytest.raises(ValueError, match="images must be some, uint8 or floats"):
        hrebasin.merge(networks, torch.zeros(2, 3), images=images)


@pytest.mark.parametrize("reference", [torch.zeros(2, 3), (torch.zeros(2, 3),), (torch.zeros(0, 3), torch.zeros(0, 2))])
def test_a_reference_is_a_pair(reference):
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    with pytest.raises(ValueError, match="reference must be two real tensors"):
        hrebasin.merge_state_dicts(network, [network.state_dict()] * 2, torch.zeros(2, 3), reference=reference)


def test_a_full_disk_is_told_by_the_file(tmp_path, monkeypatch):
    def full(*_):
        raise RuntimeError("[enforce fail] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"a\.pt could not be written"):
        write_weights(tmp_path / "a.pt", {"a": torch.ones(1)})
    assert list(tmp_path.iterdir()) == []


def test_a_hook_of_git_does_not_change_the_commit(monkeypatch):
    before = records.Clock().commit
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert records.Clock().commit == before


@pytest.mark.filterwarnings("ignore:The specified file")
def test_a_file_that_is_no_notebook_is_named(tmp_path):
    (tmp_path / "a.md").write_text("# A title")
    with pytest.raises(ValueError, match=r"a\.md is no notebook"):
        run_notebook(tmp_path / "a.md", tmp_path / "out.ipynb", {})


def test_braces_in_the_place_of_python_are_none_of_snakemake_s(monkeypatch):
    monkeypatch.setattr("sys.executable", "/a {x}/python")
    assert "exec '/a {{x}}/python' -m" in Plan.from_config({"setting": "tiny"}).shell("01_train")
