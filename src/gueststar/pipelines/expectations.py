"""Taking in schedules and observing logs: what the survey is to expect of a night."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

from astropy.coordinates import Angle

from gueststar.core import times
from gueststar.core.errors import DataError
from gueststar.formats.exposure_list import ExposureListFile, ListedExposure, read_exposure_list
from gueststar.model.camera import Camera
from gueststar.model.expected import ExpectedExposure, ListSource
from gueststar.model.exposure import ObservationType
from gueststar.model.rights import Program
from gueststar.store.expected import Expectations
from gueststar.store.repo import SurveyRepo


@dataclass(frozen=True)
class TakenList:
    """What a list brought."""

    source: ListSource
    nights: dict[int, int]
    """Night -> exposures that the list tells of."""
    n_new: int
    """Exposures that nobody had told of before."""
    notes: tuple[str, ...] = ()
    """What was left out or not understood."""

    def lines(self) -> list[str]:
        """Return it in words."""
        told = [f"{night}: {n} exposures expected by the {self.source}" for night, n in sorted(self.nights.items())]
        return [*told, f"{self.n_new} of them are new", *self.notes]


def take_schedule(
    repo: SurveyRepo, path: Path, *, source: ListSource | None = None, night: int | None = None, replaces: bool = False
) -> TakenList:
    """Take in a list of expected exposures (CSV, ECSV or JSON); again under the same name, it replaces what it said.

    ``source``: whether it plans (schedule) or tells what was taken (log); None: what the file says, else a log if its
    name says so, else a schedule. ``night``: for lists that do not tell it. ``replaces``: nothing that other lists of
    that source said of these nights stays. Raises DataError that names file, line, column and value; then nothing of
    the list is taken.
    """
    told = read_exposure_list(path)
    chosen = source or _source_of(path, told)
    taken, left_out = [], Counter[str]()
    for entry in told.entries:
        reading = _EntryReader(path, entry, told.names, repo.camera)
        kind = reading.observation_type()
        if kind is None:
            left_out[str(entry.values["type"])] += 1
            continue
        taken.append(reading.expected(kind, chosen, night))
    rows = told_apart(taken)
    rows = list({row.id: row for row in rows}.values())
    n_new = Expectations(repo.ledger).take(rows, file=path.name, source=chosen, replaces=replaces)
    notes = [f"{n} of type {name!r} left out: the survey does not take these" for name, n in sorted(left_out.items())]
    nights = dict(Counter(row.day_obs for row in rows))
    repo.ledger.event("expected", path.name, f"{chosen} of {len(rows)} exposures", nights=nights, n_new=n_new)
    return TakenList(chosen, nights, n_new, tuple(notes))


def told_apart(rows: list[ExpectedExposure]) -> list[ExpectedExposure]:
    """Return entries with those that say the same numbered by ``repeat``; with a time or a number they are one."""
    seen: Counter[int] = Counter()
    found = []
    for row in rows:
        is_one = row.mjd_start is not None or row.exposure_id is not None
        found.append(row if is_one else replace(row, repeat=seen[row.id]))
        seen[row.id] += 1
    return found


def _source_of(path: Path, told: ExposureListFile) -> ListSource:
    named = str(told.facts.get("source", "")).lower()
    if named:
        if named not in get_args(ListSource):
            raise DataError(f"{path}: source {named!r} is neither schedule nor log")
        return cast(ListSource, named)
    return "log" if re.search(r"(?<![a-z])(obs)?log", path.stem.lower()) else "schedule"


class _EntryReader:
    """Turns what an entry says into the survey's terms; every error names file, line, column and value."""

    def __init__(self, path: Path, entry: ListedExposure, names: dict[str, str], camera: Camera) -> None:
        self.path, self.entry, self.names, self.camera = path, entry, names, camera

    def expected(self, kind: ObservationType, source: ListSource, night: int | None) -> ExpectedExposure:
        """Return the whole entry."""
        start = self.start()
        return ExpectedExposure(
            day_obs=self.night(start, night), source=source, mjd_start=start,
            exposure_id=self.number_or_none("exposure_id"), observation_type=kind, field=self.whole("field"),
            ra=self.angle("ra"), dec=self.angle("dec"), physical_filter=self.physical_filter(),
            exposure_s=self.seconds(), program=self.program(), file=self.path.name,
        )  # fmt: skip

    def wrong(self, meaning: str, why: str) -> DataError:
        """Return the error that a value cannot be used."""
        column, value = self.names[meaning], self.entry.values[meaning]
        return DataError(f"{self.path} {self.entry.where}, column {column}: {value!r} {why}")

    def text(self, meaning: str) -> str | None:
        """Return a value as text, None where there is none."""
        value = self.entry.values.get(meaning)
        return None if value is None else str(value)

    def number(self, meaning: str) -> float | None:
        """Return a value as a number."""
        value = self.entry.values.get(meaning)
        try:
            return None if value is None else float(value)
        except (TypeError, ValueError):
            raise self.wrong(meaning, "is no number") from None

    def whole(self, meaning: str) -> int | None:
        """Return a value as a whole number, exactly (identifiers have more digits than a float keeps)."""
        value = self.entry.values.get(meaning)
        if value is None:
            return None
        if re.fullmatch(r"[+-]?\d+", str(value)):
            return int(str(value))
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not number.is_integer():
            raise self.wrong(meaning, "is no whole number")
        return int(number)

    def number_or_none(self, meaning: str) -> int | None:
        """Return an identifier that is a number; others (obs-0012) are not kept: times tell these exposures."""
        text = self.text(meaning)
        digits = text is not None and re.fullmatch(r"\d+(\.0*)?", text)
        number = int(text.split(".")[0]) if text is not None and digits else None
        return number if number is not None and number < 1 << 63 else None

    def start(self) -> float | None:
        """Return the start, MJD TAI; None where the entry tells no time."""
        for meaning in ("mjd_tai", "mjd", "jd", "time"):
            if meaning in self.entry.values:
                mjd = self._time(meaning)
                if not 30000.0 < mjd < 100000.0:
                    raise self.wrong(meaning, "is no time of ours")
                return mjd
        return None

    def _time(self, meaning: str) -> float:
        text = str(self.entry.values[meaning])
        try:
            number = float(text)
        except ValueError:
            if meaning != "time":
                raise self.wrong(meaning, "is no number") from None
            return self._time_of_text(text)
        if meaning == "mjd_tai":
            return number
        if 2_400_000.5 <= number < 2_500_000.5:  # Julian date
            return times.mjd_tai_from_mjd_utc(number - times.MJD_ZERO_JD)
        if 30000.0 < number < 100000.0:
            return times.mjd_tai_from_mjd_utc(number)
        raise self.wrong(meaning, "is neither a date (2026-01-31T04:30:00) nor MJD nor JD")

    def _time_of_text(self, text: str) -> float:
        plain = re.sub(r"(Z|\+00:?00)$", "", text.strip()).strip().replace(" ", "T").replace("/", "-")
        if re.search(r"T.*[+-]\d\d:?\d\d$", plain):
            raise self.wrong("time", "has a time zone: times are UTC")
        if not re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d", plain):
            raise self.wrong("time", "is no date and time such as 2026-01-31T04:30:00")
        try:
            return times.mjd_tai_from_utc(plain)
        except ValueError:
            raise self.wrong("time", "is no date and time such as 2026-01-31T04:30:00") from None

    def night(self, start: float | None, given: int | None) -> int:
        """Return the survey's night: by the time if there is one, else as told."""
        if start is not None:
            return times.day_obs(start, longitude_deg=self.camera.site.longitude_deg)
        text = (self.text("night") or "").replace("-", "").split(".")[0]
        if not text and given is not None:
            return given
        if not text:
            raise DataError(f"{self.path} {self.entry.where}: tells neither time nor night: name it with --night")
        if not re.fullmatch(r"(19|20)\d\d[01]\d[0-3]\d", text):
            raise self.wrong("night", "is no night YYYYMMDD")
        return int(text)

    def angle(self, meaning: str) -> float | None:
        """Return an angle in degrees; with colons, right ascension is in hours."""
        value = self.entry.values.get(meaning)
        if value is None:
            return None
        if isinstance(value, str) and re.search(r"[:hd\s]", value.strip()):
            try:
                degrees = float(Angle(value, unit="hourangle" if meaning == "ra" else "deg").deg)
            except ValueError:
                raise self.wrong(meaning, "is no angle") from None
        else:
            degrees = float(self.number(meaning) or 0.0)
        low, high = (0.0, 360.0) if meaning == "ra" else (-90.0, 90.0)
        if not low <= degrees <= high:
            raise self.wrong(meaning, f"is outside {low:g}..{high:g} degrees")
        return degrees % 360.0 if meaning == "ra" else degrees

    def seconds(self) -> float | None:
        """Return the exposure time."""
        value = self.number("exposure_s")
        if value is not None and not 0.0 <= value < 1e6:
            raise self.wrong("exposure_s", "is no exposure time in seconds")
        return value

    def physical_filter(self) -> str | None:
        """Return the camera's name of the filter."""
        text = self.text("filter")
        if text is None:
            return None
        found = self.camera.filter_named(text) or next((f for f in self.camera.filters if f.band == text), None)
        if found is None:
            known = ", ".join(sorted({name for f in self.camera.filters for name in (f.physical_filter, *f.aliases)}))
            raise self.wrong("filter", f"is no filter of {self.camera.name}, which has {known}")
        return found.physical_filter

    def program(self) -> Program | None:
        """Return the program, by number, by name, or as the camera's headers write it."""
        text = self.text("program")
        if text is None:
            return None
        mapped = self.camera.header.program.values.get(text)
        try:
            number = int(float(text)) if mapped is None else int(mapped)
            return Program(number)
        except ValueError:
            pass
        try:
            return Program[text.upper()]
        except KeyError:
            names = ", ".join(f"{program.value} {program.name.lower()}" for program in Program)
            raise self.wrong("program", f"is no program; one of {names}") from None

    def observation_type(self) -> ObservationType | None:
        """Return the type of exposure; None for one that the survey does not take (focus, pointing...)."""
        text = self.text("type")
        if text is None:
            return "science"
        known: dict[str, Any] = {name.upper(): kind for name, kind in self.camera.header.observation_types.items()}
        known |= (
            {"OBJECT": "science", "SCI": "science"} | {name.upper(): name for name in get_args(ObservationType)} | known
        )
        return cast("ObservationType | None", known.get(text.upper()))
