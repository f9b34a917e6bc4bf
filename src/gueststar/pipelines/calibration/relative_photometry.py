"""A night's exposures of one detector and filter on one photometric scale, from the stars that they share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.association.sky_index import unit_vectors
from gueststar.algorithms.photocal.overlap import group_positions
from gueststar.algorithms.photocal.relative import (
    Measurements,
    RelativeConfig,
    RelativeSolution,
    solve_relative,
)
from gueststar.core.bits import SourceFlag
from gueststar.core.errors import DataError
from gueststar.model.calibration import CalibrationTable
from gueststar.model.catalog import Catalog
from gueststar.model.photocal import NJY_ZERO_POINT

Floats = NDArray[np.float64]

_MAGNITUDES_PER_E_FOLD = 2.5 / np.log(10.0)


@dataclass(frozen=True)
class RelativePhotometryConfig:
    """Which stars tie a night's exposures together, and how."""

    flux: Literal["psf_flux", "ap_flux_1", "ap_flux_2", "ap_flux_3", "ap_flux_4"] = "ap_flux_3"
    """Flux that is compared: the third aperture is the one that magnitudes refer to; ``psf_flux`` in crowded fields."""
    min_snr: float = 50.0
    """Of a measurement that takes part."""
    radius_arcsec: float = 1.0
    """Detections of different exposures this near to each other are one star."""
    min_images: int = 3
    """Fewer exposures of a detector and filter in a night are not compared."""
    min_stars: int = 10
    """Of stars seen more than once, as many are needed."""
    bad_flags: int = int(
        SourceFlag.SATURATED
        | SourceFlag.EDGE
        | SourceFlag.BAD_PIXEL
        | SourceFlag.COSMIC_RAY
        | SourceFlag.FIT_FAILED
        | SourceFlag.NEAR_BRIGHT_STAR
        | SourceFlag.SATELLITE
        | SourceFlag.SUSPECT
        | SourceFlag.APERTURE_INCOMPLETE
    )
    """Detections with one of these `SourceFlag` bits do not take part."""
    solution: RelativeConfig = field(default_factory=RelativeConfig)
    """The solution itself."""


class RelativeExposure(NamedTuple):
    """The catalog of one exposure: ra, dec, x, y, flags, the flux to compare (nJy) and its error."""

    visit: int
    mjd_tai: float
    sources: Catalog


class CalibrateRelative:
    """Solve the exposures' zero points, and the stars' magnitudes, together."""

    def __init__(self, config: RelativePhotometryConfig = RelativePhotometryConfig()) -> None:
        self.config = config

    def run(
        self,
        exposures: list[RelativeExposure],
        *,
        detector_id: int,
        shape: tuple[int, int],
        physical_filter: str | None,
    ) -> CalibrationTable:
        """Return the night's ``relative_photometry``: a table of exposures and one of stars.

        Offsets and coefficients are to be subtracted from magnitudes; their mean over the exposures stays that of the
        exposures' own zero points. Raises DataError for too few exposures or stars.
        """
        config = self.config
        if len(exposures) < config.min_images:
            raise DataError(f"{len(exposures)} exposures cannot be compared, {config.min_images} are needed")
        chosen = [self._chosen(exposure.sources) for exposure in exposures]
        labels = group_positions(
            [unit_vectors(rows["ra"], rows["dec"]) for rows in chosen],
            radius=float(np.radians(config.radius_arcsec / 3600.0)),
        )
        n_stars = max((int(label.max()) + 1 for label in labels if label.size), default=0)
        rows = self._measurements(chosen, labels)
        n_shared = int((np.bincount(rows.star, minlength=n_stars) > 1).sum())
        if n_shared < config.min_stars:
            raise DataError(f"{n_shared} stars are on more than one exposure, {config.min_stars} are needed")
        solution = solve_relative(rows, n_images=len(exposures), n_stars=n_stars, shape=shape, config=config.solution)
        tables = {
            "exposures": _exposure_table(exposures, rows, solution),
            "stars": _star_table(chosen, labels, solution),
        }
        mjd = np.array([exposure.mjd_tai for exposure in exposures])
        metadata = _metrics(solution) | {
            "flux": config.flux, "shape": list(shape), "order": solution.order, "mjd_first": float(mjd.min()),
            "mjd_last": float(mjd.max()),
        }  # fmt: skip
        return CalibrationTable(
            "relative_photometry", detector_id, tables, float(mjd.mean()), len(exposures), physical_filter, metadata
        )

    def _chosen(self, sources: Catalog) -> Catalog:
        config = self.config
        flux, error = sources[config.flux], sources[config.flux.replace("flux", "flux_err")]
        with np.errstate(invalid="ignore"):
            is_good = (flux > config.min_snr * error) & (error > 0) & ((sources["flags"] & config.bad_flags) == 0)
        return sources.select(is_good)

    def _measurements(self, chosen: list[Catalog], labels: list[NDArray[np.intp]]) -> Measurements:
        name = self.config.flux

        def column(key: str) -> Floats:
            return np.concatenate([np.asarray(rows[key], dtype=np.float64) for rows in chosen])

        flux, error = column(name), column(name.replace("flux", "flux_err"))
        image = np.concatenate([np.full(rows.n_rows, k) for k, rows in enumerate(chosen)])
        return Measurements(
            image, np.concatenate(labels), column("x"), column("y"),
            NJY_ZERO_POINT - 2.5 * np.log10(flux), _MAGNITUDES_PER_E_FOLD * error / flux,
        )  # fmt: skip


def _exposure_table(
    exposures: list[RelativeExposure], rows: Measurements, solution: RelativeSolution
) -> dict[str, NDArray]:
    n = len(exposures)
    takes_part = solution.is_comparison[rows.star]
    return {
        "visit": np.array([exposure.visit for exposure in exposures], dtype=np.int64),
        "mjd_tai": np.array([exposure.mjd_tai for exposure in exposures]),
        "offset": solution.offset,
        "offset_err": solution.offset_err,
        "coefficients": solution.coefficients if solution.order else np.zeros((n, 1)),
        "n_stars": np.bincount(rows.image, weights=takes_part, minlength=n).astype(np.int32),
    }


def _star_table(
    chosen: list[Catalog], labels: list[NDArray[np.intp]], solution: RelativeSolution
) -> dict[str, NDArray]:
    ra, dec = np.full(solution.mean.size, np.nan), np.full(solution.mean.size, np.nan)
    for rows, label in zip(reversed(chosen), reversed(labels), strict=True):  # the first detection stays
        ra[label], dec[label] = rows["ra"], rows["dec"]
    shared = solution.n > 1
    return {
        "ra": ra[shared], "dec": dec[shared], "mag": solution.mean[shared], "mag_err": solution.mean_err[shared],
        "rms": solution.rms[shared], "n": solution.n[shared].astype(np.int32),
        "is_comparison": solution.is_comparison[shared],
    }  # fmt: skip


def _metrics(solution: RelativeSolution) -> dict[str, float | int | None]:
    """Return how well the stars repeat, mag; None where too few are seen three times."""
    known = np.isfinite(solution.rms)
    brightest = np.flatnonzero(known)[np.argsort(solution.mean[known])][:30]
    return {
        "n_stars": int((solution.n > 1).sum()),
        "n_comparison": int((solution.is_comparison & (solution.n > 1)).sum()),
        "n_variable": int((~solution.is_comparison & (solution.n > 2)).sum()),
        "repeatability_mag": float(np.median(solution.rms[known])) if known.any() else None,
        "repeatability_bright_mag": float(np.median(solution.rms[brightest])) if brightest.size else None,
        "floor_mag": solution.floor,
        "offset_rms_mag": float(np.nanstd(solution.offset)),
    }
