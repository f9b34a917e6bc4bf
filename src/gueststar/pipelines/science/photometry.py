"""Tie a detector image to the photometric system of a reference catalog."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.photocal.calibrators import is_isolated, relax
from gueststar.algorithms.photocal.config import PhotometryConfig
from gueststar.algorithms.photocal.solve import ZeroPointSolution, solve_zero_point
from gueststar.algorithms.photocal.spatial import ZeroPointMap
from gueststar.algorithms.photocal.zero_point import Calibrators
from gueststar.core.errors import ConfigError, DataError
from gueststar.model.camera import Filter
from gueststar.model.catalog import Catalog
from gueststar.model.image import MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.pipelines.science.astrometry import AstrometryMatches

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

_MAGNITUDES_PER_E_FOLD = 2.5 / np.log(10.0)
_UNKNOWN_ERROR = 0.03
"""Of a catalog magnitude without an error, mag."""


@dataclass(frozen=True)
class PhotometryMetrics:
    """Figures of a photometric solution, magnitudes."""

    n_matched: int
    """Sources with a catalog star."""
    n_eligible: int
    """Of these, stars that may calibrate."""
    n_calibrators: int
    """Of these, those that the solution used."""
    zero_point: float
    zero_point_err: float
    zero_point_rms: float
    """Scatter of the calibrators about the solution."""
    intrinsic_scatter: float
    """Scatter beyond the given errors."""
    colour_term: float
    colour_term_err: float
    colour_term_excess: float
    """Colour term less the one expected of the filter."""
    is_band_doubtful: bool
    """Whether that is so large that the filter's ``catalog_band`` is probably not what the glass lets through."""
    spatial_order: int
    """Of the zero point's change over the detector, which is applied; 0: none is proven."""
    spatial_rms: float
    """Of that change over the detector."""
    spatial_rms_err: float
    """Of the error of that change."""
    structure_rms: float
    """From place to place about a constant zero point, beyond noise: clouds or flat-field errors."""
    extinction: float
    """Expected less measured zero point; NaN if none was expected."""
    is_cloudy: bool


@dataclass(frozen=True, eq=False)
class PhotometrySolution:
    """The calibration of one detector image and how good it is."""

    photocal: PhotoCal
    spatial: ZeroPointMap | None
    """To add to the zero point at each place (`level_zero_point`); None if it is constant within the errors."""
    calibrators: Indices
    """Rows of the source catalog that the solution used."""
    metrics: PhotometryMetrics

    def to_metadata(self) -> dict[str, Any]:
        """Return the metrics, and the coefficients of the spatial change, as plain values."""
        values = asdict(self.metrics)
        values["spatial_coefficients"] = [] if self.spatial is None else [float(c) for c in self.spatial.coefficients]
        return values


class SolvePhotometry:
    """Find zero point, colour term and their errors from matched stars; poor solutions are refused."""

    def __init__(self, config: PhotometryConfig | None = None) -> None:
        self.config = config or PhotometryConfig()

    def run(
        self, sources: Catalog, matches: AstrometryMatches, reference: Catalog, *, filter: Filter,
        shape: tuple[int, int], expected_zero_point: float | None = None,
    ) -> PhotometrySolution:  # fmt: skip
        """Return the calibration of a detector image of ``shape``.

        ``sources`` needs x, y, flux (image units) and may have flux_err and flags; ``matches`` pairs its
        rows with those of ``reference`` (REFCAT). The zero point is tied to the filter's catalog band. Raises DataError
        with figures where the calibrators are too few or scatter too much.
        """
        table = _Matched(sources, matches, reference, filter)
        chosen = self._choose(table)
        if chosen.sum() < self.config.min_calibrators:
            raise DataError(
                f"only {int(chosen.sum())} of {table.x.size} matched stars can calibrate in {filter.catalog_band} "
                f"(needs {self.config.min_calibrators}; {int(np.isfinite(table.band_mag).sum())} have a magnitude)"
            )
        solution = solve_zero_point(
            table.calibrators(chosen), x=table.x[chosen], y=table.y[chosen], shape=shape, config=self.config
        )
        n_used = int(solution.fit.is_used.sum())
        if n_used < self.config.min_agreeing or solution.fit.intrinsic_scatter > self.config.max_scatter:
            raise DataError(
                f"zero point refused: {n_used} of {int(chosen.sum())} calibrators agree and scatter by "
                f"{solution.fit.intrinsic_scatter:.3f} mag beyond their errors (limit {self.config.max_scatter})"
            )
        used = np.flatnonzero(chosen)[solution.fit.is_used]
        photocal = _photocal(solution, table, used)
        metrics = _metrics(solution, photocal, table.x.size, int(chosen.sum()), expected_zero_point, self.config)
        return PhotometrySolution(photocal, solution.spatial, np.asarray(matches.source)[used], metrics)

    def _choose(self, table: _Matched) -> NDArray[np.bool_]:
        """Return which matched stars calibrate: strict conditions first, relaxed where few fulfil them."""
        config = self.config
        point_like = ~table.is_extended & ~table.is_variable & ((table.flags & config.bad_flags) == 0)
        known = (
            np.isfinite(table.band_mag)
            & np.isfinite(table.instrumental)
            & (table.band_err < config.worst_catalog_error)
        )
        if table.has_colour:
            low, high = config.colour_range
            known &= (table.colour > low) & (table.colour < high)
        required = [point_like, known, table.snr >= config.min_snr / 2.0]
        wanted = [table.band_err < config.max_catalog_error, table.snr >= config.min_snr]
        wanted.append((table.flags & config.poor_flags) == 0)
        if np.any(known):
            wanted.append(table.is_isolated(config.isolation_arcsec))
        return relax(required, wanted, enough=config.wanted_calibrators)


class LevelledImage(NamedTuple):
    """An image and its catalogs on which one zero point holds everywhere."""

    pixels: MaskedImage
    sources: Catalog
    """INSTRUMENTAL_SOURCE."""
    apertures: Catalog
    """INSTRUMENTAL_APERTURE."""


def level_zero_point(
    pixels: MaskedImage, sources: Catalog, apertures: Catalog, spatial: ZeroPointMap | None
) -> LevelledImage:
    """Scale an image and its catalogs so that the detector's one zero point holds everywhere.

    Pixels and fluxes are multiplied by 10**(-0.4 map), variances by its square; the map's own error is added to the
    errors of fluxes. Without a map everything stays as it is.
    """
    if spatial is None:
        return LevelledImage(pixels, sources, apertures)
    factor = spatial.factor_image()
    levelled = MaskedImage(pixels.image * factor, pixels.variance * (factor * factor), pixels.mask)
    return LevelledImage(levelled, _levelled(sources, spatial), _levelled(apertures, spatial))


def _levelled(catalog: Catalog, spatial: ZeroPointMap) -> Catalog:
    """Return an instrumental catalog with the map in its fluxes and their errors."""
    factor = spatial.factor(x=catalog["x"], y=catalog["y"])
    relative_error = spatial.error(x=catalog["x"], y=catalog["y"]) / _MAGNITUDES_PER_E_FOLD
    changed: dict[str, NDArray[Any]] = {}
    for name in catalog:
        if "flux" in name and "err" not in name:
            error = name.replace("flux", "flux_err")
            changed[name] = catalog[name] * factor
            changed[error] = np.hypot(catalog[error], relative_error * catalog[name]) * factor
    if "peak" in catalog:
        changed["peak"] = catalog["peak"] * factor
    return catalog.replace(**changed)


class _Matched:
    """Matched stars: what was measured and what the catalog says, row by row."""

    def __init__(self, sources: Catalog, matches: AstrometryMatches, reference: Catalog, filter: Filter) -> None:
        self.reference, self.rows = reference, np.asarray(matches.reference)
        self.band, self.colour_bands = filter.catalog_band, filter.colour
        found = np.asarray(matches.source)
        self.x, self.y, flux = (np.asarray(sources[name][found], dtype=np.float64) for name in ("x", "y", "flux"))
        self.flags = sources["flags"][found] if "flags" in sources else np.zeros(found.size, dtype=np.int64)
        error = np.asarray(sources["flux_err"][found], dtype=np.float64) if "flux_err" in sources else 0.005 * flux
        with np.errstate(divide="ignore", invalid="ignore"):
            self.snr = flux / error
            self.instrumental = np.where(flux > 0, -2.5 * np.log10(flux), np.nan)
        self.is_extended, self.is_variable = self._of("is_extended"), self._of("is_variable")
        self.band_mag, self.band_err = self._magnitude(self.band)
        first, second = (self._magnitude(name) for name in self.colour_bands)
        self.colour, self.colour_errs = first[0] - second[0], (first[1], second[1])
        self.has_colour = bool(np.isfinite(self.colour).sum() >= 0.5 * max(np.isfinite(self.band_mag).sum(), 1))

    def _of(self, name: str) -> NDArray[Any]:
        return np.asarray(self.reference[name][self.rows])

    def _magnitude(self, band: str) -> tuple[Floats, Floats]:
        if f"mag_{band}" not in self.reference:
            raise ConfigError(f"reference catalogs have no band {band!r}: mend catalog_band or colour of the filter")
        magnitude = self._of(f"mag_{band}").astype(np.float64)
        error = self._of(f"mag_{band}_err").astype(np.float64)
        return magnitude, np.where(np.isfinite(error) & (error >= 0), error, _UNKNOWN_ERROR)

    def is_isolated(self, radius_arcsec: float) -> NDArray[np.bool_]:
        """Return which stars have no bright neighbour in the reference catalog."""
        return is_isolated(
            ra=self.reference["ra"], dec=self.reference["dec"],
            magnitude=np.asarray(self.reference[f"mag_{self.band}"], dtype=np.float64),
            rows=self.rows, radius_arcsec=radius_arcsec,
        )  # fmt: skip

    def calibrators(self, chosen: NDArray[np.bool_]) -> Calibrators:
        """Return the chosen stars for the fit."""
        colour = self.colour[chosen] if self.has_colour else np.zeros(int(chosen.sum()))
        squares = [error[chosen] ** 2 if self.has_colour else np.zeros(colour.size) for error in self.colour_errs]
        return Calibrators(
            difference=(self.band_mag - self.instrumental)[chosen],
            variance=(_MAGNITUDES_PER_E_FOLD / self.snr[chosen]) ** 2,
            band_variance=self.band_err[chosen] ** 2,
            colour=colour,
            colour_variances=(squares[0], squares[1]),
            band_in_colour=(self.colour_bands.index(self.band) + 1) if self.band in self.colour_bands else 0,
        )


def _photocal(solution: ZeroPointSolution, table: _Matched, used: Indices) -> PhotoCal:
    fit = solution.fit
    errors = np.sqrt(np.diag(fit.covariance))
    colour = table.colour[used] if table.has_colour else np.zeros(used.size)
    return PhotoCal(
        zero_point=float(fit.parameters[0]),
        zero_point_err=float(errors[0]),
        zero_point_rms=fit.rms,
        colour_term=float(fit.parameters[1]) if table.has_colour else 0.0,
        colour_term_err=float(errors[1]) if table.has_colour else 0.0,
        colour_name="-".join(table.colour_bands) if table.has_colour else "",
        band=table.band,
        n_calibrators=used.size,
        median_colour=float(np.median(colour)),
        rms_colour=float(np.std(colour)),
        zero_point_colour_cov=float(fit.covariance[0, 1]) if table.has_colour else 0.0,
    )


def _metrics(
    solution: ZeroPointSolution, photocal: PhotoCal, n_matched: int, n_eligible: int,
    expected_zero_point: float | None, config: PhotometryConfig,
) -> PhotometryMetrics:  # fmt: skip
    excess = photocal.colour_term - config.colour_term_prior if photocal.colour_name else 0.0
    extinction = float("nan") if expected_zero_point is None else expected_zero_point - photocal.zero_point
    return PhotometryMetrics(
        n_matched=n_matched,
        n_eligible=n_eligible,
        n_calibrators=photocal.n_calibrators,
        zero_point=photocal.zero_point,
        zero_point_err=photocal.zero_point_err,
        zero_point_rms=photocal.zero_point_rms,
        intrinsic_scatter=solution.fit.intrinsic_scatter,
        colour_term=photocal.colour_term,
        colour_term_err=photocal.colour_term_err,
        colour_term_excess=excess,
        is_band_doubtful=bool(abs(excess) > config.max_colour_term_excess + 2.0 * photocal.colour_term_err),
        spatial_order=solution.spatial.order if solution.spatial else 0,
        spatial_rms=solution.spatial.rms if solution.spatial else 0.0,
        spatial_rms_err=solution.spatial.rms_error if solution.spatial else 0.0,
        structure_rms=solution.structure,
        extinction=extinction,
        is_cloudy=bool(extinction > config.cloud_extinction or solution.structure > config.cloud_structure),
    )
