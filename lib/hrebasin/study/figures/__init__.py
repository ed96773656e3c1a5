"""Figures from data sets: style, the plots of the paper, and their captions."""
