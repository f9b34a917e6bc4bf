"""Which cards tell the time of an exposure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gueststar.cameras.cards import Cards, is_number
from gueststar.cameras.drafting.guess import Guess
from gueststar.cameras.header_time import start_of_exposure
from gueststar.core.errors import DataError
from gueststar.model.header import TimeMapping

_DATETIME = ("DATE-OBS", "DATE-BEG", "UT-OBS", "UTC-OBS", "DATEOBS", "UTSHUT", "SHUTOPEN", "DATE-AVG", "DATETIME")
_DATE = ("DATE-OBS", "UTDATE", "UT-DATE", "DATEOBS")
_CLOCK = ("UTCSTART", "UT-START", "UTSTART", "UT", "UTC", "UT-OBS", "UTC-OBS", "UTSHUT", "TIME-OBS", "TIME-BEG")
_MJD, _JD = ("MJD-OBS", "MJD-BEG", "OBSMJD", "EXPMJD", "MJD", "MJD-AVG"), ("OBSJD", "JD", "JD-OBS", "JULDATE")
_POINTS = {"middle": r"mid|avg|average", "start": r"start|beg|open", "end": r"\bend\b|close"}
_SAME_TIME_DAYS = 0.01


class TimeChoice(NamedTuple):
    """The cards chosen for the time, and what disagrees with them."""

    mapping: dict[str, Any]
    mjd_tai: float | None
    doubts: tuple[str, ...]


def choose_time(cards: Cards, comments: Mapping[str, str]) -> TimeChoice:
    """Return the time cards: full UT ones before joined ones before day counts, local ones last."""
    readings = []
    for rank, (candidate, form) in enumerate(_time_candidates(cards)):
        mapping = TimeMapping(keywords=candidate, format=form)
        try:
            mjd, warnings = start_of_exposure(cards, mapping, exposure_s=0.0)
        except (DataError, ValueError):
            continue
        is_local = any("not UT" in warning for warning in warnings)
        says_ut = any("UT" in key or "MJD" in key or "JD" in key for key in candidate)
        readings.append((mapping, mjd, is_local, says_ut, rank))
    if not readings:
        assumed = Guess(["DATE-OBS"], "no card holds a time", "assumed")
        return TimeChoice({"keywords": assumed, "format": "isot", "scale": "utc", "point": "start"}, None, ())
    is_disputed = max(r[1] for r in readings) - min(r[1] for r in readings) > _SAME_TIME_DAYS
    best = min(readings, key=lambda r: (r[2], is_disputed and not r[3], r[4]))
    doubts = [
        f"{' + '.join(r[0].keywords)} is {(r[1] - best[1]) * 24:+.2f} h from {' + '.join(best[0].keywords)}"
        for r in readings if abs(r[1] - best[1]) > _SAME_TIME_DAYS
    ]  # fmt: skip
    names = list(best[0].keywords)
    keywords = Guess(names, " + ".join(names), "inferred" if doubts else "read")
    point = _point(names, comments)
    return TimeChoice(
        {"keywords": keywords, "format": best[0].format, "scale": "utc", "point": point}, best[1], tuple(doubts)
    )


def _time_candidates(cards: Cards) -> list[tuple[tuple[str, ...], Any]]:
    whole = [((key,), "isot") for key in _DATETIME if len(cards.text((key,)) or "") > len("YYYY-MM-DD")]
    joined = [
        ((date, clock), "isot") for date in _DATE for clock in _CLOCK
        if date != clock and len(cards.text((date,)) or "") in (8, 10) and 5 <= len(cards.text((clock,)) or "") < 19
    ]  # fmt: skip
    fine: list[tuple[tuple[str, ...], Any]] = []
    coarse: list[tuple[tuple[str, ...], Any]] = []
    for names, form in ((_MJD, "mjd"), (_JD, "jd")):
        for key in names:
            text = cards.text((key,))
            if text and is_number(text):
                digits = len(text.split(".")[1]) if "." in text else 0
                (fine if digits >= 5 else coarse).append(((key,), form))
    return [*whole, *joined, *fine, *coarse]


def _point(names: Sequence[str], comments: Mapping[str, str]) -> Guess:
    for told in (" ".join(comments.get(name, "") for name in names), " ".join(names)):
        for point, words in _POINTS.items():
            if re.search(words, told, re.IGNORECASE):
                return Guess(point, f"comment or name of {names[-1]}")
    return Guess("start", "no comment tells which moment", "assumed")
