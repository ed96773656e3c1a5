import numpy as np
import pytest
import torch

from hrebasin.study.tour.federated import WAYS, draw, one_shot, shares


def test_every_image_belongs_to_one_client_and_small_alphas_mean_few_classes():
    labels, most = torch.arange(4000) % 10, []
    for alpha in (0.1, 1.0, 100.0):
        parts = shares(labels, 4, alpha, seed="x")
        assert torch.equal(torch.cat(parts).sort().values, torch.arange(4000))
        assert all(map(torch.equal, parts, shares(labels, 4, alpha, seed="x")))
        assert not torch.equal(parts[0], shares(labels, 4, alpha, seed="y")[0])
        most.append(np.mean([labels[part].bincount(minlength=10).max() / len(part) for part in parts]))
    assert most[0] > most[1] > most[2] == pytest.approx(0.1, abs=0.03)
    with pytest.raises(ValueError, match="60 images cannot be shared by 4 clients with alpha 1"):
        shares(labels[:60], 4, 1, seed="x")
    with pytest.raises(ValueError, match="alpha 0.001 is too small to share 4000 images by 16 clients"):
        shares(labels, 16, 0.001, seed="x")


def test_a_round_tells_accuracies_and_what_is_sent(train_images, test_images):
    given = {"clients": [2, 4], "alphas": [100.0], "repeats": 2, "widths": [8, 6], "epochs": 30}
    found = one_shot(train_images, train_images.pixels, test_images, **given)
    mean = found.accuracy.mean(("repeat", "alpha"))
    assert (mean.sel(way="ensemble") >= mean.sel(way="naive")).all()
    megabytes = 4 * (48 * 8 + 8 + 8 * 6 + 6 + 6 * 4 + 4) / 1e6
    np.testing.assert_allclose(found.up, [2 * megabytes, 4 * megabytes])
    np.testing.assert_allclose(found.down.sel(way="tree"), [2 * megabytes, 4 * megabytes])
    np.testing.assert_allclose(found.down.sel(way="ensemble"), [4 * megabytes, 16 * megabytes])
    assert len(draw(found).axes[0].lines) >= len(WAYS)
