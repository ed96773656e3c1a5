import pytest
import torch

from hrebasin import resources as memory
from hrebasin.resources import fitting, halving


def test_what_fits(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: {"cpu": 1000, "cuda": 4000}[device])
    assert fitting(100, share=0.5) == 5
    assert fitting(100, device="cuda", share=0.5) == 20
    assert fitting(100, share=0.5, most=3) == 3
    assert fitting(1e9) == 1


def test_the_size_is_halved_until_it_fits():
    tried = []

    def work(size):
        tried.append(size)
        if size > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return f"done with {size}"

    with pytest.warns(UserWarning, match="out of GPU memory") as warnings:
        assert halving(work, 40, what="networks") == ("done with 5", 5)
    assert tried == [40, 20, 10, 5]
    assert str(warnings[0].message) == "out of GPU memory with 40 networks at once: going on with 20"


def test_what_does_not_fit_alone_is_an_error():
    def work(size):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.warns(UserWarning, match="going on with 1"), pytest.raises(torch.OutOfMemoryError):
        halving(work, 2, what="networks")


def test_other_errors_are_not_hidden():
    def work(size):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        halving(work, 8, what="networks")
