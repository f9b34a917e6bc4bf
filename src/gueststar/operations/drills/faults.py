"""Faults that are made to happen: each is a ``with`` statement, or a call, that leaves the machine as it was."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from gueststar.core.errors import ConfigError


def kill(process: psutil.Process) -> None:
    """End a process as the kernel does when memory runs out."""
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGKILL)


@contextmanager
def hung(process: psutil.Process) -> Iterator[None]:
    """Keep a process from running, while it lives; it goes on afterwards if it is still there."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGCONT)


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """Give a folder that is a disk of its own, of this size; ConfigError where we may not mount one."""
    folder = Path(tempfile.mkdtemp(prefix="gsdisk"))
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "gueststar-drill", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        folder.rmdir()
        raise ConfigError(f"a disk of its own cannot be mounted (it takes root): {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)
        with suppress(OSError):
            folder.rmdir()


def resize(disk: Path, megabytes: int) -> None:
    """Give a disk that `small_disk` gave another size."""
    subprocess.run(["mount", "-o", f"remount,size={megabytes}m", str(disk)], check=True, capture_output=True)


@contextmanager
def filled(disk: Path, *, left_mb: float = 0.0) -> Iterator[Path]:
    """Fill a disk but for some megabytes; give the file that fills it. It is emptied afterwards."""
    ballast = disk / "ballast"
    try:
        with ballast.open("wb") as file:
            while (free := shutil.disk_usage(disk).free - left_mb * 1e6) > 4096:
                try:
                    file.write(b"\0" * int(min(free, 1 << 20)))
                    file.flush()
                except OSError:
                    break
        yield ballast
    finally:
        ballast.unlink(missing_ok=True)


@contextmanager
def vanished(folder: Path) -> Iterator[None]:
    """Take a folder away, as a volume that is not mounted any more; put it back afterwards."""
    aside = folder.with_name(f".{folder.name}.away")
    os.rename(folder, aside)
    try:
        yield
    finally:
        if folder.exists():  # somebody made it anew: what lies there joins the rest
            for path in folder.iterdir():
                os.replace(path, aside / path.name)
            folder.rmdir()
        os.rename(aside, folder)


@contextmanager
def replaced(folder: Path) -> Iterator[None]:
    """Put another folder in a folder's place, files and all, as a server does whose handles have gone stale."""
    aside = folder.with_name(f".{folder.name}.stale")
    os.rename(folder, aside)
    folder.mkdir()
    for path in aside.iterdir():
        os.replace(path, folder / path.name)
    try:
        yield
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def wait_until_gone(process: psutil.Process, timeout_s: float = 20.0) -> bool:
    """Wait until a process is no more; return whether it is."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        try:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False
