"""A night in one line: for subjects of messages and tops of pages."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from gueststar.operations.report.account import Fate
from gueststar.operations.report.night_report import NightReport


def verdict_of(report: NightReport) -> str:
    """Return the night in one line: what was received and what became of it, alerts, latency."""
    account = report.account
    shown = (Fate.PROCESSED, Fate.FAILED, Fate.HELD, Fate.PENDING)
    parts = [f"{len(account.units):,} received"]
    if report.expected is not None and report.expected.is_known:
        parts.insert(0, f"{report.expected.n_expected:,} exposures expected")
        if report.expected.missing:
            parts.append(f"{len(report.expected.missing):,} exposures missing")
    counts = {fate: account.count(fate) for fate in shown}
    parts += [f"{n:,} {fate.value}" for fate, n in counts.items() if n or fate is Fate.PROCESSED]
    parts.append(f"{account.count(Fate.UNEXPLAINED):,} unexplained")
    if n := sum(landing.n for landing in report.landing):
        parts.append(f"{n:,} not taken in")
    told = [", ".join(parts), f"alerts {sum(report.alerts.values()):,}"]
    if report.latency is not None and math.isfinite(report.latency.p95_s):
        told.append(f"p95 {report.latency.p95_s / 60:.1f} min")
    return f"{account.day_obs}: {'; '.join(told)}"


def material(report: NightReport) -> dict[str, Any]:
    """Return what makes a report another one: counts, reasons and alerts, not figures that wander by themselves."""
    account, expected = report.account, report.expected
    return {
        "received": len(account.units),
        "fates": {fate.value: account.count(fate) for fate in Fate},
        "reasons": [[fate, reason, n] for fate, reason, n in account.reasons()],
        "refused": len(account.refused),
        "expected": expected and [expected.n_expected, len(expected.missing), len(expected.unexpected)],
        "alerts": report.alerts,
        "stream": report.stream.get("counts", {}),
        "not_taken_in": sum(landing.n for landing in report.landing),
    }


def digest_of(report: NightReport) -> str:
    """Return a word that is the same as long as nothing material changed."""
    return hashlib.sha256(json.dumps(material(report), sort_keys=True).encode()).hexdigest()[:16]
