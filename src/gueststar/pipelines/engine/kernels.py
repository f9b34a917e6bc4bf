"""Compiled kernels that numba keeps beside the sources, read before they are needed.

numba reads a kernel when it is called first, a hundredth of a second each: seconds in the first unit of a process.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from numba.core.dispatcher import Dispatcher


def read_kernels() -> int:
    """Read the kept kernels of all modules of the package that are imported; return how many. None is compiled."""
    n_read = 0
    for name, module in list(sys.modules.items()):
        if not name.startswith("gueststar."):
            continue
        for item in list(vars(module).values()):
            if isinstance(item, Dispatcher) and item.py_func.__module__ == name:
                for signature in kept_signatures(item):
                    item.compile(signature)
                    n_read += 1
    return n_read


def kept_signatures(kernel: Any) -> Iterator[Any]:
    """Yield the signatures for which a kernel lies compiled from the present source, for this machine."""
    cache = kernel._cache
    if not hasattr(cache, "_cache_file"):  # a kernel that is not kept
        return
    for key in cache._cache_file._load_index():
        if key == cache._index_key(key[0], kernel.targetctx.codegen()):
            yield key[0]
