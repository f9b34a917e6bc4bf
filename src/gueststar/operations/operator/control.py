"""How people and the observatory speak to a running operator: small files in the repository's folder ``operator``."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from gueststar.formats.atomic import appearing_whole

FOLDER = "operator"
PAUSED = f"{FOLDER}/paused"
"""There while the operator begins nothing; what it holds says why."""
SIGNALS = f"{FOLDER}/signals"
"""Files whose names are signals of the observatory: night_begins, night_ends."""


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
