"""Which orders of labelled images mix their classes, so that the first n are a fair part."""

import numpy as np
import pytest

from hrebasin.files import project_root
from hrebasin.images.order import in_order, mixes
from hrebasin.images.sources import load_images

RNG = np.random.default_rng(0)
EVEN, UNEVEN, FEW = np.repeat(np.arange(10), 100), np.repeat([0, 1, 2], [700, 250, 50]), np.repeat([0, 1], 3)


@pytest.mark.parametrize("labels", [EVEN, UNEVEN, np.repeat([0, 1], 40)])
def test_orders_drawn_at_random_mix_and_turns_do(labels):
    assert all(mixes(RNG.permutation(labels)) for _ in range(100))
    assert mixes(np.arange(1000) % 10)
    assert mixes(np.array([0]))
    assert mixes(load_images("cifar10-sample", "train", root=project_root() / "data").labels.numpy())


BLOCKS = {
    "class by class": EVEN,
    "the last class first": EVEN[::-1],
    "few": FEW,
    "of uneven size": UNEVEN,
    "several of each class": np.tile(np.repeat(np.arange(10), 10), 10),
    "few, in blocks": np.tile(np.repeat([0, 1], 10), 2),
    "fewer, in blocks": np.tile(np.repeat([0, 1], 5), 2),
    "pairs": np.repeat(RNG.permutation(EVEN), 2),
    "half of the classes, then the others": np.concatenate([RNG.permutation(EVEN[:500]), RNG.permutation(EVEN[500:])]),
    "one class last": np.append(RNG.permutation(EVEN[:900]), EVEN[900:]),
}


@pytest.mark.parametrize("labels", BLOCKS.values(), ids=BLOCKS)
def test_numbers_that_go_class_by_class_are_no_order(tmp_path, labels):
    assert not mixes(labels)
    files = [(tmp_path / str(label) / f"{place:05}.png", label) for place, label in enumerate(labels)]
    files.sort(key=lambda file: (file[1], file[0]))
    found, original = in_order(files)
    assert not original
    assert sorted(found, key=lambda file: (file[1], file[0])) == files
    assert in_order(files)[0] == found
    if len(labels) > 2 * len(FEW):
        assert mixes(np.array([label for _, label in found]))
