"""Memory allocation of a process that makes arrays of the same sizes over and over."""

from __future__ import annotations

import contextlib
import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Parameters of glibc's mallopt (malloc.h)."""

KEPT_BYTES = 512 * 2**20
"""Freed memory beyond this goes back to the system."""
PAD_BYTES = 64 * 2**20


def keep_freed_memory() -> None:
    """Let this process keep up to `KEPT_BYTES` of freed memory for its next arrays.

    By default the C library gives every large array back to the system at once, and the system fills each new one with
    zeros: a sixth of the time of an image. Does nothing where the C library is not glibc.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, KEPT_BYTES), (_TOP_PAD, PAD_BYTES)):
            mallopt(ctypes.c_int(parameter), ctypes.c_int(value))
