"""What a night's report says of the stream: how many alerts went out, and why the others did not."""

from __future__ import annotations

from typing import Any

from gueststar.model.rights import Program
from gueststar.store.alerts.publication import Publication
from gueststar.store.repo import SurveyRepo
from gueststar.stream.clients import has_stream


def stream_of(repo: SurveyRepo, night: int) -> dict[str, Any]:
    """Return a night's alerts by program and fate, and the reasons; empty where the survey has no stream.

    A reader is told of the streams that he may read, and not of the reasons.
    """
    if not has_stream(repo.root, repo.settings.stream):
        return {}
    state = Publication(repo.root)
    try:
        counts: dict[str, dict[str, int]] = {}
        nights, is_operator = repo.sight.packet_nights(), repo.sight.reader.is_operator
        for (program, fate), n in sorted(state.counts(night).items()):
            if not nights.allows(Program(program), day_obs=night):
                continue
            counts.setdefault(Program(program).name.lower(), {})[fate] = n
        told = state.reasons(night) if is_operator else {}
        reasons = [{"fate": fate, "reason": reason, "n": n} for (fate, reason), n in told.items()]
    finally:
        state.close()
    return {"counts": counts, "reasons": reasons}


def stream_lines(stream: dict[str, Any]) -> list[str]:
    """Return it as lines of text."""
    if not stream:
        return []
    lines = [
        f"stream of {program}: " + ", ".join(f"{n} {fate}" for fate, n in fates.items())
        for program, fates in stream["counts"].items()
    ]
    return lines + [f"  {item['fate']}: {item['n']} x {item['reason']}" for item in stream["reasons"]]
