import numpy as np
import pytest
import torch

from hrebasin.evaluation import evaluate
from hrebasin.images.sources import Images
from hrebasin.random_streams import generator
from hrebasin.robustness.attacks import attack
from hrebasin.study.questions.image_versions import counterparts, measure

EPSILONS = [0.0, 0.05, 0.1]


def noisy(images: Images, size: int) -> Images:
    """Another version of the images."""
    noise = torch.randint(-size, size + 1, images.pixels.shape, generator=generator("test/versions"))
    return Images((images.pixels + noise).clamp(0, 255).byte(), images.labels, images.classes, "noisy")


def shuffled(images: Images) -> tuple[Images, torch.Tensor]:
    order = torch.randperm(len(images), generator=generator("test/order"))
    return Images(images.pixels[order], images.labels[order], images.classes, images.source), order


def test_every_image_is_found_again_in_another_order_and_version(test_images):
    other, order = shuffled(noisy(test_images, 10))
    found = counterparts(test_images.first(40), other)
    assert torch.equal(order[found], torch.arange(40))


def test_other_images_are_no_version(trained, test_images, train_images):
    pixels, labels, classes = test_images.pixels, test_images.labels, test_images.classes
    for other, message in (
        (train_images.first(30), "train images is no other version of .* images share their nearest"),
        (Images(pixels, labels, ("x", *classes[1:]), "other classes"), "other classes has"),
        (Images(pixels[labels == 0], labels[labels == 0], classes, "one class"), "one class has no image of class"),
    ):
        with pytest.raises(ValueError, match=message):
            counterparts(test_images, other)
    with pytest.raises(ValueError, match="are not two versions of the same"):
        measure(trained, test_images, shuffled(test_images)[0], epsilons=EPSILONS)


def test_versions_are_measured_as_the_attacks_and_accuracies_alone(trained, test_images):
    bank, other = trained.select(slice(2)), noisy(test_images, 25)
    found = measure(bank, test_images, other, epsilons=EPSILONS)
    for version, images in enumerate((test_images, other)):
        for kind in ("fgsm", "deepfool-linf"):
            alone = attack(bank, images.pixels, images.labels, kind=kind, epsilons=EPSILONS).robust_accuracy
            np.testing.assert_array_equal(found.robust_accuracy.isel(version=version).sel(attack=kind), alone)
        clean = evaluate(bank, images).accuracy
        np.testing.assert_allclose(found.robust_accuracy.isel(version=version, epsilon=0, attack=0), clean)
    answers = [bank(images.pixels).argmax(-1) for images in (test_images, other)]
    np.testing.assert_allclose(found.agreement, (answers[0] == answers[1]).double().mean(1))
    error = (test_images.pixels[3].double() - other.pixels[3].double()).square().mean().item()
    assert found.psnr[3].item() == pytest.approx(10 * np.log10(255**2 / error))
    assert np.isinf(measure(bank, test_images, test_images, epsilons=EPSILONS).psnr).all(), "of themselves"
