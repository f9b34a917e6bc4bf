"""Units of work that engines are tried with."""

import os
import signal
import time
from pathlib import Path

import numpy as np

from gueststar.core.errors import ConfigError
from gueststar.pipelines.engine.outcome import Outcome, Result, attempt


def succeed(job_id: int, value: int = 0) -> Outcome:
    return attempt(job_id, lambda: Result(metrics={"value": value, "pid": os.getpid()}))


def take_time(job_id: int, seconds: float) -> Outcome:
    time.sleep(seconds)
    return succeed(job_id)


def niceness(job_id: int) -> Outcome:
    return attempt(job_id, lambda: Result(metrics={"niceness": os.getpriority(os.PRIO_PROCESS, 0)}))


def kill_own_worker(job_id: int) -> Outcome:
    os.kill(os.getpid(), signal.SIGKILL)
    return succeed(job_id)


def kill_own_worker_once(job_id: int, mark: Path) -> Outcome:
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return succeed(job_id)


def stop_own_worker(job_id: int) -> Outcome:
    os.kill(os.getpid(), signal.SIGSTOP)
    return succeed(job_id)


def never_return(job_id: int) -> Outcome:
    while True:
        time.sleep(0.01)


def take_memory(job_id: int, gigabytes: float) -> Outcome:
    kept = []
    for _ in range(int(gigabytes * 20)):
        kept.append(np.ones(int(0.05e9 / 8)))
        time.sleep(0.01)
    time.sleep(1.0)
    return succeed(job_id, len(kept))


def ask_a_person(job_id: int) -> Outcome:
    raise ConfigError("a person must act")


def be_wrong(job_id: int) -> Outcome:
    raise ZeroDivisionError("a bug")


def threads(job_id: int) -> Outcome:
    return attempt(job_id, lambda: Result(metrics={"threads": os.environ["OMP_NUM_THREADS"]}))


def leave_mark(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
