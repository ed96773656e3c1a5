"""`hrebasin merge` and `hrebasin symmetry`: networks from elsewhere, with no package of the study's.

What is imported while the command line is read is free of slow imports.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

# what a shell says in place of Python
WORDS = {
    "give training images as images=(inputs, labels)": "give training images by --images",
    "give training images as images=": "give training images by --images",
    "reference=(inputs, logits) checks": "--reference checks",
    "a module in place of the state dict": "--network",
}


def add_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add both to a command line; ``add`` takes a name, what to do, and words, and gives a new subcommand's parser."""
    many = {"type": numbers, "default": []}
    network = {"metavar": "MODULE:FACTORY", "help": "makes such a network: torchvision.models:resnet18, nets.py:make"}
    example = {"type": sizes, "default": (), "metavar": "SIZES", "help": "shape of one input, such as 3,32,32"}

    merge = add("merge", _merge, "merge files of weights into one, which keeps the first one's names")
    merge.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help=".safetensors, .pt, .pth, .bin or .ckpt, a network each"
    )
    merge.add_argument("--output", type=Path, required=True, metavar="FILE")
    merge.add_argument("--method", default="tree", help="tree (of 2, 4, 8, ... networks), merge-many, naive, ...")
    merge.add_argument("--repair", action="store_true", help="give units the spread that they had, measured on images")
    merge.add_argument("--seed", type=int, default=0, help="of the orders of layers and networks")
    merge.add_argument("--network", default="", **network | {"help": network["help"] + "; by default perceptrons"})
    merge.add_argument("--example", **example)
    where = "training images, for batch norm, --repair and methods that need some or their classes: a folder "
    where += "{train,test}/<class>/<image>, or a tar archive of one"
    merge.add_argument("--images", default="", metavar="FOLDER_OR_ARCHIVE", help=where)
    merge.add_argument("--mean", **many, help="of each channel of the images, in [0, 1]: 0.49,0.48,0.45")
    merge.add_argument("--std", **many, help="of each channel")
    layers = {"type": lambda words: words.split(","), "default": []}
    merge.add_argument("--layers", **layers, help="of a perceptron, input side first: in,mid,out")
    told = "file of inputs and logits, which a perceptron must give"
    merge.add_argument("--reference", type=Path, metavar="FILE", help=told)

    symmetry = add(
        "symmetry", _symmetry, "print which permutations leave a network's outputs as they are, and prove it"
    )
    symmetry.add_argument("--network", required=True, **network)
    symmetry.add_argument("--example", required=True, **example)


def _merge(given: argparse.Namespace) -> None:
    from ..merging.files import merge_files

    options = ("method", "repair", "network", "example", "images", "mean", "std", "layers", "reference", "seed")
    try:
        notes = merge_files(given.files, given.output, **{name: getattr(given, name) for name in options})
    except ValueError as error:
        raise ValueError(_in_a_shell(str(error))) from error
    for note in notes:
        print(_in_a_shell(note))


def _in_a_shell(text: str) -> str:
    for python, shell in WORDS.items():
        text = text.replace(python, shell)
    return text


def _symmetry(given: argparse.Namespace) -> None:
    import warnings

    from ..factories import build_network, example_inputs
    from ..symmetry import derive_symmetry, prove_symmetry

    network, example = build_network(given.network), example_inputs(given.example)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        symmetry = derive_symmetry(network, example)
    for warning in caught:
        print(f"note: {warning.message}", file=sys.stderr)
    print(symmetry)
    error = prove_symmetry(network, symmetry, example)
    print(f"proven: with every permutation drawn at random, the outputs change by {error:.0e} of their size")


def numbers(words: str) -> list[float]:  # its name stands in argparse's message
    """Numbers with commas between them."""
    return [float(word) for word in words.split(",")]


def sizes(words: str) -> tuple[int, ...]:
    """Sizes with commas between them."""
    return tuple(int(word) for word in words.split(","))
