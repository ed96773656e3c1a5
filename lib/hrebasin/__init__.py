"""Hierarchical Re-Basin: banks of networks, weight matching, merging, robustness and regularity.

Method of B. Franke, F. Heinrich, M. Lange, A. Raulf, "Robustness and Regularization in Hierarchical
Re-Basin", arXiv 2510.09174. The public names stand in `__init__.pyi`; each is loaded when it is first used.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("hrebasin")
