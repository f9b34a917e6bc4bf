"""The sun over a site: its altitude, and when the night begins and ends.

The sun's direction is that of ERFA's ``epv00`` (a simplification of VSOP2000, good to a few arcseconds), with
aberration, turned into the Earth's frame with the IAU 2000B nutation. UT1 is taken as UTC (0.9 s at most, 0.004
degrees) and the sun as infinitely far (9 arcsec). There is no refraction: the altitudes are those of twilight.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Literal

import erfa  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import ArrayLike, NDArray

from gueststar.core.times import UNIX_ZERO_JD, night_of_jd
from gueststar.model.camera import Site

_TT_MINUS_UTC_DAYS = 69.184 / 86400.0
"""As of 2017. A second more or less moves the sun by 0.04 arcsec."""

_LIGHT_AU_PER_DAY = 173.1446326742403
_DAY_S = 86400.0

Edge = Literal["begins", "ends"]


def sun_altitude_deg(site: Site, unix: float) -> float:
    """Return the altitude of the sun's centre over a site at a Unix time, degrees, without refraction."""
    return float(sun_altitudes_deg(site, unix))


def sun_altitudes_deg(site: Site, unix: ArrayLike) -> NDArray[np.float64]:
    """Return `sun_altitude_deg` of many times at once."""
    days = np.asarray(unix, dtype=np.float64) / _DAY_S
    heliocentric, barycentric = erfa.epv00(UNIX_ZERO_JD, days + _TT_MINUS_UTC_DAYS)
    direction = _unit(-heliocentric["p"])
    apparent = _unit(direction + barycentric["v"] / _LIGHT_AU_PER_DAY)
    to_earth = erfa.c2t00b(UNIX_ZERO_JD, days + _TT_MINUS_UTC_DAYS, UNIX_ZERO_JD, days, 0.0, 0.0)
    seen = np.einsum("...ij,...j->...i", to_earth, apparent)
    return np.asarray(np.degrees(np.arcsin(np.clip(seen @ _zenith(site), -1.0, 1.0))))


def survey_night(site: Site, unix: float) -> int:
    """Return the survey's night (YYYYMMDD) of a Unix time: it changes at the site's local mean noon."""
    return night_of_jd(unix / _DAY_S + UNIX_ZERO_JD, starts_h=12.0 - site.longitude_deg / 15.0)


def noon_before(site: Site, night: int) -> float:
    """Return the Unix time of the local mean noon with which a survey's night (YYYYMMDD) starts."""
    date = datetime(night // 10000, night // 100 % 100, night % 100)
    return (date - datetime(1970, 1, 1)).total_seconds() + _DAY_S * (0.5 - site.longitude_deg / 360.0)


def night_after(night: int, n_days: int = 1) -> int:
    """Return the night (YYYYMMDD) so many days later."""
    date = datetime(night // 10000, night // 100 % 100, night % 100) + timedelta(days=n_days)
    return date.year * 10000 + date.month * 100 + date.day


class NightTimes:
    """When nights begin and end at a site.

    Where the sun stays above the altitude all day there is no night; where it stays below, the night lasts from local
    mean noon to noon. A camera whose site nobody filled in has nights from 18 h to 6 h of the time of its longitude.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self._both = lru_cache(maxsize=256)(self._computed)

    def night_of(self, unix: float) -> int:
        """Return the survey's night (YYYYMMDD) of a Unix time."""
        return survey_night(self.site, unix)

    def edge(self, night: int, edge: Edge, *, altitude_deg: float) -> float | None:
        """Return when a night begins or ends, Unix; None: the sun does not sink below the altitude."""
        both = self._both(night, altitude_deg)
        return None if both is None else both[edge == "ends"]

    def last_edge(
        self, now: float, edge: Edge, *, altitude_deg: float, shift_s: float = 0.0
    ) -> tuple[int, float] | None:
        """Return night and Unix time of the last edge, shifted, that is not after ``now``; None: none in three days."""
        tonight = self.night_of(now - shift_s)
        for night in (night_after(tonight, n) for n in (1, 0, -1, -2)):
            found = self.edge(night, edge, altitude_deg=altitude_deg)
            if found is not None and found + shift_s <= now:
                return night, found + shift_s
        return None

    def _computed(self, night: int, altitude_deg: float) -> tuple[float, float] | None:
        noon = noon_before(self.site, night)
        if not self.site.is_placed:
            return noon + 0.25 * _DAY_S, noon + 0.75 * _DAY_S
        return night_between(lambda unix: sun_altitudes_deg(self.site, unix) - altitude_deg, noon)


def night_between(height: Callable[[ArrayLike], NDArray[np.float64]], noon: float) -> tuple[float, float] | None:
    """Return when the sun sinks below and rises above, within the day after ``noon`` (Unix).

    ``height`` gives degrees above the altitude that counts. None: never below. Where it is below at noon already, or
    still, that end is noon itself.
    """
    grid = noon + np.linspace(0.0, _DAY_S, 289)
    heights = height(grid)
    below = heights < 0.0
    if not below.any():
        lowest = int(np.argmin(heights))
        around = noon + np.linspace(max(lowest - 1, 0), min(lowest + 1, 288), 241) / 288.0 * _DAY_S
        grid, heights = around, height(around)
        if not (below := heights < 0.0).any():
            return None
    from scipy.optimize import brentq  # takes half a second, which who only asks for an altitude need not wait

    first, last = int(np.argmax(below)), below.size - 1 - int(np.argmax(below[::-1]))

    def crossing(low: int, high: int) -> float:
        return float(brentq(lambda unix: float(height(unix)), grid[low], grid[high], xtol=0.1))

    begins = float(grid[0]) if first == 0 else crossing(first - 1, first)
    ends = float(grid[-1]) if last == below.size - 1 else crossing(last, last + 1)
    return begins, ends


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vector / np.linalg.norm(vector, axis=-1, keepdims=True))


def _zenith(site: Site) -> NDArray[np.float64]:
    latitude, longitude = math.radians(site.latitude_deg), math.radians(site.longitude_deg)
    across = math.cos(latitude)
    return np.array([across * math.cos(longitude), across * math.sin(longitude), math.sin(latitude)])
