"""Fusion of MLPs of different widths."""

import sys
from dataclasses import replace

import pytest
import torch

from hrebasin import Bank
from hrebasin.merging.methods import MERGES
from hrebasin.merging.transport import fuse


def doubled(bank: Bank) -> Bank:
    """Every hidden unit twice, with the weights that lead on from it."""
    architecture = replace(bank.architecture, widths=tuple(2 * width for width in bank.architecture.widths))
    tensors, last = {}, len(architecture.layers)
    for number, (weight, bias) in enumerate(architecture.layers.values(), start=1):
        rows, columns = 1 + (number < last), 1 + (number > 1)
        tensors[weight] = bank.tensors[weight].repeat(1, rows, columns)
        tensors[bias] = bank.tensors[bias].repeat(1, rows)
    return Bank(architecture, tensors)


def test_equal_widths_give_the_registered_method(trained):
    pytest.importorskip("ot")
    some = trained.select(slice(3))
    fused, merged = fuse([some.select([k]) for k in range(3)]), MERGES["ot-fusion"](some)
    for name, tensor in merged.tensors.items():
        torch.testing.assert_close(fused.tensors[name], tensor, rtol=1e-4, atol=1e-5)
    assert (fused.labels["method"].item(), fused.labels["n_merged"].item()) == ("ot-fusion", 3)


def test_doubled_units_come_together_again(trained):
    pytest.importorskip("ot")
    one = trained.select([0])
    for name, tensor in fuse([one, doubled(one)]).tensors.items():
        torch.testing.assert_close(tensor, one.tensors[name], rtol=1e-4, atol=1e-5)
    assert fuse([doubled(one), one]).architecture == doubled(one).architecture


def test_what_cannot_be_fused_is_refused(trained, monkeypatch):
    one = trained.select([0])
    with pytest.raises(ValueError, match="two or more banks of one network"):
        fuse([trained])
    deeper = replace(one.architecture, widths=(12, 10, 8, 8))
    other = Bank(deeper, {name: torch.rand(1, *shape) for name, shape in deeper.shapes.items()})
    with pytest.raises(ValueError, match="networks of one depth, image shape and number of classes"):
        fuse([one, other])
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'hrebasin\[ot\]'"):
        fuse([one, one])
