"""The ensemble of networks as one network: the upper reference of accuracy, at the cost of all of them."""

import math

import torch
from torch import nn

from ..architectures import NetworkArchitecture
from ..bank import Bank, check_finite
from ..checks import check_bank
from ..resources import plain_torch
from ..symmetry import Factor, Symmetry
from .distances import merged_labels


class Ensemble(nn.Module):
    """Networks whose logits are together the log of the mean of their softmax outputs."""

    def __init__(self, members):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, inputs):
        """Log probabilities (image, class); their softmax is that mean."""
        each = torch.stack([member(inputs).log_softmax(-1) for member in self.members])
        return each.logsumexp(0) - math.log(len(self.members))


@plain_torch()
def ensemble(bank: Bank) -> Bank:
    """All networks of a bank as a bank of one, method ``ensemble``, to be evaluated and attacked as any other.

    Args:
        bank: the members; not changed. Their units may stand in any order, and the ensemble has no permutations.
    """
    check_bank(bank)
    check_finite(bank, "ensemble")
    network = Ensemble(list(bank)).eval().requires_grad_(False)
    saved = network.state_dict()
    tensors = dict(network.named_parameters())
    tensors |= {name: buffer for name, buffer in network.named_buffers() if name in saved}
    axes = {name: tuple(((Factor(None, size),),) for size in tensor.shape) for name, tensor in tensors.items()}
    like = bank.architecture
    architecture = NetworkArchitecture(network, tuple(like.image_shape), like.n_classes, Symmetry({}, axes))
    stacked = {name: tensor.detach().clone()[None].to(bank.device) for name, tensor in tensors.items()}
    return Bank(architecture, stacked, merged_labels(bank) | {"method": "ensemble"})
