"""Accuracy under random perturbations of the pixels."""

import numpy as np
import torch

from ..progress import track
from ..random_streams import generator


def _noise(bank, pixels, labels, kind, epsilons, draws) -> np.ndarray:
    """Accuracy under random perturbations, (model, epsilon, draw)."""
    accuracy = np.empty((len(bank), len(epsilons), draws))
    draw_noise = {"gaussian": torch.randn, "uniform": lambda *a, **k: 2 * torch.rand(*a, **k) - 1}[kind]
    with torch.no_grad():
        for draw in track(range(draws), label=kind, unit="draw"):
            noise = draw_noise(pixels.shape, generator=generator(f"noise/{kind}/{draw}")).to(pixels.device)
            for position, epsilon in enumerate(epsilons):
                outputs = bank((pixels + epsilon * noise).clamp_(0, 1))
                accuracy[:, position, draw] = (outputs.argmax(-1) == labels).double().mean(1).cpu()
    return accuracy
