"""Recurrent networks: units change places in every gate, in the states that they keep and in what reads them."""

import copy

import pytest
import torch
from torch import nn

import hrebasin
from hrebasin.random_streams import generator

EXAMPLE = torch.rand(2, 7, 5)


class Recurrent(nn.Module):
    """A linear layer, a recurrent one, and a linear one on the last step, or on the state ``read``."""

    def __init__(self, kind: str, read: int | None = None, *, learned: bool = False, **options):
        super().__init__()
        self.first, self.kind, self.read = nn.Linear(5, 6), kind, read
        self.recurrent = getattr(nn, kind)(6, 8, batch_first=True, **options)
        directions, shown = 1 + options.get("bidirectional", 0), options.get("proj_size", 8)
        self.last = nn.Linear(directions * shown if read is None else (shown, 8)[read], 3)
        if learned:
            self.start = nn.Parameter(torch.randn(directions * options.get("num_layers", 1), 1, 8))
        self.learned = learned

    def forward(self, x):
        state = None
        if self.learned:
            start = self.start.expand(-1, len(x), -1).contiguous()
            state = (start, torch.zeros_like(start)) if self.kind == "LSTM" else start
        steps, states = self.recurrent(self.first(x).relu(), state)
        if self.read is None:
            return self.last(steps[:, -1])
        return self.last((states[self.read] if self.kind == "LSTM" else states)[-1])


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(
    ("kind", "read", "options", "sizes"),
    [
        ("LSTM", None, {}, [6, 8]),
        ("GRU", None, {"num_layers": 2}, [6, 8, 8]),
        ("RNN", None, {"bidirectional": True, "bias": False}, [6, 8, 8]),
        ("RNN", None, {"nonlinearity": "relu"}, [6, 8]),
        ("LSTM", None, {"num_layers": 2, "bidirectional": True}, [6, 8, 8, 8, 8]),
        ("LSTM", None, {"proj_size": 4}, [6, 8, 4]),
        ("LSTM", 0, {"num_layers": 2, "proj_size": 4}, [6, 8, 4, 8]),  # one tensor of both layers is read
        ("LSTM", 1, {"num_layers": 2}, [6, 8]),
        ("GRU", 0, {"num_layers": 2}, [6, 8]),
        ("GRU", None, {"num_layers": 2, "learned": True}, [8, 6]),  # and one is given
        ("LSTM", None, {"num_layers": 2, "learned": True}, [8, 6]),
    ],
)
def test_recurrent_layers_have_all_permutations_and_these_are_proven(kind, read, options, sizes):
    network = Recurrent(kind, read, **options)
    symmetry = hrebasin.derive_symmetry(network, EXAMPLE)
    assert list(symmetry.permutations.values()) == sizes
    assert not symmetry.without_rule
    assert hrebasin.prove_symmetry(network, symmetry, torch.randn(4, 7, 5)) < 1e-12


def test_a_permuted_copy_is_merged_without_loss():
    network = Recurrent("LSTM", num_layers=2, bidirectional=True).requires_grad_(False)
    symmetry = hrebasin.derive_symmetry(network, EXAMPLE)
    planted, moved = symmetry.random_permutations(generator("planted")), copy.deepcopy(network)
    moved.load_state_dict(symmetry.apply(network.state_dict(), planted))
    torch.testing.assert_close(hrebasin.merge([network, moved], EXAMPLE)(EXAMPLE), network(EXAMPLE))
