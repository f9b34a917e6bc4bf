"""What a night's report says of the stream: how many alerts went out, and why the others did not."""

from __future__ import annotations

from typing import Any

from gueststar.model.flavour import Flavour
from gueststar.model.rights import Program
from gueststar.store.alerts.publication import Publication
from gueststar.store.detections.store import DetectionStore
from gueststar.store.repo import SurveyRepo
from gueststar.stream.clients import has_stream
from gueststar.stream.flavours import flavours_of


def stream_of(repo: SurveyRepo, night: int) -> dict[str, Any]:
    """Return a night's alerts by program and fate, and the reasons; empty where the survey has no stream.

    A reader is told of the streams that he may read, and not of reasons, retractions and what is still to come.
    """
    if not has_stream(repo.root, repo.settings.stream):
        return {}
    state = Publication(repo.root)
    try:
        counts, reasons = _counts(repo, state, night), _reasons(repo, state, night)
        is_operator = repo.sight.reader.is_operator
        taken_back = state.retractions(night) if is_operator else {}
        retracted = [
            {"reason": reason, "is_told": is_told, "n": n} for (reason, is_told), n in sorted(taken_back.items())
        ]
    finally:
        state.close()
    is_waiting = any("waiting" in fates for fates in counts.values())
    return {
        "counts": counts,
        "reasons": reasons,
        "flavours": {
            flavour.value: _of_flavour(repo, flavour, night) for flavour in flavours_of(repo.settings.stream)[1:]
        },
        "retracted": retracted,
        "waiting_for": _last_trouble(repo, night) if is_waiting else "",
        "not_in_log": _not_in_log(repo, night) if is_operator else 0,
    }


def _of_flavour(repo: SurveyRepo, flavour: Flavour, night: int) -> dict[str, Any]:
    """Return what became of a night's alerts in another flavour; those that were not sent in full are not counted."""
    state = Publication(repo.root, flavour)
    try:
        return {"counts": _counts(repo, state, night), "reasons": _reasons(repo, state, night)}
    finally:
        state.close()


def _counts(repo: SurveyRepo, state: Publication, night: int) -> dict[str, dict[str, int]]:
    """Return the number of alerts by program and fate, of those programs that the reader may take."""
    counts: dict[str, dict[str, int]] = {}
    nights = repo.sight.packet_nights()
    for (program, fate), n in sorted(state.counts(night).items()):
        if not nights.allows(Program(program), day_obs=night):
            continue
        counts.setdefault(Program(program).name.lower(), {})[fate] = n
    return counts


def _reasons(repo: SurveyRepo, state: Publication, night: int) -> list[dict[str, Any]]:
    """Return why alerts were not sent: for those who run the survey, as the counts are of all programs together."""
    told = state.reasons(night) if repo.sight.reader.is_operator else {}
    return [{"fate": fate, "reason": reason, "n": n} for (fate, reason), n in told.items()]


def _last_trouble(repo: SurveyRepo, night: int) -> str:
    """Return why the alerts of a night could not be sent when the night was processed last; empty if they could."""
    told = repo.ledger.events(what="stream", subject=str(night))
    return told[-1].text.removeprefix("alerts wait: ") if told and told[-1].data.get("is_waiting") else ""


def _not_in_log(repo: SurveyRepo, night: int) -> int:
    """Return how many alerts of a night are committed and not in the log: a disk was full, or a run was killed."""
    store = DetectionStore.of_survey(repo.root, repo.settings.database)
    try:
        return store.n_waiting(night)
    finally:
        store.close()


def _lines_of(told: dict[str, Any], name: str) -> list[str]:
    lines = [
        f"{name} of {program}: " + ", ".join(f"{n} {fate}" for fate, n in fates.items())
        for program, fates in told["counts"].items()
    ]
    return lines + [f"  {item['fate']}: {item['n']} x {item['reason']}" for item in told["reasons"]]


def stream_lines(stream: dict[str, Any]) -> list[str]:
    """Return it as lines of text."""
    if not stream:
        return []
    lines = _lines_of(stream, "stream")
    for flavour, told in stream.get("flavours", {}).items():
        lines += _lines_of(told, f"{flavour} stream")
    if reason := stream.get("waiting_for"):
        lines.append(f"  waiting: {reason}")
    lines += [
        f"  retracted: {item['n']} x {item['reason']}" + ("" if item["is_told"] else " (readers are not told yet)")
        for item in stream.get("retracted", ())
    ]
    if n := stream.get("not_in_log"):
        lines.append(f"  {n} alerts are committed but not in the alert log yet: run gueststar process again")
    return lines
