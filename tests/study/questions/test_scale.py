import numpy as np
import pytest
import torch

import synthetic
from hrebasin.bank import Bank
from hrebasin.lipschitz import bounds
from hrebasin.lipschitz.norms import weight_norm
from hrebasin.merging.tree import merge_tree
from hrebasin.study.questions.scale import answer, certified_radius, measure, rescale, rescale_to
from synthetic_questions import effects


def test_rescaled_networks_decide_as_before_and_logits_scale(trained, pixels):
    factors = torch.tensor([[0.5, 2.0, 0.25, 3.0]]).repeat(8, 1)
    scaled = rescale(trained, factors)
    torch.testing.assert_close(scaled(pixels), 0.75 * trained(pixels), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scaled.tensors["fc1.weight"], 0.5 * trained.tensors["fc1.weight"])


def test_networks_take_the_norms_of_others(trained, pixels):
    top = merge_tree(trained)[-1].select([0] * 8)
    scaled = rescale_to(trained, top)
    for layer in trained.architecture.layers:
        norms = (torch.linalg.vector_norm(bank.tensors[f"{layer}.weight"], dim=(1, 2)) for bank in (scaled, top))
        torch.testing.assert_close(*norms)
    assert torch.equal(scaled(pixels).argmax(-1), trained(pixels).argmax(-1))
    assert (weight_norm(scaled).sum("layer").values < weight_norm(trained).sum("layer").values).all()


def test_scale_changes_bounds_and_no_certificate(trained, test_images):
    given = (test_images.pixels[:20], test_images.labels[:20])
    scaled = rescale(trained, torch.full((8, 4), 0.5))
    plain, smaller = (bounds.measure(bank, *given, radii=[0.01, 0.05, 0.1], bounded=10) for bank in (trained, scaled))
    np.testing.assert_allclose(smaller.lipschitz, plain.lipschitz / 16, rtol=1e-5)
    one, other = certified_radius(plain), certified_radius(smaller)
    assert one.sizes == {"model": 8, "certificate": 3, "image": 10}
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
    direction = torch.randn(50, 8, *given[0].shape, generator=torch.Generator().manual_seed(1))
    direction /= direction.flatten(3).norm(dim=3)[..., None, None, None]
    for step in direction:
        moved = given[0].double() / 255 + 0.999 * largest[..., None, None, None] * step
        answers = trained(moved.float()).argmax(-1)
        assert (answers == given[1])[largest > 0].all()


def test_leaves_at_the_norms_of_their_nodes_lose_the_norm_and_no_certificate(trained, test_images):
    bank = Bank.concat(merge_tree(trained.relabel(group=2)))
    record = measure(bank, test_images, measured=30, bounded=5, radii=[0.05])
    assert record.sizes["model"] == 15 + 3 * 8
    leaves = record.isel(model=(record.method == "unmerged").values)
    rescaled = record.isel(model=((record.method == "rescaled") & (record.stage == 3)).values)
    top = record.isel(model=((record.method == "tree") & (record.stage == 3)).values)
    np.testing.assert_array_equal(rescaled.test_accuracy, leaves.test_accuracy)
    np.testing.assert_allclose(rescaled.certified_radius, leaves.certified_radius, rtol=1e-3, atol=1e-6)
    assert (record.gradient_norm <= 1.001 * record.lipschitz.min("bound")).all()
    assert (record.gradient_norm > 0).all()
    ratio = leaves.median_margin / rescaled.median_margin.values
    np.testing.assert_allclose(leaves.lipschitz.sel(bound="global") / rescaled.lipschitz.values[:, 0], ratio, rtol=1e-4)
    # biases are scaled otherwise, so the sums of weights' and biases' norms are near one another, not equal
    np.testing.assert_allclose(rescaled.weight_norm.sum("layer"), top.weight_norm.sum("layer").item(), rtol=0.1)


@pytest.mark.parametrize(
    ("factors", "message"),
    [(torch.ones(8, 3), r"here \(8, 4\), got \(8, 3\)"), (torch.zeros(8, 4), "positive and finite, got 0 to 0")],
)
def test_factors_that_cannot_be_are_refused(trained, factors, message):
    with pytest.raises(ValueError, match=message):
        rescale(trained, factors)
    with pytest.raises(ValueError, match="8 networks cannot take the norms of 1"):
        rescale_to(trained, trained.select([0]))


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
    assert "the bound is 1.5 times as large (stage 1) as that of L2" in answer(data)[1]
