"""What became of one unit of work: products or a reason, and what it cost."""

from __future__ import annotations

import errno
import logging
import os
import resource
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gueststar.core.errors import ConfigError, DataError, MissingInput, ServiceDown, TransientError
from gueststar.pipelines.engine.allocation import give_back_freed_memory
from gueststar.store.products import StagedProduct

_OF_THE_VOLUME = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ESTALE, errno.ENOTCONN)
"""Errors that tell of a full, read-only or vanished volume: they are no unit's fault."""


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What a unit of work hands over when it succeeds."""

    staged: tuple[StagedProduct, ...] = ()
    """Products written to staging, not yet in the registry."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Measured values, JSON-able."""
    inputs: dict[str, Any] = field(default_factory=dict)
    """What was used: calibrations, reference, catalog."""
    steps: dict[str, float] = field(default_factory=dict)
    """CPU seconds of each step."""


@dataclass(frozen=True)
class FurtherJob:
    """A job that a worker does after the one that was asked for: what the ledger is told when it comes back."""

    job_id: int
    """The id that a job of this kind and key always has (`Ledger.job_id`)."""
    kind: str
    key: Mapping[str, Any]
    """What tells the unit from all others of its kind, JSON-able."""
    exposure_id: int
    detector: int
    day_obs: int
    config: Mapping[str, Any] = field(default_factory=dict)
    """Parameters that it runs with."""


@dataclass(frozen=True)
class Outcome:
    """The end of one attempt at one job."""

    job_id: int
    state: Literal["done", "failed", "held"]
    result: Result = field(default_factory=Result)
    reason: str = ""
    error_kind: str = ""
    """DataError, TransientError, VolumeError, ConfigError, or Bug for anything unexpected."""
    trace: str = ""
    worker: str = ""
    cpu_s: float = 0.0
    wall_s: float = 0.0
    peak_rss_mb: float = 0.0
    """Of the worker during this attempt, with what it keeps from others."""
    further: tuple[Outcome, ...] = ()
    """Of the jobs that the worker did in the same call after this one, each with what it ``opens``."""
    opens: FurtherJob | None = None
    """A job that nobody asked for by itself: it is entered in the ledger before its outcome is."""

    @property
    def is_retryable(self) -> bool:
        """Whether another attempt may end differently: the world's failures and bugs, not bad pixels."""
        return self.error_kind in ("TransientError", "VolumeError", "Bug")


class StepTimer:
    """Adds up CPU seconds by named step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the body of a ``with`` statement as step ``name``."""
        start = time.process_time()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.process_time() - start, 4)


def attempt(job_id: int, work: Callable[[], Result]) -> Outcome:
    """Run ``work`` and return what became of it; the one place where every exception is caught.

    A worker must outlive anything that one exposure's pixels do to it, so unexpected errors are recorded
    as bugs with their traceback. Two kinds pass through, because they are not this unit's: after ConfigError a
    person must act, and while a service is down the whole run waits.
    """
    cpu, wall = time.process_time(), time.monotonic()
    _forget_peak()
    state: Literal["done", "failed", "held"] = "done"
    result, reason, kind, trace = Result(), "", "", ""
    try:
        result = work()
    except (ConfigError, ServiceDown):
        raise
    except MissingInput as error:
        state, reason = "held", str(error)
    except (DataError, TransientError) as error:
        state, reason, kind = "failed", str(error), type(error).__name__
    except OSError as error:
        state, reason, trace = "failed", f"{type(error).__name__}: {error}", traceback.format_exc()
        kind = "VolumeError" if error.errno in _OF_THE_VOLUME else "TransientError"
    except Exception as error:
        state, reason, kind, trace = "failed", f"{type(error).__name__}: {error}", "Bug", traceback.format_exc()
    give_back_freed_memory()
    seconds = round(time.process_time() - cpu, 3)
    _write_down(job_id, state, reason, cpu_s=seconds, error_kind=kind, trace=trace)
    return Outcome(
        job_id=job_id, state=state, result=result, reason=reason, error_kind=kind, trace=trace,
        worker=f"{socket.gethostname()}:{os.getpid()}",
        cpu_s=seconds, wall_s=round(time.monotonic() - wall, 3),
        peak_rss_mb=_peak_rss_mb(),
    )  # fmt: skip


def _write_down(job_id: int, state: str, reason: str, **facts: float | str) -> None:
    level = logging.WARNING if state == "failed" else logging.INFO
    known = {name: value for name, value in facts.items() if value != ""}
    _log.log(level, "%s", f"{state}: {reason}" if reason else state, extra={"job": job_id, **known})


def _forget_peak() -> None:
    """Let the system measure this process's peak memory from now on, where it can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_rss_mb() -> float:
    """Return the peak memory of this process since it was last forgotten, or of its life where it cannot be."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024.0, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0, 1)
