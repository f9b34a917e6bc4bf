"""Memory allocation of a process that makes arrays of the same sizes over and over."""

from __future__ import annotations

import contextlib
import ctypes
from typing import ClassVar

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Parameters of glibc's mallopt (malloc.h)."""

KEPT_BYTES = 512 * 2**20
"""Freed memory beyond this goes back to the system."""
PAD_BYTES = 64 * 2**20

MOST_BYTES = 2048 * 2**20
"""Freed memory between arrays that live on does not go back by itself. Of detectors with very many pixels there is more
than this, which is worth the time that it takes to get it anew."""


class _Usage(ctypes.Structure):
    """The C library's `struct mallinfo2` (malloc.h)."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"
        )
    ]  # fmt: skip


def keep_freed_memory() -> None:
    """Let this process keep up to `KEPT_BYTES` of freed memory for its next arrays.

    By default the C library gives every large array back to the system at once, and the system fills each new one with
    zeros: a sixth of the time of an image. Does nothing where the C library is not glibc.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, KEPT_BYTES), (_TOP_PAD, PAD_BYTES)):
            mallopt(ctypes.c_int(parameter), ctypes.c_int(value))


def freed_bytes() -> int:
    """Return how much freed memory this process keeps; 0 where the C library does not tell (glibc before 2.33)."""
    with contextlib.suppress(AttributeError, OSError):
        ask = ctypes.CDLL(None).mallinfo2
        ask.restype = _Usage
        return int(ask().fordblks)
    return 0


def give_back_freed_memory(most: int = MOST_BYTES) -> None:
    """Give freed memory back to the system where there is more than ``most`` bytes of it."""
    if freed_bytes() > most:
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(KEPT_BYTES))
