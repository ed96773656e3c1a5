import pytest
import torch

from hrebasin import ensemble, evaluate, merge, merge_naive
from hrebasin.merging.distillation import distilled
from hrebasin.merging.methods import merge_sets
from hrebasin.robustness.attacks import attack
from other_networks import KINDS, SHAPE, untrained, with_dropout


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


def test_a_student_comes_nearer_to_its_teacher_whose_own_teaches_nothing(trained, train_images, test_images, unchanged):
    unchanged(trained)
    teacher, student = ensemble(trained), merge_naive(trained)
    given = {"pixels": train_images.pixels, "seed": "x", "learning_rate": 0.01}
    taught = distilled(student, teacher, **given, epochs=30)
    assert taught.labels["method"].tolist() == ["distilled"]
    before, after, above = (evaluate(bank, test_images).loss.item() for bank in (student, taught, teacher))
    assert above < after < 0.8 * before
    once, again = (distilled(student, teacher, **given, epochs=1).tensors for _ in range(2))
    assert all(torch.equal(tensor, again[name]) for name, tensor in once.items())
    one = trained.select([0])
    same = distilled(one, one, train_images.pixels, epochs=1)  # Adam's steps are small, the gradient is rounding
    torch.testing.assert_close(same(train_images.pixels), one(train_images.pixels), rtol=0.1, atol=0.1)


def test_dropout_draws_nothing():
    bank, inputs, found = untrained(with_dropout, 3), torch.rand(30, *SHAPE), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(distilled(bank.select([0]), ensemble(bank), inputs, epochs=1))
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, found[1].tensors[name]) for name, tensor in found[0].tensors.items())
    assert (found[0].tensors["1.running_mean"] != bank.tensors["1.running_mean"][:1]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_any_network_can_be_a_student(kind):
    bank, inputs = untrained(kind, 3), torch.rand(30, *SHAPE)
    taught = distilled(bank.select([0]), ensemble(bank), inputs, epochs=1)
    assert not torch.equal(taught.tensors["classifier.weight"], bank.tensors["classifier.weight"][:1])
    with pytest.raises(ValueError, match="distilling takes one student, got 3"):
        distilled(bank, ensemble(bank), inputs)
