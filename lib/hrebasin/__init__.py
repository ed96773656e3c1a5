"""Hierarchical Re-Basin: banks of networks, weight matching, merging, robustness and regularity.

Method of B. Franke, F. Heinrich, M. Lange, A. Raulf, "Robustness and Regularization in Hierarchical
Re-Basin", arXiv 2510.09174.
"""

from importlib.metadata import version

__version__ = version("hrebasin")
