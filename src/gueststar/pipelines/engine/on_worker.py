"""What a worker process does: before its first unit of work, and with each of them."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import pickle
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gueststar
from gueststar.pipelines.engine.unit_log import told_of_unit

_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux's prctl (sys/prctl.h)."""


UNITS = ("gueststar.pipelines.night.science", "gueststar.pipelines.night.difference")
"""Modules of the units of a night: read before the first one is timed."""


NICENESS = 5
"""Of units beside the process that hands them out: what it does is short, and workers wait for it."""


def introduce(probe: str | None, modules: tuple[str, ...] = UNITS, *, is_here: bool = False) -> dict[str, Any]:
    """Read the code of units; say who this worker is, and whether it sees the file ``probe``.

    From now on it ends with the process that watches it, whatever it is doing then. ``is_here``: the machine is also
    that of who hands out the work, to whom it gives way.
    """
    end_with_parent()
    if is_here:
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)  # Linux: of this thread, in which units run
    for module in modules:
        importlib.import_module(module)
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "version": gueststar.__version__,
        "sees": probe is None or Path(probe).is_file(),
    }


def end_with_parent() -> None:
    """Let the kernel end this process when its parent ends; without effect where the kernel is not Linux."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def sealed(function: Callable[..., Any], arguments: tuple[Any, ...]) -> bytes:
    """Return a call as bytes: what a worker cannot read is then that unit's failure, not the worker's end."""
    import cloudpickle

    return bytes(cloudpickle.dumps((function, arguments)))


def run_sealed(payload: bytes) -> Any:
    """Do what `sealed` wrapped."""
    function, arguments = pickle.loads(payload)
    with told_of_unit(arguments):
        return function(*arguments)
