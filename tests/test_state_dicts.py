import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hrebasin.files import project_root
from hrebasin.images.sources import load_images
from hrebasin.random_streams import generator
from hrebasin.state_dicts import read_state_dicts
from hrebasin.study.tour.example_networks import write_example
from hrebasin.weight_files import read_weights, write_weights

SHAPE = {"image_shape": (3, 4, 4), "n_classes": 4}
pytestmark = pytest.mark.filterwarnings("ignore:read as ReLU")


def sequential(*widths, bias=True, activation=nn.ReLU):
    """A network as anybody would write it."""
    units = [48, *widths, 4]
    layers = [nn.Flatten()]
    for inputs, outputs in zip(units[:-1], units[1:], strict=True):
        layers += [nn.Linear(inputs, outputs, bias=bias), activation()]
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
    paths = written(tmp_path, networks)
    bank = read_state_dicts(paths, **SHAPE)
    assert bank.architecture.widths == widths
    assert bank.labels["seed"].tolist() == [0, 1, 2]
    for answers, network in zip(bank(pixels), networks, strict=True):
        torch.testing.assert_close(answers, network(pixels))
    assert read_state_dicts(paths).architecture.units == (48, *widths, 4), "without images the shapes are the layers"


def test_names_precisions_missing_biases_and_normalisation_do_not_matter(tmp_path, pixels):
    network, mean, std = sequential(12, 10, bias=False), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    [path] = written(tmp_path, [network.half()], rename=lambda name: f"module.net.{name}")
    columns = [torch.tensor(values).view(3, 1, 1) for values in (mean, std)]
    expected = network.float()((pixels - columns[0]) / columns[1])
    torch.testing.assert_close(read_state_dicts([path], mean=mean, std=std, **SHAPE)(pixels)[0], expected)


LINEAR = {"fc1.weight": torch.ones(5, 48), "fc2.weight": torch.ones(4, 5)}
REFUSED = [
    ({"weight": torch.ones(5, 48)}, {}, r"holds weights <layer>.weight of the layers \[\]"),
    (LINEAR, {"layers": ["fc1"]}, r"of the layers \['fc1', 'fc2'\], not of \['fc1'\]"),
    (LINEAR | {"norm.running_mean": torch.ones(5)}, {}, r"no plain MLP: it also holds \['norm.running_mean'\]"),
    (LINEAR | {"fc1.weight": torch.ones(5, 3, 4, 4)}, {}, r"fc1 has a weight of \(5, 3, 4, 4\)"),
    (LINEAR | {"fc1.bias": torch.ones(4)}, {}, r"a bias of \(4,\)"),
    (LINEAR | {"fc1.weight": torch.full((5, 48), torch.nan)}, {}, "fc1.weight holds values that are not finite"),
    (LINEAR | {"fc1.bias": torch.ones(5, dtype=torch.int64)}, {}, "fc1.bias is torch.int64, not floating point"),
    (LINEAR, {"image_shape": (1, 8, 8)}, "takes 48 inputs and gives 4 logits, but the images have 64 values"),
    (LINEAR, {"n_classes": 10}, "gives 4 logits, but the images have 48 values .* and 10 classes"),
    ({"fc1.weight": torch.ones(4, 48)}, {}, "at least one hidden layer"),
    (LINEAR, {"mean": [0.5]}, "need one value for each of 3 channels"),
]


@pytest.mark.parametrize(("tensors", "options", "message"), REFUSED)
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
    paths = written(tmp_path, [nn.Sequential(nn.Linear(n, 5), nn.ReLU(), nn.Linear(5, 4)) for n in (12, 13)])
    with pytest.raises(ValueError, match=r"1\.safetensors takes 13 inputs, but .*0\.safetensors takes 12"):
        read_state_dicts(paths)


def test_the_example_is_read_back_as_networks_that_classify_its_images(tmp_path):
    given = {"data": project_root() / "data", "n": 2, "widths": (32, 16), "epochs": 6, "n_images": 200}
    networks, folder, mean, std = write_example(tmp_path, **given)
    images = {split: load_images(str(folder), split, root=tmp_path) for split in ("train", "test")}
    original = load_images("cifar10-sample", "train", root=project_root() / "data", at_most=200)
    assert torch.equal(images["train"].pixels, original.pixels)
    assert torch.equal(images["train"].labels, original.labels)
    bank = read_state_dicts(sorted(networks.iterdir()), image_shape=(3, 32, 32), n_classes=10, mean=mean, std=std)
    assert bank.architecture.widths == (32, 16)
    right = (bank(images["train"].pixels).argmax(-1) == images["train"].labels).float().mean(1)
    assert (right > 0.2).all()


# ---- what a state dict does not tell


def asked(network, n=20):
    inputs = torch.rand(n, 3, 4, 4, generator=generator("test/reference"))
    with torch.no_grad():
        return inputs, network(inputs)


NAMED = [
    ((12, 10), ["input", "hidden", "output"], None),  # whose shapes fit in one order, which is not that of names
    ((12, 12, 12), ["fc_in", "mid_b", "mid_a", "out"], "fc_in, mid_a, mid_b, out: .* these shapes fit in other orders"),
    ((8, 6, 8, 4, 8), ["1", "2", "3", "4", "5", "6"], "1, 2, 3, 4, 5, 6: .* these shapes fit in other orders"),
    ((12, 10, 8), ["1", "2", "3", "4"], "in the order 1, 2, 3, 4: a state dict tells neither. reference="),
]


@pytest.mark.parametrize(("widths", "names", "told"), NAMED)
def test_the_order_of_layers_is_said_or_given_and_told_by_a_reference(tmp_path, widths, names, told):
    network = sequential(*widths)
    new = dict(zip(("1", "3", "5", "7", "9", "11"), names, strict=False))
    paths = written(tmp_path, [network], rename=lambda name: ".".join([new[name.split(".")[0]], name.split(".")[1]]))
    if told is None:
        with pytest.raises(ValueError, match=r"hidden gives 10 values, but input takes 48.*give it as `layers`"):
            read_state_dicts(paths, **SHAPE)
    else:
        with pytest.warns(UserWarning, match=f"read as ReLU after all but the last layer, .*{told}"):
            read_state_dicts(paths, **SHAPE)
    if names != sorted(names) and told:
        with pytest.raises(ValueError, match="another order of layers"):
            read_state_dicts(paths, reference=asked(network), **SHAPE)
    with pytest.warns(UserWarning, match=f"in the given order {', '.join(names)}: a state dict tells neither. refer"):
        read_state_dicts(paths, layers=names, **SHAPE)
    assert read_state_dicts(paths, layers=names, reference=asked(network), **SHAPE).architecture.widths == widths


def test_a_reference_that_agrees_says_nothing_and_one_for_each_network_is_checked(tmp_path, recwarn):
    networks = [sequential(12, 10) for _ in range(2)]
    paths, (inputs, logits) = written(tmp_path, networks), asked(networks[0])
    read_state_dicts(paths, reference=(inputs, logits), **SHAPE)
    assert not [warning for warning in recwarn if "read as" in str(warning.message)]
    both = torch.stack([logits, asked(networks[1])[1]])
    assert len(read_state_dicts(paths, reference=(inputs, both), **SHAPE)) == 2
    with pytest.raises(ValueError, match=r"1\.safetensors gives other logits than the reference"):
        read_state_dicts(paths, reference=(inputs, both[[0, 0]]), **SHAPE)


@pytest.mark.parametrize("activation", [nn.GELU, nn.SiLU, nn.Tanh, nn.ELU, lambda: nn.LeakyReLU(0.05)])
def test_a_reference_tells_other_activations_and_by_how_much(tmp_path, activation):
    network = sequential(12, 10, activation=activation)
    inputs, logits = asked(network)
    paths = written(tmp_path, [network])
    as_relu = read_state_dicts(paths, **SHAPE)(inputs)[0]
    difference = f"{float((as_relu - logits).abs().max()):.3g}"
    with pytest.raises(ValueError, match=rf"0\.safetensors gives other logits .* largest difference is {difference}"):
        read_state_dicts(paths, reference=(inputs, logits), **SHAPE)


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
    torch.save(sequential(5), tmp_path / "module.pt")
    torch.save({"epoch": 3, "lr": [0.1]}, tmp_path / "log.pt")
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    (tmp_path / "a.onnx").write_bytes(b"nothing")
    (tmp_path / "text.pt").write_text("no weights")
    for name, message in {
        "module.pt": "holds torch.nn.*Sequential, which only running code could make: save network.state_dict",
        "text.pt": "is damaged, or holds more than tensors",
        "log.pt": r"holds \['epoch', 'lr'\], but no state dict",
        "list.pt": "holds a list, not a state dict",
        "a.onnx": r"has the suffix '.onnx': weights are .safetensors, .pt",
    }.items():
        with pytest.raises(ValueError, match=rf"{name} {message}"):
            read_weights(tmp_path / name)
    with pytest.raises(ValueError, match=r"a.npz must end in one of .safetensors"):
        write_weights(tmp_path / "a.npz", {})


def test_a_full_disk_is_told_by_the_file(tmp_path, monkeypatch):
    def full(*_):
        raise RuntimeError("[enforce fail] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"a\.pt could not be written"):
        write_weights(tmp_path / "a.pt", {"a": torch.ones(1)})
    assert list(tmp_path.iterdir()) == []
