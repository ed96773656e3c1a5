"""Accuracy under random perturbations of the pixels."""

from collections.abc import Sequence

import numpy as np
import torch

from ..bank import Bank
from ..progress import track
from ..random_streams import generator


def noise_accuracy(
    bank: Bank, pixels: torch.Tensor, labels: torch.Tensor, kind: str, epsilons: Sequence[float], draws: int
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy under random perturbations, all arguments as in `hrebasin.robustness.attacks.attack`, checked.

    Returns:
        The accuracy, (model, epsilon, draw), and in how many draws each image is classified correctly, (model, epsilon,
        image) int16.
    """
    accuracy = np.empty((len(bank), len(epsilons), draws))
    counts, without = np.zeros((len(bank), len(epsilons), len(labels)), np.int16), None
    draw_noise = {"gaussian": torch.randn, "uniform": lambda *a, **k: 2 * torch.rand(*a, **k) - 1}[kind]
    with torch.no_grad():
        for draw in track(range(draws), label=kind, unit="draw"):
            noise = draw_noise(pixels.shape, generator=generator(f"noise/{kind}/{draw}")).to(pixels.device)
            for position, epsilon in enumerate(epsilons):
                if draw and not epsilon:  # nothing is drawn
                    right = without
                else:
                    right = bank((pixels + epsilon * noise).clamp_(0, 1)).argmax(-1) == labels
                    without = right if not epsilon else without
                accuracy[:, position, draw] = right.double().mean(1).cpu()
                counts[:, position] += right.cpu().numpy()
    return accuracy, counts
