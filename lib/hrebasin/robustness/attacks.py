"""Robustness of whole banks of any networks: Foolbox attacks and random perturbations, in pixel units."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
import xarray as xr

from ..bank import Bank, check_finite
from ..checks import check_bank, check_pixels
from ..resources import halving, plain_torch, subnormals_flushed
from .deepfool import deepfool
from .fgsm import COMPARED, FIXED_SIZE, fixed_size
from .foolbox_model import NETWORKS_AT_ONCE, fitting_samples, in_pieces, in_unit_range
from .noise import noise_accuracy

KINDS = ("fgsm", "deepfool-linf", "deepfool-l2", "gaussian", "uniform")


@subnormals_flushed()
@plain_torch()
def attack(
    bank: Bank,
    pixels: torch.Tensor,
    labels: torch.Tensor,
    *,
    kind: str,
    epsilons: Sequence[float],
    device: str = "cpu",
    draws: int = 10,
    samples_at_once: int | None = None,
) -> xr.Dataset:
    """Attack every network of a bank with the same images.

    >>> from hrebasin.networks import mlp
    >>> bank = Bank.stack([mlp((8,), n_classes=3, image_shape=(1, 2, 2), mean=[0.5], std=[0.25]) for _ in range(2)])
    >>> found = attack(bank, torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1]), kind="fgsm", epsilons=[0.0, 0.1])
    >>> dict(found.robust_accuracy.sizes)
    {'model': 2, 'epsilon': 2}

    Args:
        bank: the networks.
        pixels: (image, channel, y, x), uint8 or in [0, 1].
        labels: (image,) true classes.
        kind: ``"fgsm"`` (L-infinity, no random start), ``"deepfool-linf"``, ``"deepfool-l2"``, ``"gaussian"`` (standard
            deviation epsilon) or ``"uniform"`` (in +-epsilon); noise is clipped to [0, 1] with the image. Or a name in
            `FIXED_SIZE`, or ``"fgsm-float32"``, whose gradient is less exact than FGSM's.
        epsilons: sizes in pixel units (pixels in [0, 1]) and the norm of the kind, increasing from 0 or more.
        device: where to compute.
        draws: of noise, the same for every network; draw d uses the stream ``noise/<kind>/<d>``.
        samples_at_once: images times networks in one call; by default what suits the device and fits into its memory.
            Results do not depend on it.

    Returns:
        ``robust_accuracy`` (model, epsilon) and ``correct`` (model, image), the latter without attack. Noise gives
        ``robust_accuracy`` (model, epsilon, draw), other attacks also ``robust`` (model, epsilon, image), 1 where an
        image is still classified correctly. FGSM (all of `FIXED_SIZE`) tests each epsilon on its own, so its curve need
        not be monotone; added is ``zero_gradients`` (model,), the share of images whose gradient is exactly zero.
        DeepFool seeks a minimal perturbation: an image counts at epsilon when it is classified correctly and not broken
        by a perturbation of norm <= epsilon; added are ``perturbation_norm`` (model, image; with DeepFool's overshoot
        of 2 %; 0 where misclassified anyway), ``success`` (model, image), ``repredicted`` (model,: images on which a
        second prediction differs from ``success``) and ``robust_accuracy_clipped`` (model, epsilon; Foolbox's own rule:
        the perturbation clipped to epsilon and tested again).

    Raises:
        ValueError: unknown kind, bad epsilons, pixels or labels that do not fit, weights that are not finite.
    """
    epsilons = check_attack(bank, pixels, labels, kind, epsilons)
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    pixels, labels = in_unit_range(pixels.to(device)), labels.to(device)
    if samples_at_once is None:
        samples_at_once = fitting_samples(bank, pixels, device)
    elif samples_at_once < 1:
        raise ValueError(f"samples_at_once must be at least 1, got {samples_at_once}")
    results = []
    for piece in bank.chunks(min(NETWORKS_AT_ONCE[torch.device(device).type], samples_at_once)):
        given = piece.to(device), pixels, labels, kind, epsilons, draws
        result, samples_at_once = halving(lambda n: _attack(*given, n), samples_at_once, what="samples")  # noqa: B023
        results.append(result)
    return xr.concat(results, dim="model", coords="minimal", compat="override", combine_attrs="override")


def robust_accuracies(
    bank: Bank,
    pixels: torch.Tensor,
    labels: torch.Tensor,
    *,
    epsilons: Sequence[float],
    device: str = "cpu",
) -> xr.DataArray:
    """Robust accuracy (model, attack, epsilon) under FGSM and DeepFool (L-infinity); arguments as in `attack`."""
    each = {
        kind: attack(bank, pixels, labels, kind=kind, epsilons=epsilons, device=device).robust_accuracy
        for kind in ("fgsm", "deepfool-linf")
    }
    return along(each, "attack").transpose("model", "attack", "epsilon")


def _attack(bank, pixels, labels, kind, epsilons, draws, samples_at_once) -> xr.Dataset:
    """`attack` on networks that fit into one call."""
    with torch.no_grad():
        correct = bank(pixels).argmax(-1) == labels
    correct = correct.cpu().numpy()
    result = {"correct": _array(bank, correct, ["image"], "correct without attack")}
    by_size = partial(_array, bank, long_name="accuracy under attack", epsilons=epsilons)
    if kind in ("gaussian", "uniform"):
        accuracy, counts = noise_accuracy(bank, pixels, labels, kind, epsilons, draws)
        text = "draws in which the image is classified correctly"
        result["robust_accuracy"] = by_size(accuracy, ["epsilon", "draw"])
        result["correct_draws"] = _array(bank, counts, ["epsilon", "image"], text, "draws", epsilons=epsilons)
        return xr.Dataset(result)
    pieces = in_pieces(bank, samples_at_once, kind, pixels, labels)
    attacked = deepfool if kind.startswith("deepfool") else fixed_size
    parts = zip(*(attacked(bank, *piece, kind, epsilons) for piece in pieces), strict=True)
    columns = [np.concatenate(part, 1) for part in parts]
    if attacked is deepfool:
        norm, success, repredicted, clipped = columns
        larger = ~success[..., None] | (norm[..., None] > np.array(epsilons))
        robust = correct[..., None] & larger
        text = "images whose second prediction differs from the success flag"
        result |= {
            "robust_accuracy_clipped": by_size(1 - clipped.mean(1), ["epsilon"]),
            "perturbation_norm": _array(bank, norm, ["image"], "norm of the raw perturbation", "pixel range"),
            "success": _array(bank, success, ["image"], "whether the attack succeeded"),
            "repredicted": _array(bank, repredicted.sum(1), [], text, "images"),
        }
    else:
        robust, vanished = columns
        if np.isfinite(vanished).all():
            text = "share of images whose gradient is exactly zero"
            result["zero_gradients"] = _array(bank, vanished.mean(1), [], text)
    result["robust_accuracy"] = by_size(robust.mean(1), ["epsilon"])
    result["robust"] = robust_flags(bank, robust.swapaxes(1, 2), epsilons)
    return xr.Dataset(result)


def _array(bank: Bank, values: np.ndarray, dims, long_name: str, units: str = "1", *, epsilons=()) -> xr.DataArray:
    """Values (model, *dims), flags as int8; the axis ``epsilon`` holds sizes, all others count."""
    described = {"long_name": "size of the perturbation", "units": "pixel range"}
    sizes = xr.Variable("epsilon", np.array(epsilons), described)
    lengths = zip(dims, values.shape[1:], strict=True)
    axes = {dim: sizes if dim == "epsilon" else np.arange(n) for dim, n in lengths}
    values = values.astype(np.int8) if values.dtype == bool else values
    return bank.array(values, ("model", *dims), long_name=long_name, units=units, **axes)


def robust_flags(bank: Bank, robust: np.ndarray, epsilons: Sequence[float]) -> xr.DataArray:
    """Whether images are still classified correctly, ``robust`` (model, epsilon, image) int8."""
    text = "whether the image is still classified correctly"
    return _array(bank, robust, ["epsilon", "image"], text, epsilons=epsilons).rename("robust")


def attack_suite(
    bank: Bank,
    pixels: torch.Tensor,
    labels: torch.Tensor,
    *,
    epsilons: Sequence[float],
    magnitudes: Sequence[float],
    draws: int,
    device: str = "cpu",
) -> xr.Dataset:
    """Every attack of the paper as one data set of stage ``attack``, see `hrebasin.study.records.schemas`.

    Args:
        bank, pixels, labels, device: as in `attack`.
        epsilons: of FGSM, of whatever else is in `FIXED_SIZE`, and of L-infinity DeepFool.
        magnitudes, draws: of the noise.
    """
    attacked = partial(attack, bank, pixels, labels, device=device)
    each = {kind: attacked(kind=kind, epsilons=epsilons) for kind in FIXED_SIZE}
    linf = attacked(kind="deepfool-linf", epsilons=epsilons)
    l2 = attacked(kind="deepfool-l2", epsilons=epsilons[:1])
    noise = {kind: attacked(kind=kind, epsilons=magnitudes, draws=draws) for kind in ("gaussian", "uniform")}
    noisy = along({kind: found[["robust_accuracy", "correct_draws"]] for kind, found in noise.items()}, "noise")
    curves = {kind: found.robust_accuracy for kind, found in each.items()}
    curves |= {
        "deepfool-linf": linf.robust_accuracy,
        "deepfool-linf-clipped": linf.robust_accuracy_clipped.rename("robust_accuracy"),
    }
    flags = {kind: found.robust for kind, found in each.items()} | {"deepfool-linf": linf.robust}
    joined = xr.merge(
        [
            along(curves, "attack"),
            along(flags | {"deepfool-linf-clipped": xr.full_like(linf.robust, -1)}, "attack"),
            along({"linf": linf[list(PER_IMAGE)], "l2": l2[list(PER_IMAGE)]}, "norm"),
            noisy.rename(robust_accuracy="noise_accuracy", epsilon="magnitude"),
            linf.correct,
            each["fgsm"].zero_gradients,
        ],
        compat="identical",
        combine_attrs="override",
    )
    joined.attrs.clear()  # merging takes those of the first variable
    joined.noise_accuracy.attrs["long_name"] = "accuracy under random perturbation"
    for name in ("robust", "correct_draws"):  # of the clipped rule, or where little is published by image
        joined[name].attrs["long_name"] += "; -1: not kept"
    return joined.transpose("model", ..., "image", "epsilon")  # so flags take half the space in a file


PER_IMAGE = ("perturbation_norm", "success", "repredicted")


def along(parts: Mapping[str, xr.DataArray | xr.Dataset], dim: str) -> xr.DataArray | xr.Dataset:
    """Parts of the same networks joined along a new dimension, such as ``attack``, with their names."""
    axis = xr.Variable(dim, np.array(list(parts), dtype=object), {"long_name": dim, "units": "1"})
    return xr.concat(list(parts.values()), dim=axis, coords="minimal", compat="override", combine_attrs="override")


def check_attack(bank: Bank, pixels: torch.Tensor, labels: torch.Tensor, kind: str, epsilons) -> list[float]:
    """Sizes as floats; ValueError unless networks, images and sizes fit one another, see `attack`."""
    check_bank(bank)
    if kind not in (known := tuple(dict.fromkeys((*KINDS, *FIXED_SIZE, *COMPARED)))):
        raise ValueError(f"unknown attack {kind!r}; known are {known}")
    if kind in FIXED_SIZE and (norm := getattr(FIXED_SIZE[kind]().distance, "p", None)) != float("inf"):
        raise ValueError(
            f"the attack {kind!r} is of the norm L{norm}: sizes of registered attacks are L-infinity norms"
        )
    if not np.iterable(epsilons):
        raise TypeError(f"epsilons must be several sizes, such as [0.0, 0.01], got {epsilons!r}")
    epsilons = [float(epsilon) for epsilon in epsilons]
    largest = float("inf") if kind == "deepfool-l2" else 1
    in_range = all(0 <= epsilon <= largest for epsilon in epsilons)  # False for NaN
    if not epsilons or not in_range or sorted(set(epsilons)) != epsilons:
        raise ValueError(f"epsilons must increase within [0, {largest}], got {epsilons}")
    check_pixels(bank.architecture, pixels, labels)
    check_finite(bank, "attack")
    return epsilons
