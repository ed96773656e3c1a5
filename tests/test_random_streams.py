import hashlib
import os
import subprocess
import sys

import pytest
import torch

from hrebasin.random_streams import generator, seed_of


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


def test_streams_ignore_and_leave_the_global_state():
    torch.manual_seed(1)
    first = draw("noise")
    expected = torch.rand(1, generator=torch.Generator().manual_seed(1))
    assert torch.equal(torch.rand(1), expected)
    torch.manual_seed(2)
    assert draw("noise") == first


def test_same_stream_in_another_process():
    code = (
        "import torch; from hrebasin.random_streams import generator;"
        "print(torch.randint(2**31, (4,), generator=generator('layer-order/3')).tolist())"
    )
    # another hash seed: Python's own hash() would give another stream
    environment = os.environ | {"PYTHONHASHSEED": "4711"}
    output = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert output.strip() == str(draw("layer-order/3"))


@pytest.mark.parametrize("name", ["", 17, None])
def test_a_stream_needs_a_name(name):
    with pytest.raises(ValueError, match=f"non-empty name, got {name!r}"):
        generator(name)
