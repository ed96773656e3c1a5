"""Largest eigenvalues of many symmetric matrices at once; on a GPU found from below and proven from above.

A full decomposition of a matrix of 512 rows takes a GPU about as long as a CPU. Lanczos' method finds the largest
eigenvalue from below with few products; that a number slightly larger is an upper bound is then proven by the Cholesky
decomposition of number * I - matrix, which exists only if no eigenvalue is larger. Where the proof fails, the full
decomposition decides. So an upper bound that is built on these numbers stays one.
"""

import torch

STEPS = 40  # products with the matrix; spectra of weights need 20 to 30 for ten digits
SLACK = 1e-10  # relative, between what is found from below and what is proven from above
EXHAUSTED = 1e-8  # length of a new direction, relative to the matrix, below which it is rounding
SMALL = 64  # rows up to which the full decomposition is as fast on a GPU too


def largest_eigenvalue(matrices: torch.Tensor) -> torch.Tensor:
    """Largest eigenvalues, (...,) float64: by full decomposition, for large matrices on a GPU by `proven_eigenvalue`.

    Args:
        matrices: (..., n, n) float64, symmetric without negative eigenvalues, such as W W^T.
    """
    if matrices.is_cuda and matrices.shape[-1] > SMALL:
        return proven_eigenvalue(matrices)
    return torch.linalg.eigvalsh(matrices)[..., -1]


def proven_eigenvalue(matrices: torch.Tensor) -> torch.Tensor:
    """Upper bounds of what `largest_eigenvalue` finds, relative excess at most `SLACK`; see the module."""
    n, batch = matrices.shape[-1], matrices.shape[:-2]
    flat = matrices.reshape(-1, n, n)
    bound = _from_below(flat) * (1 + SLACK)
    shifted = -flat
    shifted.diagonal(dim1=1, dim2=2).add_(bound[:, None])
    unproven = torch.linalg.cholesky_ex(shifted).info != 0
    if unproven.any():
        bound[unproven] = torch.linalg.eigvalsh(flat[unproven])[:, -1]
    return bound.view(batch)


def _from_below(matrices: torch.Tensor) -> torch.Tensor:
    """Lower bounds of the largest eigenvalues of (matrix, n, n): Rayleigh quotients after `STEPS` steps of Lanczos."""
    m, n, _ = matrices.shape
    options = {"dtype": matrices.dtype, "device": matrices.device}
    basis, tridiagonal = torch.zeros(m, STEPS, n, **options), torch.zeros(m, STEPS, STEPS, **options)
    vector = matrices.sum(2, keepdim=True)  # the image of (1, ..., 1): leans towards large eigenvalues
    scale = vector.norm(dim=1, keepdim=True)
    for step in range(STEPS):
        length = vector.norm(dim=1, keepdim=True)
        # zero once the space is exhausted; what follows then adds nothing
        length = torch.where(length > EXHAUSTED * scale, length, 0)
        vector = torch.where(length > 0, vector / length, 0)
        if step:
            tridiagonal[:, step, step - 1] = tridiagonal[:, step - 1, step] = length[:, 0, 0]
        basis[:, step] = vector[..., 0]
        vector = matrices @ vector
        if not step:
            scale = vector.norm(dim=1, keepdim=True)
        known = basis[:, : step + 1]
        for repeat in range(2):  # twice is enough (Kahan and Parlett)
            overlap = known @ vector
            if not repeat:
                tridiagonal[:, step, step] = overlap[:, step, 0]
            vector = vector - known.mT @ overlap
    ritz = basis.mT @ torch.linalg.eigh(tridiagonal).eigenvectors[:, :, -1:]
    # a quotient is never too large, whatever rounding did to the basis
    ritz = torch.nn.functional.normalize(ritz, dim=1)
    return (ritz * (matrices @ ritz)).sum((1, 2))
