"""`hrebasin merge` and `hrebasin symmetry`, with the core installed alone."""

import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from hrebasin.factories import build_network, example_inputs
from hrebasin.images.sources import load_images
from hrebasin.merging.files import merge_files
from hrebasin.merging.merge import merge
from hrebasin.networks import Normalize
from hrebasin.random_streams import generator
from hrebasin.study.command import main

# Python in which packages of the study's alone cannot be imported; those that others bring along are left out
STUDY = ("IPython", "ipykernel", "ipywidgets", "jupyterlab", "matplotlib", "nbformat", "papermill", "pydantic")
STUDY += ("snakemake", "traitlets", "yaml")
ALONE = """
import importlib, pkgutil, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if (root := name.partition(".")[0]) in {study}:
            raise ModuleNotFoundError(f"no {{root}}", name=root)

sys.meta_path.insert(0, Refuse())
import hrebasin
from hrebasin.study.command import main
assert len([getattr(hrebasin, name) for name in hrebasin.__all__]) > 20
for module in pkgutil.walk_packages(hrebasin.__path__, "hrebasin."):
    if not module.name.startswith("hrebasin.study"):
        importlib.import_module(module.name)
print([main(arguments) for arguments in {commands}])
"""
FACTORY = """
from torch import nn

def conv(width=6):
    layers = [nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(width, 4))
"""


def perceptron(seed, *, activation=nn.ReLU):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(12, 8), activation(), nn.Linear(8, 6), activation(), nn.Linear(6, 3))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two perceptrons, a.safetensors and b.pt, a factory nets.py, and its networks conv-0.pth and conv-1.pth."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(FACTORY)
    save_file(perceptron(0).state_dict(), "a.safetensors")
    torch.save({"epoch": 9, "state_dict": perceptron(1).state_dict()}, "b.pt")
    for number in range(2):
        state = build_network("nets.py:conv").state_dict()
        torch.save({f"module.{name}": tensor for name, tensor in state.items()}, f"conv-{number}.pth")
    return tmp_path


def test_the_method_and_its_commands_need_nothing_of_the_study(folder):
    merging = ["merge", "a.safetensors", "b.pt", "--method", "tree", "--output", "merged.safetensors"]
    asking = ["symmetry", "--network", "nets.py:conv(width=5)", "--example", "3,8,8"]
    code = ALONE.format(study=STUDY, commands=[merging, asking, ["verify"]])
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stderr == "error: hrebasin verify needs the package matplotlib: install hrebasin[study]\n"
    assert "read as ReLU after all but the last layer, in the order 0, 2, 4: a state dict tells neither" in ended.stdout
    assert "2 networks merged by tree into merged.safetensors, names as in a.safetensors" in ended.stdout
    assert "1 permutation: P1 (5)\n" in ended.stdout
    assert "proven: with every permutation drawn at random, the outputs change by" in ended.stdout
    assert ended.stdout.endswith("[0, 0, 2]\n")
    expected = merge([perceptron(0), perceptron(1)], torch.rand(2, 12)).state_dict()
    found = load_file("merged.safetensors")
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)


def write_images(folder, side):
    for number in range(24):
        path = folder / "images" / ("train", "test")[number % 2] / f"class-{number % 4 // 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(0, 256, (side, side, 3), generator=generator(f"test/{number}"), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(path)


@pytest.mark.parametrize("kind", ["perceptrons", "others"])
def test_images_with_their_classes_reach_what_needs_them(folder, kind):
    write_images(folder, 2 if kind == "perceptrons" else 8)
    conv = ["conv-0.pth", "conv-1.pth", "--network=nets.py:conv"]
    files = ["a.safetensors", "b.pt"] if kind == "perceptrons" else conv
    given = ["--images", "images", "--mean", "0.5,0.4,0.3", "--std", "0.2,0.2,0.3", "--output", "merged.safetensors"]

    def merged(*options):
        assert main(["merge", *files, *options, *given]) == 0
        return torch.cat([tensor.flatten() for tensor in load_file("merged.safetensors").values()])

    plain = {name: merged(f"--method={name}") for name in ("tree", "merge-many", "activations", "straight-through")}
    for name, weights in plain.items():
        assert name == "tree" or not torch.equal(weights, plain["tree"])
        assert not torch.equal(weights, merged(f"--method={name}", "--repair"))
    if kind == "perceptrons":
        assert not torch.equal(merged("--method=ot-fusion"), merged("--method=ot-fusion", "--repair"))


def test_other_networks_are_merged_as_in_python(folder, capsys):
    write_images(folder, 8)
    files = ["conv-0.pth", "conv-1.pth", "--network", "nets.py:conv", "--output", "merged.pt"]
    assert main(["merge", *files, "--images", "images", "--mean", "0.5,0.4,0.3", "--std", "0.2,0.2,0.3"]) == 0
    assert capsys.readouterr().out == "2 networks merged by tree into merged.pt, names as in conv-0.pth\n"
    networks = []
    for number in range(2):
        state = torch.load(f"conv-{number}.pth", weights_only=True)  # noqa: S614, TID251
        networks.append(build_network("nets.py:conv"))
        networks[-1].load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()})

    images = load_images("images", "train", root=folder)
    inputs = Normalize((0.5, 0.4, 0.3), (0.2, 0.2, 0.3))(images.pixels.float() / 255)
    expected = merge(networks, images=inputs).state_dict()
    found = torch.load("merged.pt", weights_only=True)  # noqa: S614, TID251
    assert list(found) == [f"module.{name}" for name in expected]
    for name, tensor in expected.items():
        torch.testing.assert_close(found[f"module.{name}"], tensor)
    assert main(["merge", *files, "--example", "3,8,8"]) == 0
    assert "most of its accuracy: give training images by --images" in capsys.readouterr().out


def test_names_precision_and_missing_biases_stay(folder):
    without = [nn.Sequential(nn.Linear(12, 8, bias=False), nn.ReLU(), nn.Linear(8, 3)) for _ in range(2)]
    for name, network in zip("cd", without, strict=True):
        torch.save({f"_orig_mod.{key}": value.half() for key, value in network.state_dict().items()}, f"{name}.pt")
    merge_files(["c.pt", "d.pt"], "e.pt", method="naive")
    found = torch.load("e.pt", weights_only=True)  # noqa: S614, TID251
    assert list(found) == ["_orig_mod.0.weight", "_orig_mod.2.weight", "_orig_mod.2.bias"]
    assert {tensor.dtype for tensor in found.values()} == {torch.float16}
    mean = (without[0].half()[2].weight + without[1].half()[2].weight) / 2
    torch.testing.assert_close(found["_orig_mod.2.weight"], mean.detach(), rtol=1e-2, atol=1e-3)


def test_perceptrons_of_different_widths_are_fused(folder, capsys):
    pytest.importorskip("ot")
    wide = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():  # every unit of the first hidden layer twice
        for name, own in wide.named_parameters():
            if name != "2.weight":
                own.copy_(torch.cat([perceptron(0).state_dict()[name]] * (2 if len(own) == 16 else 1)))
        wide[2].weight.copy_(perceptron(0)[2].weight.repeat(1, 2))
    save_file(wide.state_dict(), "wide.safetensors")
    files = ["merge", "a.safetensors", "wide.safetensors", "--output", "merged.safetensors"]
    assert main([*files, "--method", "ot-fusion"]) == 0
    for name, tensor in load_file("merged.safetensors").items():
        torch.testing.assert_close(tensor, load_file("a.safetensors")[name])
    assert main(files) == 2
    assert "only ot-fusion merges them" in capsys.readouterr().err
    inputs = torch.rand(5, 12)
    logits = torch.stack([perceptron(0)(inputs), wide(inputs)]).detach()
    for shift, code in ((0.0, 0), (1.0, 2)):
        save_file({"inputs": inputs, "logits": logits + torch.tensor([0.0, shift])[:, None, None]}, "both.safetensors")
        assert main([*files, "--method", "ot-fusion", "--reference", "both.safetensors"]) == code
    assert "wide.safetensors gives other logits than the reference" in capsys.readouterr().err


def test_a_reference_is_checked(folder, capsys):
    inputs = torch.rand(5, 12)
    for activation in (nn.ReLU, nn.GELU):
        logits = perceptron(0, activation=activation)(inputs).detach()
        save_file({"inputs": inputs, "logits": logits}, f"{activation.__name__}.safetensors")
    files = ["merge", "a.safetensors", "b.pt", "--output", "merged.pt", "--reference"]
    assert main([*files, "ReLU.safetensors"]) == 0
    assert "a.safetensors gives the logits of ReLU.safetensors\n" in capsys.readouterr().out
    (folder / "merged.pt").unlink()
    assert main([*files, "GELU.safetensors"]) == 2
    assert "a.safetensors gives other logits than the reference: the largest difference is" in capsys.readouterr().err
    assert not (folder / "merged.pt").exists()


MERGE = ["merge", "a.safetensors", "b.pt", "--output"]
CONV = ["merge", "conv-0.pth", "conv-1.pth", "--output", "m.pt", "--network"]
EXAMPLE = ["--example", "3,8,8"]
REFUSED = [
    ([*MERGE, "b.pt"], "b.pt is one of the networks: write the merged one elsewhere"),
    ([*MERGE, "b.pt/m.pt"], "b.pt/m.pt cannot be written: b.pt is no such place"),
    ([*CONV, "nets.py:conv", "--example", "99999999999999"], "example of shape (99999999999999,) does not fit"),
    ([*MERGE, "m.onnx"], "m.onnx must end in one of .safetensors, .pt"),
    ([*MERGE, "m.pt", "--method", "best"], "unknown method 'best'; there are tree, merge-many, naive"),
    ([*MERGE, "m.pt", "--method", "ensemble"], "hrebasin.ensemble(bank) runs them as one module"),
    ([*MERGE, "m.pt", "--layers", "0,2"], "of the layers ['0', '2', '4'], not of ['0', '2']"),
    ([*MERGE, "m.pt", "--example", "12"], "example needs network"),
    ([*MERGE, "m.pt", "--mean", "0.5"], "mean and std need images"),
    ([*MERGE, "m.pt", "--method", "activations"], "'activations' needs training images, their pixels"),
    ([*MERGE, "m.pt", "--reference", "a.safetensors"], "a.safetensors must hold the tensors inputs and logits"),
    ([*MERGE, "m.pt", "--repair"], "REPAIR needs training images: give training images by --images"),
    (["merge", "a.safetensors", "--output", "m.pt"], "merging needs at least 2 networks, got 1"),
    (["merge", "a.safetensors", "c.pt", "--output", "m.pt"], "no network at c.pt"),
    (["merge", "a.safetensors", "conv-0.pth", "--output", "m.pt"], "conv-0.pth is no MLP: module.0 has a weight of"),
    (CONV[:-1], "other networks need a module (merge_state_dicts; --network in a shell)"),
    ([*CONV, "nets.py:conv", *EXAMPLE, "--repair"], "REPAIR needs training images: give training images by --images"),
    ([*CONV, "nets.py:conv"], "a network needs example, the shape of an input such as 3,32,32, or images"),
    ([*CONV, "nets.py:conv", "--example", "3,8"], "does not run on the example of shape (2, 3, 8)"),
    ([*CONV, "nets.py:conv", "--example", "3,0"], "an example's shape is of positive sizes"),
    ([*CONV, "nets.py:conv", *EXAMPLE, "--layers", "0"], "layers and reference are for perceptrons"),
    ([*CONV, "nets.py:conv(width=7)", *EXAMPLE], "conv-0.pth: '0.weight' has shape (6, 3, 3, 3), but"),
    ([*CONV, "nets.py", *EXAMPLE], "a network is named as package.module:make"),
    ([*CONV, "nets.py:conv(7)", *EXAMPLE], "a network is named as package.module:make"),
    ([*CONV, "nets.py:conv(depth=7)", *EXAMPLE], "nets.py:conv(depth=7) makes no network: TypeError"),
    ([*CONV, "nets.py:none", *EXAMPLE], "nets.py has no 'none'"),
    ([*CONV, "math:sqrt", *EXAMPLE], "math:sqrt makes no network"),
    ([*CONV, "builtins:dict", *EXAMPLE], "builtins:dict makes a dict, no torch.nn.Module"),
    ([*CONV, "absent.py:conv", *EXAMPLE], "there is no file absent.py"),
    ([*CONV, "no.such:conv", *EXAMPLE], "no.such cannot be imported (ModuleNotFoundError"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_what_cannot_be_is_said_and_nothing_is_written(folder, arguments, message, capsys):
    before = sorted(folder.rglob("*.*t*"))
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert sorted(folder.rglob("*.*t*")) == before


def test_examples_are_two_inputs_that_differ():
    example = example_inputs((3, 8, 8))
    assert example.shape == (2, 3, 8, 8)
    assert torch.equal(example, example_inputs((3, 8, 8)))
    assert not torch.equal(example[0], example[1])
