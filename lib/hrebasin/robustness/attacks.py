"""Robustness of whole banks of any networks: Foolbox attacks and random perturbations, in pixel units."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from foolbox import Attack
from foolbox.attacks import L2DeepFoolAttack, LinfDeepFoolAttack, LinfFastGradientAttack

from ..bank import Bank, check_finite
from ..checks import check_pixels
from ..resources import halving
from .foolbox_model import NETWORKS_AT_ONCE, SAMPLES_AT_ONCE, fitting_samples, in_pieces, run, select
from .noise import noise_accuracy

KINDS = ("fgsm", "deepfool-linf", "deepfool-l2", "gaussian", "uniform")
DEEPFOOL = {"candidates": 10, "overshoot": 0.02, "loss": "logits"}
# DeepFool's steps. Most samples need one or two, yet Foolbox computes all of a batch until the last is done; so what is
# still open after few steps is attacked anew with more. A sample's result does not depend on the others.
ROUNDS = (1, 3, 50)


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
            `FIXED_SIZE`.
        epsilons: sizes in pixel units (pixels in [0, 1]) and the norm of the kind, increasing from 0 or more.
        device: where to compute.
        draws: of noise, the same for every network; draw d uses the stream ``noise/<kind>/<d>``.
        samples_at_once: images times networks in one call; by default what suits the device and fits into its memory.
            Results do not depend on it.

    Returns:
        ``robust_accuracy`` (model, epsilon) and ``correct`` (model, image), the latter without attack. FGSM (all of
        `FIXED_SIZE`) tests each epsilon on its own, so its curve need not be monotone. DeepFool seeks a minimal
        perturbation: an image counts at epsilon when it is classified correctly and not broken by a perturbation of
        norm <= epsilon; added are
        ``perturbation_norm`` (model, image; 0 where misclassified anyway), ``success`` (model, image), ``repredicted``
        (model,: images on which a second prediction differs from ``success``) and ``robust_accuracy_clipped``
        (model, epsilon; Foolbox's own rule: the perturbation clipped to epsilon and tested again). Noise gives
        ``robust_accuracy`` (model, epsilon, draw).

    Raises:
        ValueError: unknown kind, bad epsilons, pixels or labels that do not fit, weights that are not finite.
    """
    epsilons = check_attack(bank, pixels, labels, kind, epsilons)
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    sort = torch.device(device).type
    pixels, labels = pixels.to(device), labels.to(device)
    pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
    if samples_at_once is None:
        samples_at_once = fitting_samples(bank, pixels, device=device, most=SAMPLES_AT_ONCE[sort])
    elif samples_at_once < 1:
        raise ValueError(f"samples_at_once must be at least 1, got {samples_at_once}")
    results = []
    for piece in bank.chunks(min(NETWORKS_AT_ONCE[sort], samples_at_once)):
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
    kinds: Sequence[str] = ("fgsm", "deepfool-linf"),
    device: str = "cpu",
) -> xr.DataArray:
    """Robust accuracy (model, attack, epsilon) under several attacks; all arguments as in `attack`."""
    given = {"epsilons": epsilons, "device": device}
    each = {kind: attack(bank, pixels, labels, kind=kind, **given).robust_accuracy for kind in kinds}
    return along(each, "attack").transpose("model", "attack", "epsilon")


def _attack(bank, pixels, labels, kind, epsilons, draws, samples_at_once) -> xr.Dataset:
    """`attack` on networks that fit into one call."""
    with torch.no_grad():
        correct = bank(pixels).argmax(-1) == labels
    image = np.arange(len(pixels))
    result = {
        "correct": bank.array(
            correct.to(torch.int8),
            ("model", "image"),
            long_name="correct without attack",
            units="1",
            name="correct",
            image=image,
        )
    }
    epsilon = xr.Variable("epsilon", epsilons, {"long_name": "size of the perturbation", "units": "pixel range"})
    describe = {"long_name": "accuracy under attack", "units": "1", "name": "robust_accuracy", "epsilon": epsilon}
    if kind in ("gaussian", "uniform"):
        accuracy = noise_accuracy(bank, pixels, labels, kind, epsilons, draws)
        dims = ("model", "epsilon", "draw")
        result["robust_accuracy"] = bank.array(accuracy, dims, **describe, draw=np.arange(draws))
        return xr.Dataset(result)
    pieces = in_pieces(bank, pixels, labels, samples_at_once, kind)
    if kind in FIXED_SIZE:
        broken = np.concatenate([fixed_size(*piece, kind, epsilons) for piece in pieces], axis=2)
        result["robust_accuracy"] = bank.array(1 - broken.mean(2), ("model", "epsilon"), **describe)
        return xr.Dataset(result)
    columns = [
        np.concatenate(parts, axis=-1) for parts in zip(*(_deepfool(*p, kind, epsilons) for p in pieces), strict=True)
    ]
    norm, success, repredicted, clipped = columns
    robust = correct.cpu().numpy()[:, None] & (~success[:, None] | (norm[:, None] > np.array(epsilons)[None, :, None]))
    over_images = {"dims": ("model", "image"), "image": image}
    result |= {
        "robust_accuracy": bank.array(robust.mean(2), ("model", "epsilon"), **describe),
        "robust_accuracy_clipped": bank.array(1 - clipped.mean(2), ("model", "epsilon"), **describe),
        "perturbation_norm": bank.array(
            norm, name="perturbation_norm", long_name="norm of the raw perturbation", units="pixel range", **over_images
        ),
        "success": bank.array(
            success.astype(np.int8), name="success", long_name="whether the attack succeeded", units="1", **over_images
        ),
        "repredicted": bank.array(
            repredicted.sum(1),
            name="repredicted",
            units="images",
            long_name="images whose second prediction differs from the success flag",
        ),
    }
    return xr.Dataset(result)


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
    common = {"device": device}
    each = {kind: attack(bank, pixels, labels, kind=kind, epsilons=epsilons, **common) for kind in FIXED_SIZE}
    linf = attack(bank, pixels, labels, kind="deepfool-linf", epsilons=epsilons, **common)
    l2 = attack(bank, pixels, labels, kind="deepfool-l2", epsilons=epsilons[:1], **common)
    noise = {
        kind: attack(bank, pixels, labels, kind=kind, epsilons=magnitudes, draws=draws, **common).robust_accuracy
        for kind in ("gaussian", "uniform")
    }
    curves = {
        **{kind: found.robust_accuracy for kind, found in each.items()},
        "deepfool-linf": linf.robust_accuracy,
        "deepfool-linf-clipped": linf.robust_accuracy_clipped.rename("robust_accuracy"),
    }
    joined = xr.merge(
        [
            along(curves, "attack"),
            along({"linf": linf[list(PER_IMAGE)], "l2": l2[list(PER_IMAGE)]}, "norm"),
            along(noise, "noise").rename("noise_accuracy").rename(epsilon="magnitude"),
            linf.correct,
        ],
        compat="identical",
        combine_attrs="override",
    )
    joined.attrs.clear()  # merging takes those of the first variable
    joined.noise_accuracy.attrs["long_name"] = "accuracy under random perturbation"
    return joined.transpose("model", ...)


PER_IMAGE = ("perturbation_norm", "success", "repredicted")


def along(parts: Mapping[str, xr.DataArray | xr.Dataset], dim: str) -> xr.DataArray | xr.Dataset:
    """Parts of the same networks joined along a new dimension, such as ``attack``, with their names."""
    axis = xr.Variable(dim, np.array(list(parts), dtype=object), {"long_name": dim, "units": "1"})
    return xr.concat(list(parts.values()), dim=axis, coords="minimal", compat="override", combine_attrs="override")


def check_attack(bank: Bank, pixels: torch.Tensor, labels: torch.Tensor, kind: str, epsilons) -> list[float]:
    """Sizes as floats; ValueError unless networks, images and sizes fit one another, see `attack`."""
    if kind not in (*KINDS, *FIXED_SIZE):
        raise ValueError(f"unknown attack {kind!r}; known are {tuple(dict.fromkeys((*KINDS, *FIXED_SIZE)))}")
    epsilons = [float(epsilon) for epsilon in epsilons]
    largest = float("inf") if kind == "deepfool-l2" else 1
    in_range = all(0 <= epsilon <= largest for epsilon in epsilons)  # False for NaN
    if not epsilons or not in_range or sorted(set(epsilons)) != epsilons:
        raise ValueError(f"epsilons must increase within [0, {largest}], got {epsilons}")
    check_pixels(bank.architecture, pixels, labels)
    check_finite(bank, "attack")
    return epsilons


class _GradientOnce(LinfFastGradientAttack):
    """FGSM without random start takes the same gradient for every epsilon; this instance takes it once."""

    def __init__(self):
        super().__init__(random_start=False)
        self.kept = None

    def value_and_grad(self, loss_fn, x):
        if self.kept is None:
            self.kept = super().value_and_grad(loss_fn, x)
        return self.kept


# Attacks that test each size on its own, made anew for every batch. One that is added here (an L-infinity attack of
# Foolbox without random numbers, or they would depend on the batches) is in every data set and figure of a run.
FIXED_SIZE: dict[str, Callable[[], Attack]] = {"fgsm": _GradientOnce}


def fixed_size(bank, pixels, labels, kind, epsilons, *, factor: float = 1.0) -> np.ndarray:
    """Whether each image is misclassified at each epsilon, (model, epsilon, image); ``factor``: of the logits."""
    shape = (len(bank), len(pixels))
    pixels, labels = pixels.expand(len(bank), *pixels.shape), labels.expand(shape)
    _, _, broken = run(FIXED_SIZE[kind](), bank, pixels, labels, epsilons, factor=factor)
    return broken.unflatten(1, shape).movedim(0, 1).cpu().numpy()


def _deepfool(bank, pixels, labels, kind, epsilons):
    """Norm, success and disagreement (model, image), and Foolbox's clipped failures (model, epsilon, image)."""
    attack = {"deepfool-linf": LinfDeepFoolAttack, "deepfool-l2": L2DeepFoolAttack}[kind]
    with torch.no_grad():
        wrong = bank(pixels).argmax(-1) != labels
    raw = pixels.expand(len(bank), *pixels.shape).clone()
    success = wrong.clone()  # what is misclassified anyway needs no perturbation
    for steps in ROUNDS:
        if success.all():
            break
        some, where = select(bank, ~success)
        found, _, done = run(attack(**DEEPFOOL, steps=steps), some, pixels[where[1]], labels[where[1]], None)
        raw[where], success[where] = found.view_as(raw[where]), done.view_as(success[where])
    clipped = torch.ones(len(epsilons), len(bank), len(pixels), dtype=torch.bool, device=bank.device)
    with torch.no_grad():
        repredicted = (bank(raw).argmax(-1) != labels) != success
        if not wrong.all():
            some, where = select(bank, ~wrong)
            given = pixels[where[1]], raw[where]
            for position, epsilon in enumerate(epsilons):
                inputs = attack.distance.clip_perturbation(*(p.flatten(0, 1) for p in given), epsilon)
                clipped[position][where] = some(inputs.view_as(given[0])).argmax(-1) != labels[where[1]]
    change = (raw - pixels).flatten(2)
    norm = change.abs().amax(2) if kind == "deepfool-linf" else change.norm(dim=2)
    return tuple(column.cpu().numpy() for column in (norm, success, repredicted, clipped.movedim(0, 1)))
