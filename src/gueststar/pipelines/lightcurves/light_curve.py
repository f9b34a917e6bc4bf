"""The light curve at one place, relative to the stars around it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.algorithms.lightcurves.ensemble import EnsembleConfig, solve_ensemble
from gueststar.core.bits import SourceFlag
from gueststar.core.errors import DataError
from gueststar.model.catalog import Catalog, Column, Schema

LIGHT_CURVE = Schema(
    "light_curve",
    (
        Column("visit", "i8", "", "visit id"),
        Column("detector", "i4", "", "detector id"),
        Column("mjd_tai", "f8", "day", "middle of the exposure"),
        Column("band", "U8", "", "band"),
        Column("mag", "f4", "mag", "AB magnitude by the image's own zero point"),
        Column("mag_err", "f4", "mag", "its error"),
        Column(
            "relative_mag", "f4", "mag", "magnitude after the epoch's offset from the surrounding stars is taken out"
        ),
        Column(
            "relative_mag_err", "f4", "mag", "its error: with the offset's, and the excess scatter of comparison stars"
        ),
        Column("n_comparison", "i4", "", "comparison stars of the solution"),
        Column("separation", "f4", "arcsec", "from the asked place"),
        Column("flags", "i4", "", "SourceFlag bits"),
    ),
)
"""One source through time."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LightCurveConfig:
    """How a light curve is made."""

    radius_arcsec: float = 2.0
    """A source this near to the place, or to a comparison star, is it."""
    flux: str = "psf_flux"
    """Column of the catalog that is followed (for apertures ap_flux_1 to ap_flux_4)."""
    min_snr: float = 20.0
    """Comparison stars are at least this significant."""
    max_comparisons: int = 300
    """Brightest stars used."""
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)


@dataclass(frozen=True, eq=False)
class Epoch:
    """The catalog of one detector image."""

    visit: int
    detector: int
    mjd_tai: float
    band: str
    sources: Catalog


class MakeLightCurve:
    """Follow one place through the catalogs of many visits in one band."""

    def __init__(self, config: LightCurveConfig = LightCurveConfig()) -> None:
        self.config = config

    def run(self, epochs: list[Epoch], *, ra: float, dec: float) -> Catalog:
        """Return `LIGHT_CURVE` rows by time, one per epoch at which the source was measured.

        Raises DataError if no epoch shows a source there.
        """
        epochs = sorted(epochs, key=lambda epoch: epoch.mjd_tai)
        hits = [self._find(epoch, ra=ra, dec=dec) for epoch in epochs]
        seen = [k for k, (row, _) in enumerate(hits) if row >= 0]
        if not seen:
            raise DataError(f"no source within {self.config.radius_arcsec} arcsec of RA {ra:.5f} Dec {dec:+.5f}")
        epochs, hits = [epochs[k] for k in seen], [hits[k] for k in seen]
        mag, error = self._target(epochs, [row for row, _ in hits])
        offset, offset_err, n_comparison, excess = self._offsets(epochs, ra=ra, dec=dec)
        return LIGHT_CURVE.catalog(
            {
                "visit": [e.visit for e in epochs],
                "detector": [e.detector for e in epochs],
                "mjd_tai": [e.mjd_tai for e in epochs],
                "band": [e.band for e in epochs],
                "mag": mag,
                "mag_err": error,
                "relative_mag": mag - offset,
                "relative_mag_err": np.sqrt(error**2 + offset_err**2 + excess**2),
                "n_comparison": np.full(len(epochs), n_comparison),
                "separation": [distance for _, distance in hits],
                "flags": [int(e.sources["flags"][row]) for e, (row, _) in zip(epochs, hits, strict=True)],
            }
        )

    def _find(self, epoch: Epoch, *, ra: float, dec: float) -> tuple[int, float]:
        if epoch.sources.n_rows == 0:
            return -1, np.inf
        separation = _separation(epoch.sources["ra"], epoch.sources["dec"], ra, dec)
        row = int(np.argmin(separation))
        return (row, float(separation[row])) if separation[row] <= self.config.radius_arcsec else (-1, np.inf)

    def _target(self, epochs: list[Epoch], rows: list[int]) -> tuple[Floats, Floats]:
        pairs = [self._magnitudes(e.sources) for e in epochs]
        mag = np.array([m[row] for (m, _), row in zip(pairs, rows, strict=True)])
        error = np.array([err[row] for (_, err), row in zip(pairs, rows, strict=True)])
        return mag, error

    def _magnitudes(self, sources: Catalog) -> tuple[Floats, Floats]:
        name = self.config.flux
        error_name = name.replace("flux", "flux_err")
        flux, error = sources[name].astype(np.float64), sources[error_name].astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            mag = np.where(flux > 0, 31.4 - 2.5 * np.log10(flux), np.nan)
            return mag, np.where(flux > 0, 1.0857 * error / flux, np.nan)

    def _offsets(self, epochs: list[Epoch], *, ra: float, dec: float) -> tuple[Floats, Floats, int, float]:
        """Return each epoch's offset from the stars that most epochs share (zero where too few), and its error.

        Further the number of stars and their scatter beyond their errors.
        """
        stars = self._comparison_stars(epochs, ra=ra, dec=dec)
        if stars.n_rows < 3 or len(epochs) < 3:
            return np.zeros(len(epochs)), np.zeros(len(epochs)), 0, 0.0
        mag = np.full((len(epochs), stars.n_rows), np.nan)
        error = np.full_like(mag, np.nan)
        for k, epoch in enumerate(epochs):
            tree = cKDTree(_tangent(epoch.sources["ra"], epoch.sources["dec"], ra, dec))
            distance, row = tree.query(_tangent(stars["ra"], stars["dec"], ra, dec))
            matched = distance < self.config.radius_arcsec
            values, errors = self._magnitudes(epoch.sources)
            mag[k, matched], error[k, matched] = values[row[matched]], errors[row[matched]]
        solved = solve_ensemble(mag, error, self.config.ensemble)
        is_known = np.isfinite(solved.offset)
        offset = np.where(is_known, solved.offset, 0.0)
        return offset, np.where(is_known, solved.offset_err, 0.0), int(solved.is_comparison.sum()), solved.excess

    def _comparison_stars(self, epochs: list[Epoch], *, ra: float, dec: float) -> Catalog:
        richest = max((e.sources for e in epochs), key=lambda sources: sources.n_rows)
        spoiled = int(SourceFlag.SATURATED | SourceFlag.EDGE | SourceFlag.BAD_PIXEL)
        flux, error = richest[self.config.flux], richest[self.config.flux.replace("flux", "flux_err")]
        away = _separation(richest["ra"], richest["dec"], ra, dec) > 2.0 * self.config.radius_arcsec
        good = (flux > self.config.min_snr * error) & ((richest["flags"] & spoiled) == 0) & away
        chosen = np.flatnonzero(good)
        return richest.select(chosen[np.argsort(-flux[chosen])][: self.config.max_comparisons])


def _tangent(ra: Floats, dec: Floats, ra0: float, dec0: float) -> Floats:
    """Return offsets in arcsec on the sky from a place nearby, ``[n, 2]``."""
    dx = ((ra - ra0 + 180.0) % 360.0 - 180.0) * np.cos(np.radians(dec0))
    return np.stack([dx, dec - dec0], axis=1) * 3600.0


def _separation(ra: Floats, dec: Floats, ra0: float, dec0: float) -> Floats:
    a, d, a0, d0 = np.radians(ra), np.radians(dec), np.radians(ra0), np.radians(dec0)
    h = np.sin((d - d0) / 2) ** 2 + np.cos(d) * np.cos(d0) * np.sin((a - a0) / 2) ** 2
    return np.asarray(np.degrees(2.0 * np.arcsin(np.sqrt(np.clip(h, 0, 1)))) * 3600.0)
