"""What a drill did, what it expected, what it saw: the verdict on a recovery."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One thing that was expected of the recovery."""

    expected: str
    seen: str
    is_met: bool

    @property
    def line(self) -> str:
        """It as a line of text."""
        return f"{'ok  ' if self.is_met else 'FAIL'} {self.expected}: {self.seen}"


@dataclass
class Protocol:
    """The running record of a drill."""

    drill: str
    steps: list[tuple[float, str]] = field(default_factory=list)
    """Seconds since the beginning, and what was done or happened."""
    findings: list[Finding] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    def did(self, what: str) -> None:
        """Write down a step."""
        self.steps.append((round(time.monotonic() - self.begun, 1), what))

    def expect(self, expected: str, *, is_met: bool, seen: object = "") -> bool:
        """Write down an expectation and what was seen; return whether it is met."""
        self.findings.append(Finding(expected, str(seen) or ("yes" if is_met else "no"), is_met))
        return is_met

    @property
    def is_passed(self) -> bool:
        """Whether every expectation was met, and there was one."""
        return bool(self.findings) and all(finding.is_met for finding in self.findings)

    def lines(self) -> list[str]:
        """Return it as lines of text."""
        told = [f"drill {self.drill}", *(f"{at_s:6.1f} s  {what}" for at_s, what in self.steps)]
        verdict = "recovered" if self.is_passed else "NOT RECOVERED"
        return [*told, *(finding.line for finding in self.findings), f"verdict: {verdict}"]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**asdict(self), "is_passed": self.is_passed}
