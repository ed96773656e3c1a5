"""A user's folder of networks: read, named by files, merged and written as they came."""

import os
import sys

import pytest
import torch
from safetensors.torch import load_file

from hrebasin.bank import Bank
from hrebasin.convolutional import convolutional
from hrebasin.evaluation import evaluate
from hrebasin.images.sources import load_images
from hrebasin.merging.files import merge_files
from hrebasin.merging.methods import merge_all
from hrebasin.networks import Normalize
from hrebasin.study.tour.own_networks import batch_norm_pixels, read_networks
from hrebasin.weight_files import write_weights

FACTORY = """
from hrebasin.convolutional import convolutional

def make(n_classes=4):
    return convolutional((4, 6), n_classes=n_classes, image_shape=(3, 4, 4))
"""


@pytest.fixture
def folder(tmp_path):
    """Four convolutional networks as checkpoints of a parallel training, a.pt to d.pt, and their factory."""
    (tmp_path / "nets.py").write_text(FACTORY)
    for number, name in enumerate("abcd"):
        with torch.random.fork_rng():
            torch.manual_seed(number)
            state = convolutional((4, 6), n_classes=4, image_shape=(3, 4, 4)).state_dict()
        torch.save({"epoch": 1, "model": {f"module.{k}": v for k, v in state.items()}}, tmp_path / f"{name}.pt")
    (tmp_path / "notes.txt").write_text("not a network")
    return tmp_path


@pytest.mark.parametrize("mean", [(), (0.5, 0.4, 0.3)])
def test_networks_of_a_factory_answer_as_theirs(folder, test_images, mean):
    with pytest.warns(UserWarning, match="a.pt is a checkpoint: its 'model' is taken"):
        own = read_networks(folder, test_images, network=f"{folder}/nets.py:make", mean=mean)
    network = convolutional((4, 6), n_classes=4, image_shape=(3, 4, 4)).eval()
    state = torch.load(folder / "c.pt", weights_only=True)["model"]  # noqa: S614, TID251
    network.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()})
    pixels = test_images.pixels.float() / 255
    expected = network(Normalize(mean, (1.0,) * 3)(pixels) if mean else pixels)
    torch.testing.assert_close(own.bank(test_images.pixels)[2], expected, rtol=1e-4, atol=1e-5)
    assert own.names(own.bank) == ["a", "b", "c", "d"]
    assert own.bank.labels["seed"].tolist() == [0, 1, 2, 3]


@pytest.mark.filterwarnings("ignore:a.pt is a checkpoint")
@pytest.mark.parametrize("mean", [(), (0.5, 0.4, 0.3)])
def test_merged_networks_are_named_and_written_as_the_first(folder, test_images, mean):
    own = read_networks(folder, test_images, network=f"{folder}/nets.py:make", mean=mean)
    merged = merge_all(own.bank, pixels=test_images.pixels)
    names = own.names(merged)
    assert names[4:7] == ["tree of a and b", "tree of c and d", "tree of a to d"]
    assert {"MergeMany of a and b", "MergeMany of a to d", "naive average of a to d"} < set(names)
    table = own.table(merged, evaluate(merged, test_images), test_images)
    assert list(table.index) == names
    assert list(table.columns) == ["accuracy on 60 images (%)", "mean cross-entropy (nat)"]
    written = own.write(merged, folder / "merged")
    assert sorted(path.name for path in (folder / "merged").iterdir()) == sorted(path.name for path in written)
    assert written[2].name == "tree-of-a-to-d.pt"
    state = torch.load(written[2], weights_only=True)  # noqa: S614, TID251
    assert list(state) == list(torch.load(folder / "a.pt", weights_only=True)["model"])  # noqa: S614, TID251
    again = read_networks(folder / "merged", test_images, network=f"{folder}/nets.py:make", mean=mean)
    assert [path.name for path in again.files] == sorted(path.name for path in written)
    place = [path.name for path in again.files].index("tree-of-a-to-d.pt")
    torch.testing.assert_close(again.bank(test_images.pixels)[place], merged(test_images.pixels)[6])


@pytest.mark.filterwarnings("ignore:read as ReLU")
def test_perceptrons_keep_names_that_are_not_the_librarys(tmp_path, trained, test_images):
    for number, network in enumerate(trained.select([0, 1, 2])):
        state = {f"net.{name}": tensor for name, tensor in network.state_dict().items()}
        write_weights(tmp_path / f"run-{number}.safetensors", state)
    look = trained.architecture
    own = read_networks(tmp_path, test_images, mean=look.mean, std=look.std)
    merged = Bank.concat([own.bank.relabel(), own.bank.select([0]).relabel(method="naive", stage=1, n_merged=3)])
    assert own.names(merged)[3:] == ["naive average of run-0 to run-2"]
    [path] = own.write(merged, tmp_path / "merged")
    assert set(load_file(path)) == set(load_file(tmp_path / "run-0.safetensors"))
    assert batch_norm_pixels(own.bank, "absent", root=tmp_path, at_most=5) is None, "nothing is read for nothing"


@pytest.mark.filterwarnings("ignore:a.pt is a checkpoint")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"folder": "absent"}, "there is no folder"),
        ({"folder": "empty"}, "empty holds no network"),
        ({"network": ""}, "a.pt is no MLP"),
        (
            {"network": "make(n_classes=5)"},
            r"a.pt: 'classifier.weight' has shape \(4, 6\), but the network's has \(5, 6\)",
        ),
        ({"layers": ["a"]}, "layers and reference are for perceptrons"),
    ],
)
def test_what_cannot_be_read_is_named(folder, test_images, change, message):
    (folder / "empty").mkdir()
    given = {"folder": "", "network": "make"} | change
    given["network"] = given["network"] and f"{folder}/nets.py:{given['network']}"
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_networks(folder / given.pop("folder"), test_images, **given)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all names are text")
def test_a_name_that_is_no_text_is_refused_by_name(folder, test_images):
    torch.save({}, bad := folder / os.fsdecode(b"b\xe4r.pt"))
    with pytest.raises(ValueError, match=r"b\\udce4r\.pt' is not valid text in UTF-8: rename it"):
        read_networks(folder, test_images, network=f"{folder}/nets.py:make")
    for paths, output in (([folder / "a.pt", bad], folder / "o.pt"), ([folder / "a.pt"], bad)):
        with pytest.raises(ValueError, match="is not valid text in UTF-8: rename it"):
            merge_files(paths, output)


def test_a_folder_is_told_from_files_and_hidden_files_are_left_out(folder, test_images, monkeypatch):
    (folder / "._0000.safetensors").write_bytes(b"\0\5\26\7")
    (folder / "d.pt").rename(folder / "D.PT")
    monkeypatch.setenv("HOME", str(folder.parent))
    with pytest.warns(UserWarning, match="is a checkpoint"):
        own = read_networks(f"~/{folder.name}", test_images, network=f"{folder}/nets.py:make")
    assert [file.name for file in own.files] == ["D.PT", "a.pt", "b.pt", "c.pt"]
    monkeypatch.chdir(folder)
    with pytest.raises(FileNotFoundError, match=rf"there is no folder {folder}/misspelt"):
        read_networks("misspelt", test_images)
    with pytest.raises(ValueError, match=rf"{folder}/a.pt is a file: give the folder"):
        read_networks("a.pt", test_images)
    with pytest.raises(ValueError, match=rf"unknown image source 'misspelt'.*looked for {folder}/misspelt"):
        load_images("misspelt", "test")
