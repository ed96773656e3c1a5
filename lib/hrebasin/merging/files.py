"""Merging files of weights: what the command `hrebasin merge` does."""

import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..factories import build_network, example_inputs
from ..files import project_root
from ..images.folders import check_name
from ..images.sources import Images, load_images
from ..networks import Normalize
from ..random_streams import Seed
from ..state_dicts import named_like, read_perceptron, read_reference, read_state_dicts
from ..weight_files import check_suffix, read_weights, write_weights
from .merge import merge, merge_state_dicts

MEASURED = 2000  # images on which batch norm is measured


def merge_files(
    paths: Sequence[Path | str],
    output: Path | str,
    *,
    method: str = "tree",
    repair: bool = False,
    network: str = "",
    example: Sequence[int] = (),
    images: str = "",
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    layers: Sequence[str] = (),
    reference: Path | str | None = None,
    seed: Seed = 0,
) -> list[str]:
    """Merge networks that lie in files into one file, whose tensors have the names that they have in the first.

    Args:
        paths: of the networks, see `hrebasin.weight_files.read_weights`; of one architecture, but that perceptrons of
            different widths can be merged by ``ot-fusion``.
        output: of the merged one, see `hrebasin.weight_files.write_weights`; none of ``paths``.
        method, repair: see `hrebasin.merge`.
        network: what the networks are, see `hrebasin.factories.build_network`; by default multilayer perceptrons with
            ReLU, see `hrebasin.state_dicts.read_state_dicts`.
        example: shape of one input, such as (3, 32, 32); by default that of ``images``.
        images: training images, see `hrebasin.load_images`, for batch norm, REPAIR and the methods that need them, some
            of which take the folders' names for labels; the first `MEASURED` are taken.
        mean, std: what each of their channels is normalised with before the network, pixels in [0, 1].
        layers: of a perceptron, input side first; by default in natural order.
        reference: a file of the tensors ``inputs`` and ``logits``, what the first network answers.
        seed: of the orders of layers and networks.

    Returns:
        What a reader should be told.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: whatever `hrebasin.merge_state_dicts` or `hrebasin.state_dicts.read_state_dicts` refuse, options
            that do not fit together, or an output that is one of the networks.
    """
    paths, output = [Path(path) for path in paths], check_suffix(output)
    for path in (*paths, output):
        check_name(path)
    if os.path.realpath(output) in map(os.path.realpath, paths):
        raise ValueError(f"{output} is one of the networks: write the merged one elsewhere")
    if output.is_dir() or not (output.parent.is_dir() or not output.parent.exists()):
        raise ValueError(f"{output} cannot be written: {output if output.is_dir() else output.parent} is no such place")
    if network and (layers or reference):
        raise ValueError("layers and reference are for perceptrons without network, which tells both")
    if not network and example:
        raise ValueError("example needs network, as package.module:make; perceptrons tell the size of their inputs")
    if not images and (mean or std):
        raise ValueError("mean and std need images, which they normalise")
    options = {"method": method, "repair": repair, "seed": seed}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        given = _images(images, mean, std)
        if network:
            notes, merged = _of_any_kind(paths, network, example, given, options)
        else:
            notes, merged = _perceptrons(paths, layers, reference, given, options)
    write_weights(output, merged)
    said = dict.fromkeys(str(warning.message) for warning in caught)
    return [*notes, *said, f"{len(paths)} networks merged by {method} into {output}, names as in {paths[0]}"]


class _Normalised(NamedTuple):
    """Images and what each of their channels is normalised with."""

    images: Images
    mean: tuple[float, ...]
    std: tuple[float, ...]


def _perceptrons(
    paths: list[Path], layers: Sequence[str], reference, given: _Normalised | None, options: dict
) -> tuple[list[str], dict]:
    answers, shape = read_reference(reference) if reference else None, {}
    if given:
        shape = {"image_shape": given.images.shape, "mean": given.mean, "std": given.std}
        options = options | {"images": given.images}
    if options["method"] == "ot-fusion":  # takes other widths too: each file is a bank of its own
        each = _each_own(answers, len(paths))
        sets = [
            read_state_dicts([path], layers=layers, reference=own, **shape)
            for path, own in zip(paths, each, strict=True)
        ]
    else:
        sets = [read_state_dicts(paths, layers=layers, reference=answers, **shape)]
    networks = [network for bank in sets for network in bank]
    merged = named_like(merge(networks, **options).state_dict(), read_perceptron(paths[0], layers))
    return [f"{paths[0]} gives the logits of {reference}"] if reference else [], merged


def _each_own(reference: tuple | None, n: int) -> list[tuple | None]:
    """The reference of each of n networks: what it answered, or None where only the first one's answers are known."""
    if reference is None or reference[1].ndim != 3:
        return [reference, *[None] * (n - 1)]
    inputs, logits = reference
    if len(logits) != n:
        raise ValueError(f"reference logits must be of {n} networks, got {tuple(logits.shape)}")
    return [(inputs, own) for own in logits]


def _of_any_kind(
    paths: list[Path], factory: str, example, given: _Normalised | None, options: dict
) -> tuple[list[str], dict]:
    if given is None and not example:
        raise ValueError("a network needs example, the shape of an input such as 3,32,32, or images")
    network, notes, states = build_network(factory), [], []
    for path in paths:
        state, key = read_weights(path)
        notes += [f"{path} is a checkpoint: its {key!r} is taken"] if key else []
        states.append(state)
    inputs = example_inputs(example) if example else None
    names, images = list(map(str, paths)), None
    if given:
        images = Normalize(given.mean, given.std)(given.images.pixels.float() / 255), given.images.labels
    return notes, merge_state_dicts(network, states, inputs, names=names, images=images, **options)


def _images(source: str, mean: Sequence[float], std: Sequence[float]) -> _Normalised | None:
    """The first training images, or None."""
    if not source:
        return None
    with tempfile.TemporaryDirectory() as decoded:
        images = load_images(source, "train", root=_data() or decoded, at_most=MEASURED)
    channels = images.shape[0]
    mean, std = tuple(mean) or (0.0,) * channels, tuple(std) or (1.0,) * channels
    fit = len(mean) == len(std) == channels and all(0 <= m <= 1 and 0 < s <= 1 for m, s in zip(mean, std, strict=True))
    if not fit:
        raise ValueError(
            f"mean {mean} and std {std} need a value in [0, 1] for each of {channels} channels, std above 0"
        )
    return _Normalised(images, mean, std)


def _data() -> Path | None:
    """The project's data folder, if this runs in it: what was decoded or downloaded before lies there."""
    try:
        return project_root() / "data"
    except FileNotFoundError:
        return None
