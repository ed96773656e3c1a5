import hashlib

import pytest
import torch

from hrebasin.random_streams import generator, seed_of

LAYER_ORDER_3 = [1846899522, 2095507345, 1824112750, 7895948]


def draw(name):
    return torch.randint(2**31, (4,), generator=generator(name)).tolist()


@pytest.mark.parametrize("name", ["initial-weights/17", "a", "Größe/ü"])
def test_seed_is_the_top_63_bits_of_sha256(name):
    assert seed_of(name) == int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) // 2


def test_seed_of_a_known_name():
    # SHA-256 of "abc" begins with ba7816bf 8f01cfea (FIPS 180-2, appendix B.1)
    assert seed_of("abc") == 0xBA7816BF8F01CFEA // 2


def test_same_name_same_stream_and_other_name_other_stream():
    assert draw("batch-order/17/0") == draw("batch-order/17/0")
    assert draw("batch-order/17/0") != draw("batch-order/17/1")
    assert draw("layer-order/3") == LAYER_ORDER_3, "of another process and another machine"


def test_streams_ignore_and_leave_the_global_state():
    torch.manual_seed(1)
    first = draw("noise")
    expected = torch.rand(1, generator=torch.Generator().manual_seed(1))
    assert torch.equal(torch.rand(1), expected)
    torch.manual_seed(2)
    assert draw("noise") == first


@pytest.mark.parametrize("name", ["", 17, None])
def test_a_stream_needs_a_name(name):
    with pytest.raises(ValueError, match=f"non-empty name, got {name!r}"):
        generator(name)
