import pytest
import torch

from hrebasin.random_streams import generator, seed_of


def draw(name):
    return torch.randint(2**31, (4,), generator=generator(name)).tolist()


def test_a_name_is_a_stream_of_its_own_everywhere():
    # SHA-256 of "abc" begins with ba7816bf 8f01cfea (FIPS 180-2, appendix B.1)
    assert seed_of("abc") == 0xBA7816BF8F01CFEA // 2
    assert draw("batch-order/17/0") == draw("batch-order/17/0") != draw("batch-order/17/1")
    assert draw("layer-order/3") == [1846899522, 2095507345, 1824112750, 7895948], "of another process and machine"
    assert draw("Größe/ü") != draw("Größe/u")


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
