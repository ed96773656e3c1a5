import numpy as np
import pytest
import torch

import synthetic
from hrebasin.bank import Bank
from hrebasin.evaluation import evaluate
from hrebasin.lipschitz import bounds
from hrebasin.merging.tree import merge_tree
from hrebasin.study.questions.scale import answer, certified_radius, measure
from synthetic_questions import effects


def rescale(bank, factors):
    """Weights of layer l times factors[k, l], biases times the product of the factors up to l."""
    tensors, so_far = {}, factors.double().cumprod(1)
    for position, layer in enumerate(bank.architecture.layers):
        tensors[f"{layer}.weight"] = bank.tensors[f"{layer}.weight"] * factors[:, position, None, None]
        tensors[f"{layer}.bias"] = (bank.tensors[f"{layer}.bias"] * so_far[:, position, None]).float()
    return Bank(bank.architecture, tensors, bank.labels)


def test_scale_changes_bounds_and_no_certificate(trained, test_images):
    given = (test_images.pixels[:20], test_images.labels[:20])
    scaled = rescale(trained, torch.full((8, 4), 0.5))
    plain, smaller = (bounds.measure(bank, *given, radii=[0.01, 0.05, 0.1], bounded=10) for bank in (trained, scaled))
    np.testing.assert_allclose(smaller.lipschitz, plain.lipschitz / 16, rtol=1e-5)
    one, other = certified_radius(plain), certified_radius(smaller)
    assert one.sizes == {"model": 8, "certificate": 3, "image": 20}
    assert one.sel(certificate="global").notnull().all()
    assert one.sel(certificate="local").notnull().sum("image").values.tolist() == [10] * 8  # those with local bounds
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


def test_nothing_changes_an_answer_within_the_certified_radius(trained, test_images):
    given = (test_images.pixels[:20], test_images.labels[:20])
    radius = certified_radius(bounds.measure(trained, *given, radii=[0.01, 0.05, 0.1, 0.3], bounded=20))
    largest = torch.from_numpy(radius.max("certificate").values)
    assert (largest > 0).any()
    # a local bound is at most the global one, so it certifies as much, up to the largest radius of its ball
    least = radius.sel(certificate="global").clip(max=0.3)
    assert (radius.sel(certificate="local") >= 0.999 * least).all()
    wrong = trained(given[0]).argmax(-1) != given[1]
    assert (largest[wrong] == 0).all()
    direction = torch.randn(20, 8, *given[0].shape, generator=torch.Generator().manual_seed(1))
    direction /= direction.flatten(3).norm(dim=3)[..., None, None, None]
    for step in direction:
        moved = given[0].double() / 255 + 0.999 * largest[..., None, None, None] * step
        answers = trained(moved.float()).argmax(-1)
        assert (answers == given[1])[largest > 0].all()


def test_leaves_at_the_norms_of_their_nodes_are_as_if_they_had_been_rescaled(trained, test_images):
    bank, options = Bank.concat(merge_tree(trained.relabel(group=2))), {"radii": [0.05], "bounded": 5}
    images = test_images.first(30)
    regularity = bounds.measure(bank, images.pixels, images.labels, **options)
    record = measure(bank, regularity, evaluate(bank, test_images).accuracy)
    assert record.sizes["model"] == 15 + 3 * 8
    top = bank.where(stage=3)
    norms = [
        torch.stack([torch.linalg.vector_norm(each.tensors[f"fc{k}.weight"], dim=(1, 2)) for k in range(1, 5)], dim=1)
        for each in (top, trained)
    ]
    moved = rescale(trained, norms[0] / norms[1])
    assert torch.equal(moved(images.pixels).argmax(-1), trained(images.pixels).argmax(-1))
    expected = bounds.measure(moved, images.pixels, images.labels, **options)
    rescaled = synthetic.some(record, method="rescaled", stage=3)
    np.testing.assert_allclose(rescaled.lipschitz, expected.lipschitz, rtol=1e-5)
    np.testing.assert_allclose(rescaled.gradient_norm, expected.gradient_norm.max("image"), rtol=1e-4)
    np.testing.assert_allclose(rescaled.certified_radius, certified_radius(expected).mean("image"), rtol=1e-3)
    np.testing.assert_array_equal(rescaled.test_accuracy, synthetic.some(record, method="unmerged").test_accuracy)


def test_what_scale_alone_makes_is_a_share_of_the_fall(measured):
    data = measured["scale"]
    logs = np.log10(data.lipschitz.sel(bound="global"))
    kinds = {"unmerged": 0, "tree": 2, "rescaled": 2}
    mean = {name: logs[((data.method == name) & (data.stage == at)).values].mean().item() for name, at in kinds.items()}
    fall, by_scale = (mean["unmerged"] - mean[name] for name in ("tree", "rescaled"))
    found = effects("scale", data)
    assert found["log10 global bound, stage 0 minus stage 2"] == pytest.approx(fall)
    assert found["log10 global bound, stage 0 minus stage 0 at the norms of stage 2"] == pytest.approx(by_scale)
    share = found["share of the fall of the global bound that scale alone makes"]
    assert share == pytest.approx(100 * by_scale / fall, rel=1e-3)


def test_regularised_networks_stand_beside_the_stage_that_is_as_accurate():
    data = synthetic.results(groups=3, noise=0)["scale"]
    found, about = effects("scale", data), "stage 1 minus L2-regularised networks of strength 0.01"
    assert found[f"accuracy: {about}"] == pytest.approx(0, abs=1e-9)
    assert found[f"log10 global bound: {about}"] == pytest.approx(np.log10(3) - 0.3)
    assert found[f"log10 sampled lower bound: {about}"] == pytest.approx(np.log10(3) - 0.3)
    assert found[f"certified radius by the local bound: {about}"] == pytest.approx(0.03)
    assert not [name for name in found if "regularised" in name and about not in name]
    assert "At stage 1, the bound is 1.5 times that of L2-regularised networks within 2 points" in answer(data)[1]
