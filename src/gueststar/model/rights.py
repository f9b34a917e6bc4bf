"""Who may see what: the one policy that every way out asks.

The table is the survey's data policy: rows are the stream an alert goes to (the program of the
exposure that triggered it), columns where a history item comes from.

| alert triggered in / item from | public | partnership   | private       |
|--------------------------------|--------|---------------|---------------|
| public                         | yes    | released only | released only |
| partnership                    | yes    | yes           | released only |
| private                        | yes    | released only | yes           |
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum

EVERY_NIGHT, NO_NIGHT = 99_999_999, 0
"""Last nights of a program of which all exposures, or none, may be seen."""


class Program(IntEnum):
    """Access category of an exposure; the value is ``programid`` on the wire."""

    ENGINEERING = 0
    """Never published."""
    PUBLIC = 1
    PARTNERSHIP = 2
    PRIVATE = 3


@dataclass(frozen=True)
class Releases:
    """When exposures became public: program and night -> the moment (MJD TAI) of release.

    ``until`` maps a program to (day_obs, mjd_tai) pairs: exposures of that program taken on or before
    day_obs are public from mjd_tai on.
    """

    until: dict[Program, tuple[tuple[int, float], ...]] = field(default_factory=dict)

    def is_released(self, program: Program, *, day_obs: int, at_mjd_tai: float) -> bool:
        """Return whether an exposure of ``program`` on ``day_obs`` is public at ``at_mjd_tai``."""
        return day_obs <= self.last_night(program, at_mjd_tai=at_mjd_tai)

    def last_night(self, program: Program, *, at_mjd_tai: float) -> int:
        """Return the last night (YYYYMMDD) whose exposures of ``program`` are public; `NO_NIGHT` if none is."""
        if program is Program.PUBLIC:
            return EVERY_NIGHT
        if program is Program.ENGINEERING:
            return NO_NIGHT
        return max((night for night, when in self.until.get(program, ()) if at_mjd_tai >= when), default=NO_NIGHT)


@dataclass(frozen=True)
class RightsPolicy:
    """The data policy of one survey; the default is the narrowest."""

    releases: Releases = field(default_factory=Releases)
    do_share_partnership_and_private: bool = False
    """One explicit switch: partnership alerts may carry private items and the reverse."""

    def may_appear(self, item: Program, *, in_stream: Program, item_day_obs: int, at_mjd_tai: float) -> bool:
        """Return whether an item of an exposure of program ``item`` may leave in ``in_stream``.

        ``in_stream`` is the program of the exposure that triggered the packet (or the group of the
        reader); ``at_mjd_tai`` the moment of leaving.
        """
        if item is Program.ENGINEERING or in_stream is Program.ENGINEERING:
            return False
        if self.releases.is_released(item, day_obs=item_day_obs, at_mjd_tai=at_mjd_tai):
            return True
        if item is in_stream:
            return True
        both = {item, in_stream}
        return self.do_share_partnership_and_private and both == {Program.PARTNERSHIP, Program.PRIVATE}

    def programs_in(self, stream: Program) -> tuple[Program, ...]:
        """Return the programs whose exposures a stream may always show, whatever has been released."""
        return tuple(
            program for program in Program
            if self.may_appear(program, in_stream=stream, item_day_obs=EVERY_NIGHT, at_mjd_tai=-math.inf)
        )  # fmt: skip
