"""Solve the world coordinates of a detector image against a reference catalog."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.algorithms.association.sky_index import unit_vectors
from gueststar.algorithms.astrometry.config import AstrometryConfig
from gueststar.algorithms.astrometry.displacement import Displacement
from gueststar.algorithms.astrometry.distortion import Distortion
from gueststar.algorithms.astrometry.learn_distortion import MatchedStars
from gueststar.algorithms.astrometry.matching import match_one_to_one
from gueststar.algorithms.astrometry.pattern import Tolerances
from gueststar.algorithms.astrometry.plane_fit import fit_plane_map
from gueststar.algorithms.astrometry.polynomial import PlaneMap
from gueststar.algorithms.astrometry.proper_motion import earth_position, propagate_positions
from gueststar.algorithms.astrometry.quality import AstrometryMetrics, measure_quality, reasons_to_refuse
from gueststar.algorithms.astrometry.refinement import MeasuredPoints, Sky
from gueststar.algorithms.astrometry.refraction import BANDS, Air, air_above, believable, refract
from gueststar.algorithms.astrometry.solve import PlaneSolution, SkyCatalog, solve_plane
from gueststar.algorithms.astrometry.tangent import tangent_deproject, tangent_project
from gueststar.algorithms.astrometry.tpv_conversion import tpv_from_plane_map
from gueststar.core.bits import SourceFlag
from gueststar.core.errors import DataError
from gueststar.core.times import mjd_utc
from gueststar.model.camera import Filter, Site
from gueststar.model.catalog import Catalog
from gueststar.model.exposure import ExposureInfo
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
    displacement: Displacement | None = None
    """By the air, on the tangent plane about the WCS's reference point; None: none was found."""

    def places(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Return (ra, dec), degrees, of sources at pixels, the air's displacement taken out."""
        ra, dec = self.wcs.pixel_to_sky(x=x, y=y)
        if self.displacement is None:
            return ra, dec
        ra0, dec0 = self.wcs.crval
        plane = np.stack(tangent_project(ra, dec, ra0=ra0, dec0=dec0)) + self.displacement.at(x, y).T / 3600.0
        return tangent_deproject(plane[0], plane[1], ra0=ra0, dec0=dec0)

    def error_arcsec(self, x: Floats, y: Floats) -> Floats:
        """Return the error per axis that the solution adds to sources at pixels, arcsec."""
        if self.displacement is None:
            return np.full(x.shape, self.metrics.systematic_mas / 1000.0)
        return self.displacement.error_at(x, y)

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
        air = believable(air, centre)
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
        return AstrometrySolution(_wcs_of(solution), matches, fitted, metrics, solution.displacement)


def air_for(site: Site, info: ExposureInfo, glass: Filter) -> Air | None:
    """Return the air that an exposure was taken through; None where the camera's file does not say from where."""
    if not site.is_placed:
        return None
    band = glass.band if glass.band in BANDS else glass.catalog_band
    return air_above(
        mjd_utc=mjd_utc(info.mjd_tai), latitude_deg=site.latitude_deg, longitude_deg=site.longitude_deg,
        height_m=site.height_m, band=band, colour=glass.colour,
    )  # fmt: skip


def cone_about(ra: Floats, dec: Floats) -> tuple[float, float, float]:
    """Return the centre and radius (ra, dec, degrees) of a cone that holds places on the sky."""
    places = unit_vectors(ra, dec)
    x, y, z = places.mean(axis=0)
    centre = np.array([x, y, z]) / np.sqrt(x * x + y * y + z * z)
    radius = 2.0 * np.arcsin(min(np.linalg.norm(places - centre, axis=1).max() / 2.0, 1.0))
    middle = (np.degrees(np.arctan2(y, x)) % 360.0, np.degrees(np.arcsin(centre[2])))
    return float(middle[0]), float(middle[1]), float(np.degrees(radius)) + 0.002


def match_for_distortion(
    sources: Catalog, reference: Catalog, *, epoch_year: float, glass: Filter, air: Air | None,
    pixel_scale_arcsec: float,
) -> MatchedStars:  # fmt: skip
    """Return the stars that an image's astrometry was fitted to, with their places as seen through the air.

    ``sources`` is a SOURCE catalog, ``reference`` a REFCAT catalog about it. Pairs lie within a pixel of each other.
    """
    fitted = sources.select((sources["flags"] & int(SourceFlag.ASTROMETRIC)) != 0)
    fitted = fitted.select(np.argsort(-fitted["psf_flux"], kind="stable"))
    _, catalog = sky_catalog(reference, epoch_year, glass.catalog_band, glass.colour)
    if fitted.n_rows == 0 or catalog.ra.size == 0:
        return MatchedStars(np.zeros(0), np.zeros(0), np.zeros((0, 2)), np.zeros(0))
    centre = (float(fitted["ra"][0]), float(fitted["dec"][0]))
    stars, air = catalog.in_plane(centre), believable(air, centre)
    near = np.flatnonzero(np.all(np.isfinite(stars.plane), axis=1))
    there = 3600.0 * np.stack(tangent_project(fitted["ra"], fitted["dec"], ra0=centre[0], dec0=centre[1]), axis=1)
    pairs = match_one_to_one(there, cKDTree(stars.plane[near]), radius=max(pixel_scale_arcsec, 0.5))
    star = near[pairs.star]
    ra, dec = catalog.ra[star], catalog.dec[star]
    if air is not None:
        ra, dec = refract(air, ra, dec)
    seen = 3600.0 * np.stack(tangent_project(ra, dec, ra0=centre[0], dec0=centre[1]), axis=1)
    own = fitted.select(pairs.point)
    error = np.sqrt(
        0.5 * (own["x_err"].astype(np.float64) ** 2 + own["y_err"].astype(np.float64) ** 2)
        + catalog.variance[star].mean(axis=1) / pixel_scale_arcsec**2
    )
    return MatchedStars(own["x"], own["y"], seen, error)


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
