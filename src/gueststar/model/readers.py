"""Who reads, and what he may see at one moment: every way out asks a `Sight`, and a sight asks the one policy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from gueststar.model.rights import EVERY_NIGHT, NO_NIGHT, Program, RightsPolicy


class Scope(StrEnum):
    """What a token is good for."""

    ALERTS = "alerts"
    """Alert packets and their cut-outs."""
    DATA = "data"
    """Images, catalogs, light curves, forced photometry."""
    LABEL = "label"
    """Labelling detections."""
    WATCH = "watch"
    """The state of operation: of users in the operators' group only."""


@dataclass(frozen=True)
class Reader:
    """Somebody to whom the survey tells something."""

    name: str
    programs: frozenset[Program] = frozenset()
    """Programs whose unreleased exposures he may see, besides the public one."""
    is_operator: bool = False
    """Whoever owns the survey's files: he sees everything, engineering exposures too."""

    @classmethod
    def of_programs(cls, programs: Collection[Program]) -> Reader:
        """Return a reader of some programs who has no name of his own."""
        return cls(", ".join(program.name.lower() for program in sorted(programs)), frozenset(programs))


ANONYMOUS = Reader("anonymous")
"""Everybody who does not say who he is."""

OPERATOR = Reader("operator", frozenset(Program) - {Program.ENGINEERING}, is_operator=True)
"""Whoever can read the repository's files."""


@dataclass(frozen=True)
class PacketNights:
    """Which alert packets somebody may take: those of a program up to a last night."""

    last_night: Mapping[Program, int]
    """Program -> last night (YYYYMMDD); programs of which nothing may be taken are left out."""

    @classmethod
    def of_programs(cls, programs: Collection[Program]) -> PacketNights:
        """Return the packets of some streams, of all nights."""
        return cls({Program(program): EVERY_NIGHT for program in programs})

    def allows(self, program: Program, *, day_obs: int) -> bool:
        """Return whether a packet that was triggered in an exposure of a program and night may be taken."""
        return day_obs <= self.last_night.get(program, NO_NIGHT)

    def within(self, programs: Collection[Program]) -> PacketNights:
        """Return those of some streams only."""
        return PacketNights({program: night for program, night in self.last_night.items() if program in programs})


@dataclass(frozen=True)
class Sight:
    """What one reader may see of one survey at one moment."""

    reader: Reader
    policy: RightsPolicy
    at_mjd_tai: float
    """The moment, MJD TAI."""

    def may_see(self, program: Program, *, day_obs: int) -> bool:
        """Return whether an exposure of a program and night, and what was measured on it alone, may be shown."""
        return self.reader.is_operator or any(
            self.policy.may_appear(program, in_stream=stream, item_day_obs=day_obs, at_mjd_tai=self.at_mjd_tai)
            for stream in self.streams
        )

    @property
    def streams(self) -> frozenset[Program]:
        """The streams whose packets are the reader's as they come."""
        return self.reader.programs | {Program.PUBLIC}

    def packet_nights(self) -> PacketNights:
        """Return which packets may leave to the reader, as the bytes that they are.

        Those of his own streams; of other streams those of nights for which he may see *everything* that such a packet
        can have been made of (history, counts, names), whether it holds it or not.
        """
        nights = {stream: self._last_night(stream) for stream in Program if stream is not Program.ENGINEERING}
        return PacketNights({stream: night for stream, night in nights.items() if night > NO_NIGHT})

    def _last_night(self, stream: Program) -> int:
        if stream in self.streams:
            return EVERY_NIGHT
        released = self.policy.releases.last_night
        return min(
            EVERY_NIGHT if program in self.streams else released(program, at_mjd_tai=self.at_mjd_tai)
            for program in self.policy.programs_in(stream)
        )
