"""Functions that Numba compiles; what it keeps on disk saves seconds at the next start and is never needed."""

import threading
import warnings
from collections.abc import Callable

from numba import njit, typeof


class Compiled:
    """A function as ``numba.njit`` compiles it, kept on disk where that can be read and written.

    Otherwise it is compiled for this process alone, with one warning that names what cannot be used. Options are
    ``njit``'s.
    """

    def __init__(self, function: Callable, **options):
        self.function, self.options, self.dispatcher, self.lock = function, options, None, threading.Lock()

    def __call__(self, *arguments):
        """Call it; compiled at the first time, for arguments of these types."""
        with self.lock:
            if self.dispatcher is None:
                self.dispatcher = self._kept(arguments) or njit(self.function, **self.options)
        return self.dispatcher(*arguments)

    def _kept(self, arguments: tuple):
        place = f"the cache of compiled code of {self.function.__module__}"
        try:
            kept = njit(self.function, cache=True, **self.options)
            place = f"the cache of compiled code in {kept.stats.cache_path}"
            kept.compile(tuple(map(typeof, arguments)))
        except Exception as error:  # of a folder that cannot be written to, or of damaged pickles, whatever it is
            warnings.warn(f"{place} cannot be used and is left aside: {error or type(error).__name__}", stacklevel=4)
            return None
        return kept
