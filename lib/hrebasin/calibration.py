"""How far probabilities can be believed: negative log-likelihood, expected calibration error, a fitted temperature.

Merged networks are less sure than those that they are made of, which alone changes their loss. With the temperature
that suits each network (Guo et al. 2017), losses are compared without that.
"""

import torch
import xarray as xr

from .bank import Bank

BINS = 15  # of confidence, equally wide
COLDEST, HOTTEST = 1e-3, 1e3  # temperatures between which one is sought
HALVINGS = 40  # of their ratio: to 1e-11 of the temperature


def negative_log_likelihood(logits: torch.Tensor, labels: torch.Tensor, temperature: torch.Tensor | float = 1.0):
    """Mean of -log p of the true class over images, p = softmax(logits / T), (model,) float64, nat.

    Args:
        logits: (model, image, class).
        labels: (image,) int64.
        temperature: T of each model, (model,), or one for all.
    """
    scaled = _scaled(logits, temperature)
    picked = scaled.log_softmax(-1).gather(-1, labels.expand(len(logits), -1)[..., None])
    return -picked[..., 0].mean(1)


def expected_calibration_error(logits: torch.Tensor, labels: torch.Tensor, temperature: torch.Tensor | float = 1.0):
    """Mean over images of |accuracy - confidence| of their bin of confidence, (model,) float64 in [0, 1].

    Confidence is the largest probability; `BINS` bins are equally wide. Arguments as of `negative_log_likelihood`.
    """
    confidence, answer = _scaled(logits, temperature).softmax(-1).max(-1)
    excess = (answer == labels).double() - confidence
    place = (confidence * BINS).long().clamp(max=BINS - 1)
    sums = torch.zeros(len(logits), BINS, dtype=torch.float64, device=logits.device).scatter_add_(1, place, excess)
    return sums.abs().sum(1) / logits.shape[1]


def fitted_temperature(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The temperature of least `negative_log_likelihood`, (model,) float64, between `COLDEST` and `HOTTEST`.

    The likelihood is concave in 1 / T, so bisection of its slope finds the one maximum.
    """
    low, high = (torch.full((len(logits),), t, dtype=torch.float64, device=logits.device) for t in (COLDEST, HOTTEST))
    z = logits.double()
    true = z.gather(-1, labels.expand(len(logits), -1)[..., None])[..., 0].mean(1)
    for _ in range(HALVINGS):
        middle = (low * high).sqrt()
        expected = ((z / middle[:, None, None]).softmax(-1) * z).sum(-1).mean(1)
        hotter = expected > true  # than the images bear out: the slope with respect to 1 / T is below zero
        low, high = torch.where(hotter, middle, low), torch.where(hotter, high, middle)
    return (low * high).sqrt()


def calibrated(bank: Bank, logits: torch.Tensor, labels: torch.Tensor) -> xr.Dataset:
    """Calibration from logits (model, image, class): fitted on the first half of the images, measured on the second.

    Returns:
        ``temperature``, ``nll`` and ``nll_fitted`` (nat), ``ece`` and ``ece_fitted``, all (model,).

    Raises:
        ValueError: fewer than two images.
    """
    half = len(labels) // 2
    if not half:
        raise ValueError(f"a temperature is fitted on one half of the images, measured on the other, got {len(labels)}")
    temperature = fitted_temperature(logits[:, :half], labels[:half])
    rest = logits[:, half:], labels[half:]
    columns = {
        "temperature": (temperature, "temperature of least loss", "1"),
        "nll": (negative_log_likelihood(*rest), "negative log-likelihood", "nat"),
        "nll_fitted": (negative_log_likelihood(*rest, temperature), "the same, temperature fitted", "nat"),
        "ece": (expected_calibration_error(*rest), "expected calibration error", "1"),
        "ece_fitted": (expected_calibration_error(*rest, temperature), "the same, temperature fitted", "1"),
    }
    arrays = {n: bank.array(v, long_name=text, units=units) for n, (v, text, units) in columns.items()}
    return xr.Dataset(arrays)


def _scaled(logits: torch.Tensor, temperature: torch.Tensor | float) -> torch.Tensor:
    return logits.double() / torch.as_tensor(temperature, dtype=torch.float64, device=logits.device)[..., None, None]
