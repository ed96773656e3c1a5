import numpy as np
import pytest
import torch

from hrebasin.lipschitz import spectra
from hrebasin.lipschitz.spectra import largest_eigenvalue, proven_eigenvalue
from hrebasin.random_streams import generator


def with_spectrum(eigenvalues, name):
    """A symmetric matrix with these eigenvalues and random eigenvectors."""
    n = len(eigenvalues)
    q = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator(f"test/spectra/{name}")))[0]
    matrix = q * torch.as_tensor(eigenvalues, dtype=torch.float64) @ q.T
    return (matrix + matrix.T) / 2


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


@pytest.mark.parametrize("name", SPECTRA)
def test_bounds_lie_just_above_the_proven_eigenvalue(name):
    matrix = with_spectrum(SPECTRA[name], name)
    largest = np.linalg.eigvalsh(matrix.numpy())[-1]
    found = proven_eigenvalue(matrix).item()
    rounding = 1e-13 * abs(largest)
    assert found >= largest - rounding
    assert found <= largest * (1 + 2 * spectra.SLACK) + 1e-300 + rounding


def test_many_matrices_are_each_their_own():
    matrices = torch.stack([with_spectrum(SPECTRA[name], name) for name in SPECTRA])
    together = proven_eigenvalue(matrices.view(2, 4, N, N))
    assert together.shape == (2, 4)
    alone = torch.stack([proven_eigenvalue(matrix) for matrix in matrices])
    torch.testing.assert_close(together.flatten(), alone, rtol=1e-9, atol=1e-250)


def test_on_a_cpu_matrices_are_decomposed():
    matrix = with_spectrum(SPECTRA["weights"], "decomposed")
    assert largest_eigenvalue(matrix) == torch.linalg.eigvalsh(matrix)[-1]


def test_a_number_from_below_that_is_too_small_is_found_out(monkeypatch):
    """The proof fails, and the full decomposition decides."""
    matrices = torch.stack([with_spectrum(SPECTRA[name], name) for name in ("weights", "two close")])
    expected = torch.linalg.eigvalsh(matrices)[:, -1]
    monkeypatch.setattr(spectra, "_from_below", lambda m: expected * torch.tensor([0.9, 1.0]))
    found = proven_eigenvalue(matrices)
    assert found[0] == expected[0]
    assert found[1] == expected[1] * (1 + spectra.SLACK)


def test_matrices_are_not_changed():
    matrix = with_spectrum(SPECTRA["weights"], "kept")
    before = matrix.clone()
    proven_eigenvalue(matrix)
    assert torch.equal(matrix, before)
