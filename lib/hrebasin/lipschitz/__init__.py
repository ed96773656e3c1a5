"""Regularity of banks: weight norms, bounds on Lipschitz constants, and the eigenvalues behind them."""
