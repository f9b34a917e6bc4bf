"""What zero point a clear sky would have given: learned from the nights that the ledger remembers."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from gueststar.algorithms.astrometry.horizon import airmass_at, altitude_deg
from gueststar.algorithms.photocal.transparency import ClearSky, TransparencyConfig, learn_clear_sky
from gueststar.core import times
from gueststar.model.camera import Site
from gueststar.model.exposure import ExposureInfo
from gueststar.store.ledger import Ledger

_TYPICAL_AIRMASS = 1.2
"""Of an exposure that does not tell where it looked."""


def airmass_of(info: ExposureInfo, site: Site) -> float:
    """Return the airmass that the header tells, or that place and time imply."""
    if info.airmass is not None and 0.9 < info.airmass < 40.0:
        return info.airmass
    if info.ra is None or info.dec is None:
        return _TYPICAL_AIRMASS
    altitude = altitude_deg(
        ra=info.ra, dec=info.dec, mjd_utc=times.mjd_utc(info.mjd_tai), latitude_deg=site.latitude_deg,
        longitude_deg=site.longitude_deg, height_m=site.height_m,
    )  # fmt: skip
    return airmass_at(altitude) if altitude > 3.0 else _TYPICAL_AIRMASS


class ClearSkies:
    """The clear sky of every detector and filter, from the nights before one (or up to and with it)."""

    def __init__(
        self, ledger: Ledger, site: Site, night: int, *, config: TransparencyConfig, is_night_included: bool = False
    ) -> None:
        self.site = site
        self._learned: dict[tuple[int, str], ClearSky] = {}
        before = night + 1 if is_night_included else night
        rows = ledger.measurements("science", "zero_point", before=before, n_nights=config.n_nights)
        nights = sorted({of_night for _, _, of_night, _ in rows})
        infos = {row.id: row.info for number in nights for row in ledger.exposures(day_obs=number)}
        groups: dict[tuple[int, str], list[tuple[float, float, int]]] = defaultdict(list)
        for exposure, detector, of_night, zero_point in rows:
            info = infos.get(exposure)
            if info is not None and info.physical_filter is not None:
                per_second = zero_point - 2.5 * np.log10(max(info.exposure_s, 1e-3))
                groups[detector, info.physical_filter].append((per_second, airmass_of(info, site), of_night))
        bands = {info.physical_filter: info.band or "" for info in infos.values()}
        for key, values in groups.items():
            per_second, airmass, of_nights = (np.array(column) for column in zip(*values, strict=True))
            learned = learn_clear_sky(
                zero_point=per_second, airmass=airmass, night=of_nights,
                extinction=config.extinction_of(bands[key[1]]), config=config,
            )  # fmt: skip
            if learned is not None:
                self._learned[key] = learned

    def of(self, detector: int, physical_filter: str | None) -> ClearSky | None:
        """Return what is known of a detector and filter."""
        return self._learned.get((detector, physical_filter or ""))

    def expected(self, info: ExposureInfo, detector: int) -> float | None:
        """Return the zero point that a clear sky would give an exposure; None where nothing is known."""
        clear = self.of(detector, info.physical_filter)
        if clear is None:
            return None
        return float(clear.expected(airmass=airmass_of(info, self.site), exposure_s=info.exposure_s))
