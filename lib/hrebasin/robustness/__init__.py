"""Robustness of banks: Foolbox attacks, stronger attacks, and noise."""
