"""A user's folder of networks: read, named by files, merged and written as they came."""

import os
import sys

import pytest
import torch
from safetensors.torch import load_file

from hrebasin.bank import Bank
from hrebasin.evaluation import evaluate
from hrebasin.images.sources import load_images
from hrebasin.merging.files import merge_files
from hrebasin.merging.methods import merge_all
from hrebasin.networks import Normalize
from hrebasin.small_networks import convolutional
from hrebasin.study.tour.own_networks import batch_norm_pixels, read_networks
from hrebasin.weight_files import write_weights

pytestmark = pytest.mark.filterwarnings("ignore:a.pt is a checkpoint", "ignore:D.PT is a checkpoint")
FACTORY = """
from hrebasin.small_networks import convolutional

def make(n_classes=4):
    return convolutional((4, 6), n_classes=n_classes, image_shape=(3, 4, 4))
"""


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return convolutional((4, 6), n_classes=4, image_shape=(3, 4, 4)).eval()


@pytest.fixture
def folder(tmp_path):
    """Four convolutional networks as checkpoints of a parallel training, a.pt to d.pt, and their factory."""
    (tmp_path / "nets.py").write_text(FACTORY)
    for number, name in enumerate("abcd"):
        state = {f"module.{k}": v for k, v in network(number).state_dict().items()}
        torch.save({"epoch": 1, "model": state}, tmp_path / f"{name}.pt")
    (tmp_path / "notes.txt").write_text("not a network")
    return tmp_path


@pytest.mark.parametrize("mean", [(), (0.5, 0.4, 0.3)])
def test_networks_of_a_factory_answer_as_theirs_and_merged_ones_are_written_as_the_first(folder, test_images, mean):
    with pytest.warns(UserWarning, match="a.pt is a checkpoint: its 'model' is taken"):
        own = read_networks(folder, test_images, network=f"{folder}/nets.py:make", mean=mean)
    pixels = test_images.pixels.float() / 255
    expected = network(2)(Normalize(mean, (1.0,) * 3)(pixels) if mean else pixels)
    torch.testing.assert_close(own.bank(test_images.pixels)[2], expected, rtol=1e-4, atol=1e-5)
    assert own.names(own.bank) == ["a", "b", "c", "d"]
    merged = merge_all(own.bank, images=test_images.pixels)
    names = own.names(merged)
    assert names[4:7] == ["tree of a and b", "tree of c and d", "tree of a to d"]
    assert {"MergeMany of a and b", "MergeMany of a to d", "naive average of a to d"} < set(names)
    assert list(own.table(merged, evaluate(merged, test_images), test_images).index) == names
    written = own.write(merged, folder / "merged")
    assert sorted((folder / "merged").iterdir()) == sorted(written)
    assert written[2].name == "tree-of-a-to-d.pt"
    state = torch.load(written[2], weights_only=True)  # noqa: S614, TID251
    assert list(state) == [f"module.{name}" for name in network().state_dict()]
    again = read_networks(folder / "merged", test_images, network=f"{folder}/nets.py:make", mean=mean)
    place = [path.name for path in again.files].index("tree-of-a-to-d.pt")
    torch.testing.assert_close(again.bank(test_images.pixels)[place], merged(test_images.pixels)[6])


@pytest.mark.filterwarnings("ignore:read as ReLU")
def test_perceptrons_keep_names_that_are_not_the_librarys(tmp_path, trained, test_images):
    for number, each in enumerate(trained.select([0, 1, 2])):
        state = {f"net.{name}": tensor for name, tensor in each.state_dict().items()}
        write_weights(tmp_path / f"run-{number}.safetensors", state)
    look = trained.architecture
    own = read_networks(tmp_path, test_images, mean=look.mean, std=look.std)
    merged = Bank.concat([own.bank.relabel(), own.bank.select([0]).relabel(method="naive", stage=1, n_merged=3)])
    assert own.names(merged)[3:] == ["naive average of run-0 to run-2"]
    [path] = own.write(merged, tmp_path / "merged")
    assert set(load_file(path)) == set(load_file(tmp_path / "run-0.safetensors"))
    assert batch_norm_pixels(own.bank, "absent", root=tmp_path, at_most=5) is None, "nothing is read for nothing"


def test_what_cannot_be_read_is_named(folder, test_images, monkeypatch):
    (folder / "empty").mkdir()
    monkeypatch.chdir(folder)
    made = f"{folder}/nets.py:make"
    for name, given, message in (
        ("misspelt", {"network": made}, rf"there is no folder {folder}/misspelt"),
        ("a.pt", {"network": made}, rf"{folder}/a.pt is a file: give the folder"),
        ("empty", {"network": made}, "empty holds no network"),
        (folder, {}, "a.pt is no MLP"),
        (folder, {"network": f"{made}(n_classes=5)"}, r"a.pt: 'classifier.weight' has shape \(4, 6\), but the"),
        (folder, {"network": made, "layers": ["a"]}, "layers and reference are for perceptrons"),
    ):  # fmt: skip
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            read_networks(name, test_images, **given)
    with pytest.raises(ValueError, match=rf"unknown image source 'misspelt'.*looked for {folder}/misspelt"):
        load_images("misspelt", "test")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all names are text")
def test_a_name_that_is_no_text_is_refused_by_name(folder, test_images):
    torch.save({}, bad := folder / os.fsdecode(b"b\xe4r.pt"))
    with pytest.raises(ValueError, match=r"b\\udce4r\.pt' is not valid text in UTF-8: rename it"):
        read_networks(folder, test_images, network=f"{folder}/nets.py:make")
    for paths, output in (([folder / "a.pt", bad], folder / "o.pt"), ([folder / "a.pt"], bad)):
        with pytest.raises(ValueError, match="is not valid text in UTF-8: rename it"):
            merge_files(paths, output)


def test_hidden_files_are_left_out_and_endings_may_be_capitals(folder, test_images, monkeypatch):
    (folder / "._0000.safetensors").write_bytes(b"\0\5\26\7")
    (folder / "d.pt").rename(folder / "D.PT")
    monkeypatch.setenv("HOME", str(folder.parent))
    own = read_networks(f"~/{folder.name}", test_images, network=f"{folder}/nets.py:make")
    assert [file.name for file in own.files] == ["D.PT", "a.pt", "b.pt", "c.pt"]
