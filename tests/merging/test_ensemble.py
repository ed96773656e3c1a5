import pytest
import torch

from hrebasin import ensemble, evaluate, merge
from hrebasin.merging.methods import merge_sets
from hrebasin.robustness.attacks import attack
from other_networks import KINDS, SHAPE, untrained


@pytest.mark.parametrize("kind", ["mlp", *KINDS])
def test_its_probabilities_are_the_mean_of_those_of_its_members(trained, pixels, kind, unchanged):
    bank, inputs = (trained, pixels) if kind == "mlp" else (untrained(kind, 3), torch.rand(5, *SHAPE))
    unchanged(bank)
    whole = ensemble(bank)
    torch.testing.assert_close(whole(inputs)[0].exp(), bank(inputs).softmax(-1).mean(0))


def test_it_is_labelled_evaluated_and_attacked_as_a_network(trained, test_images):
    whole, few = ensemble(trained.relabel(group=3)), test_images.first(20)
    told = [whole.labels[name].item() for name in ("method", "n_merged", "stage", "group")]
    assert told == ["ensemble", 8, 3, 3]

    def accuracy(pixels):
        return (trained(pixels).softmax(-1).mean(0).argmax(-1) == few.labels).double().mean().item()

    robust = attack(whole, few.pixels, few.labels, kind="fgsm", epsilons=[0.0, 0.02]).robust_accuracy
    assert robust.sel(epsilon=0.0).item() == evaluate(whole, few).accuracy.item() == pytest.approx(accuracy(few.pixels))
    # one step of the sign of the gradient of the mean's loss
    x = (few.pixels.float() / 255).requires_grad_()
    loss = -trained(x).softmax(-1).mean(0).log().gather(1, few.labels[:, None]).sum()
    moved = (x + 0.02 * torch.autograd.grad(loss, x)[0].sign()).clamp(0, 1)
    assert robust.sel(epsilon=0.02).item() == pytest.approx(accuracy(moved))
    # and is no method: whoever asks for it as one is shown the way
    for ask in (lambda: merge(list(trained), method="ensemble"), lambda: merge_sets([trained], ["ensemble"])):
        with pytest.raises(ValueError, match=r"no method merges into one: hrebasin\.ensemble\(bank\) runs them"):
            ask()
