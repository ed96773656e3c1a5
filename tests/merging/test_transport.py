"""Fusion of MLPs of different widths."""

import sys
from dataclasses import replace

import pytest
import torch

from hrebasin import Bank
from hrebasin.merging.merge import merge
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


@pytest.mark.parametrize("repaired", [False, True])
def test_equal_widths_give_the_registered_method(trained, train_images, repaired):
    pytest.importorskip("ot")
    some = trained.select(slice(3))
    fused = fuse([some.select([k]) for k in range(3)], repaired_on=train_images.pixels if repaired else None)
    expected = MERGES["ot-fusion"](some, 0, train_images, repaired=repaired)
    torch.testing.assert_close(fused.tensors, expected.tensors, rtol=1e-3, atol=1e-4)
    assert (fused.labels["method"].item(), fused.labels["n_merged"].item()) == ("ot-fusion", 3)


def test_doubled_units_come_together_again_and_repair_gives_back_what_the_mean_takes(trained, train_images, pixels):
    pytest.importorskip("ot")
    one = trained.select([0])
    wide = doubled(one)
    torch.testing.assert_close(fuse([one, wide]).tensors, one.tensors, rtol=1e-4, atol=1e-5)
    assert fuse([wide, one]).architecture == wide.architecture
    # twice as many units with half of the weights that lead on: the same answers, but columns of half the size
    halved = {name: tensor / 2 for name, tensor in wide.tensors.items() if name.endswith("weight") and "1" not in name}
    wide = Bank(wide.architecture, wide.tensors | halved)
    torch.testing.assert_close(wide(pixels), one(pixels), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(fuse([one, wide])(pixels), one(pixels), rtol=1e-1)
    repaired = fuse([one, wide], repaired_on=train_images.pixels)
    torch.testing.assert_close(repaired.tensors, one.tensors, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("repair", [False, True])
def test_networks_of_different_widths_are_merged_in_one_call(trained, train_images, repair):
    pytest.importorskip("ot")
    one, wide = trained.select([0]), doubled(trained.select([1]))
    networks, pixels = [one[0], wide[0]], train_images.pixels
    merged = merge(networks, pixels[:2], method="ot-fusion", images=pixels if repair else None, repair=repair)
    expected = fuse([one, wide], repaired_on=pixels if repair else None)
    for name, tensor in merged.named_parameters():
        torch.testing.assert_close(tensor, expected.tensors[name][0])
    with pytest.raises(ValueError, match="only networks of one architecture form a bank"):
        merge(networks, pixels[:2])
    with pytest.raises(ValueError, match="REPAIR needs training images"):
        merge(networks, pixels[:2], method="ot-fusion", repair=True)


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
