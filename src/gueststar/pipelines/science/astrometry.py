"""Solve the world coordinates of a detector image against a reference catalog."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.astrometry.config import AstrometryConfig
from gueststar.algorithms.astrometry.distortion import Distortion
from gueststar.algorithms.astrometry.pattern import Tolerances
from gueststar.algorithms.astrometry.plane_fit import fit_plane_map
from gueststar.algorithms.astrometry.polynomial import PlaneMap
from gueststar.algorithms.astrometry.proper_motion import earth_position, propagate_positions
from gueststar.algorithms.astrometry.quality import AstrometryMetrics, measure_quality, reasons_to_refuse
from gueststar.algorithms.astrometry.refinement import MeasuredPoints, Sky
from gueststar.algorithms.astrometry.refraction import Air
from gueststar.algorithms.astrometry.solve import PlaneSolution, SkyCatalog, solve_plane
from gueststar.algorithms.astrometry.tangent import tangent_project
from gueststar.algorithms.astrometry.tpv_conversion import tpv_from_plane_map
from gueststar.core.errors import DataError
from gueststar.model.catalog import Catalog
from gueststar.model.wcs import Wcs

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


class AstrometryMatches(NamedTuple):
    """Rows of the source and the reference catalog that are the same star."""

    source: Indices
    reference: Indices
    distance_arcsec: Floats


@dataclass(frozen=True, eq=False)
class AstrometrySolution:
    """World coordinates, the matches they came from, and how good they are."""

    wcs: Wcs
    matches: AstrometryMatches
    fitted: Indices
    """Rows of the source catalog that the solution was fitted to."""
    metrics: AstrometryMetrics

    def to_metadata(self) -> dict[str, Any]:
        """Return the metrics as plain values, with the bright stars' scatter per axis as ``rms_bright_mas``."""
        found = self.metrics
        bright = float(np.hypot(found.rms_bright_ra_mas, found.rms_bright_dec_mas) / np.sqrt(2.0))
        return asdict(found) | {"rms_bright_mas": bright}


class SolveAstrometry:
    """Match sources to a reference catalog and fit the world coordinates; poor solutions are refused."""

    def __init__(self, config: AstrometryConfig | None = None) -> None:
        self.config = config or AstrometryConfig()

    def run(
        self, sources: Catalog, *, start: Wcs, shape: tuple[int, int], reference: Catalog, epoch_year: float,
        pointing_tolerance_arcmin: float = 5.0, rotation_tolerance_deg: float = 5.0, scale_tolerance: float = 0.05,
        is_parity_known: bool = True, band: str = "r", colour: tuple[str, str] = ("g", "r"), air: Air | None = None,
        distortion: Distortion | None = None,
    ) -> AstrometrySolution:  # fmt: skip
        """Return the solution of one detector image.

        ``sources`` needs the columns x, y, flux (any unit) and may have x_err, y_err and flags;
        ``start`` is the expected WCS, whose distortion (relative to the pixels) is a prior that is corrected as far as
        the matches allow; ``reference`` is a REFCAT catalog that covers the detector and the pointing tolerance;
        ``band`` ranks its stars by brightness. ``air`` lets differential refraction be corrected, by ``colour``
        too; ``distortion``, learned from earlier exposures, stands for the start's and holds the fit. Raises DataError
        with figures where no trustworthy solution exists.
        """
        rows, points, quality = _points(sources, self.config)
        start_map, centre = _map_of(start, shape)
        if distortion is not None:
            start_map = distortion.plane_map(start_map.matrix, start_map.coefficients[:, 0])
        reference_rows, catalog = sky_catalog(reference, epoch_year, band, colour)
        solution = solve_plane(
            points=points, quality=quality, start=start_map, centre=centre, shape=shape, catalog=catalog,
            tolerances=Tolerances(
                60.0 * pointing_tolerance_arcmin, np.radians(rotation_tolerance_deg), scale_tolerance, is_parity_known
            ),
            config=self.config, air=air, distortion=distortion,
        )  # fmt: skip
        metrics = measure_quality(solution, points=points, shape=shape, air=air)
        if reasons := reasons_to_refuse(
            metrics, pixel_scale=start.pixel_scale_arcsec, scale_tolerance=scale_tolerance, config=self.config
        ):
            raise DataError(
                f"astrometric solution refused: {metrics.n_fitted} of {metrics.n_sources} sources match, "
                + "; ".join(reasons)
            )
        pairs = solution.matches
        matches = AstrometryMatches(rows[pairs.point], reference_rows[pairs.star], pairs.distance)
        fitted = rows[solution.paired[solution.refined.fit.is_used]]
        return AstrometrySolution(_wcs_of(solution), matches, fitted, metrics)


def _points(sources: Catalog, config: AstrometryConfig) -> tuple[Indices, MeasuredPoints, NDArray[np.int_]]:
    """Return the usable rows, their measurements and quality: 2 good, 1 poor, 0 bad (not to be fitted)."""
    x, y, flux = (np.asarray(sources[name], dtype=np.float64) for name in ("x", "y", "flux"))
    rows = np.flatnonzero(np.isfinite(x) & np.isfinite(y) & np.isfinite(flux) & (flux > 0))
    errors = [_error(sources, name, rows, config.default_error_pixel) for name in ("x_err", "y_err")]
    points = MeasuredPoints(x[rows], y[rows], errors[0], errors[1], -2.5 * np.log10(flux[rows]))
    flags = sources["flags"][rows] if "flags" in sources else np.zeros(rows.size, dtype=np.int64)
    quality = np.where(flags & config.bad_flags, 0, np.where(flags & config.poor_flags, 1, 2))
    return rows, points, quality


def _error(sources: Catalog, name: str, rows: Indices, default: float) -> Floats:
    if name not in sources:
        return np.full(rows.size, default)
    values = np.asarray(sources[name][rows], dtype=np.float64)
    return np.where(np.isfinite(values) & (values > 0), values, default)


def _map_of(wcs: Wcs, shape: tuple[int, int]) -> tuple[PlaneMap, Sky]:
    """Return a WCS as a map to the tangent plane about the sky position of the detector's centre."""
    ny, nx = shape
    x0, y0 = (nx - 1) / 2.0, (ny - 1) / 2.0
    ra0, dec0 = (float(value) for value in wcs.pixel_to_sky(x=x0, y=y0))
    x, y = (grid.ravel() for grid in np.meshgrid(np.linspace(0, nx - 1, 15), np.linspace(0, ny - 1, 15)))
    ra, dec = wcs.pixel_to_sky(x=x, y=y)
    plane = 3600.0 * np.stack(tangent_project(ra, dec, ra0=ra0, dec0=dec0), axis=1)
    unit = max(float(np.hypot(x0, y0)), 1.0)
    return fit_plane_map(x, y, plane, x0=x0, y0=y0, unit=unit, order=5), (ra0, dec0)


def sky_catalog(
    reference: Catalog, epoch_year: float, band: str, colour: tuple[str, str]
) -> tuple[Indices, SkyCatalog]:
    """Return the rows with positions and the stars at the epoch, as they are seen from the Earth."""
    rows = np.flatnonzero(np.isfinite(reference["ra"]) & np.isfinite(reference["dec"]))
    table = reference.select(rows)
    years = epoch_year - np.asarray(table["epoch"], dtype=np.float64)
    ra, dec = propagate_positions(
        ra=table["ra"], dec=table["dec"], pm_ra=table["pm_ra"], pm_dec=table["pm_dec"], years=years,
        parallax=table.get("parallax", 0.0), earth_au=earth_position(epoch_year),
    )  # fmt: skip
    errors = np.nan_to_num(np.stack([table["ra_err"], table["dec_err"]], axis=1).astype(np.float64)) / 1000.0
    extended = np.asarray(table["is_extended"])
    return rows, SkyCatalog(ra, dec, errors**2, brightness_of(table, band), extended, colour_of(table, colour))


def colour_of(table: Catalog, colour: tuple[str, str]) -> Floats:
    """Return a catalog colour, mag; NaN where a band is unknown."""
    names = [f"mag_{band}" for band in colour]
    if any(name not in table for name in names):
        return np.full(table.n_rows, np.nan)
    return np.asarray(table[names[0]], dtype=np.float64) - np.asarray(table[names[1]], dtype=np.float64)


def brightness_of(table: Catalog, band: str) -> Floats:
    """Return the magnitude in ``band``, or in the next band that each star has; NaN if it has none."""
    magnitude = np.full(table.n_rows, np.nan)
    for name in (band, "r", "i", "g", "z"):
        if f"mag_{name}" in table:
            magnitude = np.where(np.isfinite(magnitude), magnitude, table[f"mag_{name}"])
    return magnitude


def _wcs_of(solution: PlaneSolution) -> Wcs:
    terms = tpv_from_plane_map(solution.plane_map)
    return Wcs(solution.centre, terms.crpix, terms.cd, terms.pv1, terms.pv2)
