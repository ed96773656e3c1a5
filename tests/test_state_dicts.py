import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hrebasin.files import project_root
from hrebasin.images.sources import load_images
from hrebasin.random_streams import generator
from hrebasin.state_dicts import _fit_otherwise, read_state_dicts
from hrebasin.study.tour.example_networks import write_example
from hrebasin.weight_files import read_weights, write_weights

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
        tmp_path, data=project_root() / "data", n=2, widths=(32, 16), epochs=6, n_images=200
    )
    images = {split: load_images(str(folder), split, root=tmp_path) for split in ("train", "test")}
    assert {split: len(part) for split, part in images.items()} == {"train": 200, "test": 50}
    original = load_images("cifar10-sample", "train", root=project_root() / "data", at_most=200)
    assert torch.equal(images["train"].pixels, original.pixels)
    assert torch.equal(images["train"].labels, original.labels)
    bank = read_state_dicts(sorted(networks.iterdir()), image_shape=(3, 32, 32), n_classes=10, mean=mean, std=std)
    assert bank.architecture.widths == (32, 16)
    right = (bank(images["train"].pixels).argmax(-1) == images["train"].labels).float().mean(1)
    assert (right > 0.2).all()


# ---- what a state dict does not tell

pytestmark = pytest.mark.filterwarnings("ignore:read as ReLU")


def asked(network, n=20):
    inputs = torch.rand(n, 3, 4, 4, generator=generator("test/reference"))
    with torch.no_grad():
        return inputs, network(inputs)


def test_what_is_assumed_is_said_with_the_order(tmp_path):
    paths = written(tmp_path, [sequential(12, 10)])
    with pytest.warns(UserWarning, match=r"read as ReLU after all but the last layer, in the order 1, 3, 5: a state"):
        read_state_dicts(paths, **SHAPE)
    with pytest.warns(
        UserWarning, match=r"in the order 1, 3, 5, 7: a state dict tells neither, and these shapes fit in"
    ):
        read_state_dicts(written(tmp_path, [sequential(12, 12, 12)]), **SHAPE)
    with pytest.warns(UserWarning, match=r"in the given order 1, 3, 5, 7: a state dict tells neither. reference="):
        read_state_dicts(paths, layers=["1", "3", "5", "7"], **SHAPE)


def test_shapes_that_fit_in_other_orders_are_found():
    assert not _fit_otherwise([(12, 48), (10, 12), (4, 10)])
    assert _fit_otherwise([(12, 48), (12, 12), (12, 12), (4, 12)])
    assert _fit_otherwise([(6, 8), (8, 6), (4, 8), (8, 4), (2, 8)]), "8-6-8-4-8-2 is also 8-4-8-6-8-2"
    assert not _fit_otherwise([(6, 8), (8, 6), (2, 8)])


def test_a_reference_that_agrees_says_nothing(tmp_path, recwarn):
    networks = [sequential(12, 10) for _ in range(2)]
    paths, (inputs, logits) = written(tmp_path, networks), asked(networks[0])
    bank = read_state_dicts(paths, reference=(inputs, logits), **SHAPE)
    assert not [warning for warning in recwarn if "read as" in str(warning.message)]
    both = torch.stack([logits, asked(networks[1])[1]])
    assert len(read_state_dicts(paths, reference=(inputs, both), **SHAPE)) == len(bank) == 2
    with pytest.raises(ValueError, match=r"1\.safetensors gives other logits than the reference"):
        read_state_dicts(paths, reference=(inputs, both[[0, 0]]), **SHAPE)


@pytest.mark.parametrize("activation", [nn.GELU, nn.SiLU, nn.Tanh, nn.ELU, lambda: nn.LeakyReLU(0.05)])
def test_a_reference_tells_other_activations_and_by_how_much(tmp_path, activation):
    network = sequential(12, 10)
    network[2], network[4] = activation(), activation()
    inputs, logits = asked(network)
    paths = written(tmp_path, [network])
    as_relu = read_state_dicts(paths, **SHAPE)(inputs)[0]
    difference = f"{float((as_relu - logits).abs().max()):.3g}"
    with pytest.raises(ValueError, match=rf"0\.safetensors gives other logits .* largest difference is {difference}"):
        read_state_dicts(paths, reference=(inputs, logits), **SHAPE)


def test_a_reference_tells_layers_whose_names_sort_wrongly(tmp_path):
    network, names = sequential(12, 12, 12), {"1": "fc_in", "3": "mid_b", "5": "mid_a", "7": "out"}
    paths = written(tmp_path, [network], rename=lambda name: f"{names[name[0]]}.{name[2:]}")
    with pytest.warns(UserWarning, match="in the order fc_in, mid_a, mid_b, out: .* these shapes fit in other orders"):
        read_state_dicts(paths, **SHAPE)
    with pytest.raises(ValueError, match="another order of layers"):
        read_state_dicts(paths, reference=asked(network), **SHAPE)
    bank = read_state_dicts(paths, layers=list(names.values()), reference=asked(network), **SHAPE)
    assert bank.architecture.widths == (12, 12, 12)


def test_without_images_the_shapes_are_the_layers(tmp_path):
    network = sequential(12, 10)
    architecture = read_state_dicts(written(tmp_path, [network])).architecture
    assert (architecture.units, architecture.image_shape) == ((48, 12, 10, 4), (1, 1, 48))


# ---- files of all types


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_weights_are_read_back_as_they_were_written(tmp_path, suffix):
    state = sequential(12).state_dict() | {"count": torch.tensor(3), "half": torch.ones(2).half()}
    state |= {"tied": state["1.weight"], "turned": torch.rand(3, 4).T}
    write_weights(tmp_path / f"a{suffix}", state)
    found, key = read_weights(tmp_path / f"a{suffix}")
    assert key == ""
    assert set(found) == set(state)
    assert all(torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in state.items())
    assert [file.name for file in tmp_path.iterdir()] == [f"a{suffix}"]


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net"])
def test_checkpoints_are_recognised_and_said(tmp_path, key):
    network = sequential(12)
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}, key: network.state_dict()}, tmp_path / "a.pt")
    found, said = read_weights(tmp_path / "a.pt")
    assert (said, list(found)) == (key, list(network.state_dict()))
    with pytest.warns(UserWarning, match=f"from what lies under '{key}'"):
        read_state_dicts([tmp_path / "a.pt"], **SHAPE)


def test_files_of_other_things_are_refused(tmp_path):
    exploded = tmp_path / "exploded"

    class Bomb:
        def __reduce__(self):
            return exploded.mkdir, ()

    torch.save({"fc1.weight": Bomb()}, tmp_path / "bomb.pt")
    torch.save(sequential(5), tmp_path / "module.pt")
    torch.save({"epoch": 3, "lr": [0.1]}, tmp_path / "log.pt")
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    (tmp_path / "damaged.pth").write_bytes(b"nothing")
    (tmp_path / "a.onnx").write_bytes(b"nothing")
    for name, message in {
        "bomb.pt": "cannot be read as tensors alone, without running what is in it .*save network.state_dict",
        "module.pt": "cannot be read as tensors alone",
        "damaged.pth": "cannot be read as tensors alone",
        "log.pt": r"holds \['epoch', 'lr'\], but no state dict",
        "list.pt": "holds a list, not a state dict",
        "a.onnx": r"has the suffix '.onnx': weights are .safetensors, .pt",
    }.items():
        with pytest.raises(ValueError, match=rf"{name} {message}"):
            read_weights(tmp_path / name)
    assert not exploded.exists()
    with pytest.raises(ValueError, match=r"a.npz must end in one of .safetensors"):
        write_weights(tmp_path / "a.npz", {})
