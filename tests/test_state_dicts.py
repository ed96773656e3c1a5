import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hrebasin.files import project_root
from hrebasin.images.sources import load_images
from hrebasin.state_dicts import read_state_dicts
from hrebasin.study.tour.example_networks import write_example

SHAPE = {"image_shape": (3, 4, 4), "n_classes": 4}


def sequential(*widths, bias=True):
    """A network as anybody would write it."""
    units = [48, *widths, 4]
    layers = [nn.Flatten()]
    for inputs, outputs in zip(units[:-1], units[1:], strict=True):
        layers += [nn.Linear(inputs, outputs, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def written(folder, networks, rename=lambda name: name):
    paths = []
    for number, network in enumerate(networks):
        path = folder / f"{number}.safetensors"
        save_file({rename(name): tensor for name, tensor in network.state_dict().items()}, path)
        paths.append(path)
    return paths


@pytest.mark.parametrize("widths", [(5,), (12, 10, 8), (6,) * 11])
def test_networks_of_any_width_and_depth_answer_as_before(tmp_path, pixels, widths):
    networks = [sequential(*widths) for _ in range(3)]
    bank = read_state_dicts(written(tmp_path, networks), **SHAPE)
    assert bank.architecture.widths == widths
    assert bank.labels["seed"].tolist() == [0, 1, 2]
    for answers, network in zip(bank(pixels), networks, strict=True):
        torch.testing.assert_close(answers, network(pixels))


def test_names_precisions_and_missing_biases_do_not_matter(tmp_path, pixels):
    network = sequential(12, 10, bias=False)
    [path] = written(tmp_path, [network.half()], rename=lambda name: f"module.net.{name}")
    bank = read_state_dicts([path], **SHAPE)
    torch.testing.assert_close(bank(pixels)[0], network.float()(pixels))


def test_normalisation_before_the_first_layer_becomes_part_of_the_network(tmp_path, pixels):
    network, mean, std = sequential(12), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    bank = read_state_dicts(written(tmp_path, [network]), mean=mean, std=std, **SHAPE)
    columns = [torch.tensor(values).view(3, 1, 1) for values in (mean, std)]
    torch.testing.assert_close(bank(pixels)[0], network((pixels - columns[0]) / columns[1]))


def test_layers_whose_names_do_not_tell_their_order_can_be_named(tmp_path, pixels):
    network, names = sequential(12, 10), {"1": "input", "3": "hidden", "5": "output"}
    paths = written(tmp_path, [network], rename=lambda name: f"{names[name[0]]}.{name[2:]}")
    with pytest.raises(ValueError, match=r"hidden gives 10 values, but input takes 48.*give it as `layers`"):
        read_state_dicts(paths, **SHAPE)
    bank = read_state_dicts(paths, layers=["input", "hidden", "output"], **SHAPE)
    torch.testing.assert_close(bank(pixels)[0], network(pixels))


LINEAR = {"fc1.weight": torch.ones(5, 48), "fc2.weight": torch.ones(4, 5)}


@pytest.mark.parametrize(
    ("tensors", "options", "message"),
    [
        ({}, {}, "holds weights <layer>.weight of the layers \\[\\]"),
        ({"weight": torch.ones(5, 48)}, {}, "of the layers \\[\\]"),
        (LINEAR, {"layers": ["fc1"]}, "of the layers \\['fc1', 'fc2'\\], not of \\['fc1'\\]"),
        (LINEAR | {"norm.running_mean": torch.ones(5)}, {}, "no plain MLP: it also holds \\['norm.running_mean'\\]"),
        (LINEAR | {"fc1.weight": torch.ones(5, 3, 4, 4)}, {}, "fc1 has a weight of \\(5, 3, 4, 4\\)"),
        (LINEAR | {"fc1.bias": torch.ones(4)}, {}, "a bias of \\(4,\\)"),
        (LINEAR | {"fc1.weight": torch.full((5, 48), torch.nan)}, {}, "fc1.weight holds values that are not finite"),
        (LINEAR | {"fc1.bias": torch.ones(5, dtype=torch.int64)}, {}, "fc1.bias is torch.int64, not floating point"),
        (LINEAR, {"image_shape": (1, 8, 8)}, "takes 48 inputs and gives 4 logits, but the images have 64 values"),
        (LINEAR, {"n_classes": 10}, "gives 4 logits, but the images have 48 values .* and 10 classes"),
        ({"fc1.weight": torch.ones(4, 48)}, {}, "at least one hidden layer"),
        (LINEAR, {"mean": [0.5]}, "need one value for each of 3 channels"),
    ],
)
def test_files_that_hold_something_else_are_refused(tmp_path, tensors, options, message):
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=message):
        read_state_dicts([tmp_path / "a.safetensors"], **SHAPE | options)


def test_missing_damaged_and_unlike_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="no file of a network"):
        read_state_dicts([], **SHAPE)
    with pytest.raises(FileNotFoundError, match=r"no network at .*absent\.safetensors"):
        read_state_dicts([tmp_path / "absent.safetensors"], **SHAPE)
    (tmp_path / "damaged.safetensors").write_bytes(b"no safetensors at all")
    with pytest.raises(ValueError, match=r"damaged\.safetensors is not a readable safetensors file"):
        read_state_dicts([tmp_path / "damaged.safetensors"], **SHAPE)
    paths = written(tmp_path, [sequential(5), sequential(6)])
    with pytest.raises(ValueError, match=r"1\.safetensors has layers of \(6, 4\) units, .*0\.safetensors of \(5, 4\)"):
        read_state_dicts(paths, **SHAPE)


def test_the_example_is_read_back_as_networks_that_classify_its_images(tmp_path):
    networks, folder, mean, std = write_example(
        tmp_path, data=project_root() / "data", n=2, widths=(32, 16), epochs=8, n_images=400
    )
    images = {split: load_images(str(folder), split, root=tmp_path) for split in ("train", "test")}
    assert {split: len(part) for split, part in images.items()} == {"train": 400, "test": 100}
    original = load_images("cifar10-sample", "train", root=project_root() / "data", at_most=400)
    assert torch.equal(images["train"].pixels, original.pixels)
    assert torch.equal(images["train"].labels, original.labels)
    bank = read_state_dicts(sorted(networks.iterdir()), image_shape=(3, 32, 32), n_classes=10, mean=mean, std=std)
    assert bank.architecture.widths == (32, 16)
    right = (bank(images["train"].pixels).argmax(-1) == images["train"].labels).float().mean(1)
    assert (right > 0.2).all()
