import numpy as np
import pytest
import torch

from hrebasin.lipschitz import spectra
from hrebasin.lipschitz.spectra import largest_eigenvalue, proven_eigenvalue
from hrebasin.random_streams import generator

N = 120
SPECTRA = {
    "weights": np.linspace(0.1, 2, N) ** 4,
    "flat": np.ones(N),
    "two close": np.r_[np.linspace(0, 1, N - 2), 3, 3 + 1e-9],
    "rank one": np.r_[np.zeros(N - 1), 5.0],
    "low rank": np.r_[np.zeros(N - 3), 1.0, 2.0, 7.0],
    "zero": np.zeros(N),
    "tiny": 1e-200 * np.linspace(0, 1, N),
    "crowded": 1 - np.logspace(-12, 0, N)[::-1] / 2,
}


def with_spectrum(name):
    """A symmetric matrix with these eigenvalues and random eigenvectors."""
    q = torch.linalg.qr(torch.randn(N, N, dtype=torch.float64, generator=generator(f"test/spectra/{name}")))[0]
    matrix = q * torch.as_tensor(SPECTRA[name], dtype=torch.float64) @ q.T
    return (matrix + matrix.T) / 2


def test_bounds_lie_just_above_the_eigenvalue_and_many_matrices_are_each_their_own():
    matrices = torch.stack([with_spectrum(name) for name in SPECTRA])
    before, together = matrices.clone(), proven_eigenvalue(matrices.view(2, 4, N, N))
    assert together.shape == (2, 4)
    for matrix, found in zip(matrices, together.flatten(), strict=True):
        largest = np.linalg.eigvalsh(matrix.numpy())[-1]
        rounding = 1e-13 * abs(largest)
        assert largest - rounding <= found.item() <= largest * (1 + 2 * spectra.SLACK) + 1e-300 + rounding
        torch.testing.assert_close(found, proven_eigenvalue(matrix), rtol=1e-9, atol=1e-250)
    assert torch.equal(matrices, before)
    assert largest_eigenvalue(matrices[0]) == torch.linalg.eigvalsh(matrices[0])[-1], "on a CPU it is decomposed"


def test_a_number_from_below_that_is_too_small_is_found_out(monkeypatch):
    """The proof fails, and the full decomposition decides."""
    matrices = torch.stack([with_spectrum(name) for name in ("weights", "two close")])
    expected = torch.linalg.eigvalsh(matrices)[:, -1]
    monkeypatch.setattr(spectra, "_from_below", lambda m: expected * torch.tensor([0.9, 1.0]))
    found = proven_eigenvalue(matrices)
    assert found[0] == expected[0]
    assert found[1] == pytest.approx(expected[1].item() * (1 + spectra.SLACK), rel=1e-15)
