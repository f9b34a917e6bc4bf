"""One thing that a check of a camera's description found."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """A line of a report."""

    level: Literal["good", "note", "bad"]
    """bad: the description or the file is wrong; note: look at it."""
    text: str

    def about(self, subject: str) -> Finding:
        """Return the finding with its subject before it."""
        return Finding(self.level, f"{subject}: {self.text}")

    def __str__(self) -> str:
        mark = {"good": "ok  ", "note": "note", "bad": "FAIL"}[self.level]
        return f"{mark} {self.text}"
