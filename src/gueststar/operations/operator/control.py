"""How people and the observatory speak to a running operator: small files in the repository's folder ``operator``."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gueststar.core.errors import TransientError
from gueststar.formats.atomic import appearing_whole
from gueststar.store.repo import SurveyRepo

FOLDER = "operator"
PAUSED = f"{FOLDER}/paused"
"""There while the operator begins nothing; what it holds says why."""
SIGNALS = f"{FOLDER}/signals"
"""Files whose names are signals of the observatory: night_begins, night_ends."""
_WHO = f"{FOLDER}/pid.json"


def pause(root: Path, reason: str) -> None:
    """Let the operator finish what runs and begin nothing more; files still land."""
    with appearing_whole(root / PAUSED) as temporary:
        temporary.write_text(reason + "\n")


def resume(root: Path) -> bool:
    """Let it go on; False if it was not paused."""
    try:
        (root / PAUSED).unlink()
    except FileNotFoundError:
        return False
    return True


def paused_because(root: Path) -> str | None:
    """Return why the operator is paused; None if it is not."""
    try:
        return (root / PAUSED).read_text().strip() or "no reason given"
    except FileNotFoundError:
        return None


def give_signal(root: Path, name: str, text: str = "") -> None:
    """Give the operator a signal of the observatory, as the observatory itself would: a file."""
    with appearing_whole(root / SIGNALS / name) as temporary:
        temporary.write_text(text)


def signals_given(root: Path) -> dict[str, str]:
    """Return signal -> text of those that wait for an answer."""
    found = {}
    with suppress(FileNotFoundError), os.scandir(root / SIGNALS) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and entry.is_file():
                with suppress(FileNotFoundError):
                    found[entry.name] = Path(entry.path).read_text().strip()
    return found


def signal_answered(root: Path, name: str) -> None:
    """Take a signal away."""
    (root / SIGNALS / name).unlink(missing_ok=True)


@contextmanager
def only_operator(repo: SurveyRepo) -> Iterator[None]:
    """Hold the repository as its one operator; TransientError names the process that does already."""
    with _held(repo):
        who = repo.root / _WHO
        with appearing_whole(who) as temporary:
            temporary.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        try:
            yield
        finally:
            with suppress(OSError):
                who.unlink(missing_ok=True)


@contextmanager
def _held(repo: SurveyRepo) -> Iterator[None]:
    holder = repo.only_writer()
    try:
        holder.__enter__()
    except TransientError:
        who = holder_of(repo.root)
        if who is None:
            raise
        raise TransientError(f"{repo.root} is operated already, by {who}") from None
    try:
        yield
    finally:
        holder.__exit__(None, None, None)


def holder_of(root: Path) -> str | None:
    """Return the process that operates a repository, as it wrote itself down: process 123 on host; None: not told."""
    try:
        told = json.loads((root / _WHO).read_text())
        return f"process {told['pid']} on {told['host']}"
    except (OSError, ValueError, KeyError):
        return None


def speak(root: Path, *, pause_reason: str | None, do_resume: bool, signal: str | None) -> list[str]:
    """Give the operator orders, and return what was said, as lines."""
    lines = []
    if signal is not None:
        give_signal(root, signal)
        lines.append(f"signal {signal} is given")
    if do_resume:
        lines.append("the operator goes on" if resume(root) else "the operator was not paused")
    if pause_reason is not None:
        pause(root, pause_reason)
        lines.append(f"the operator begins nothing new: {pause_reason}")
    return lines
