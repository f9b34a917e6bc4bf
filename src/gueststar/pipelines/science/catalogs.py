"""Make the catalogs of a science (or reference) image, and calibrate them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.algorithms.photometry.centroids import centroid_offsets
from gueststar.algorithms.photometry.classify import star_likeness
from gueststar.algorithms.photometry.error_floor import ErrorFloor, measure_error_floor
from gueststar.algorithms.photometry.far_wing import loss_correction
from gueststar.algorithms.photometry.flags import is_near_edge, mask_bits_within
from gueststar.algorithms.photometry.growth import (
    ApertureCorrection,
    fraction_within,
    measure_aperture_correction,
)
from gueststar.algorithms.photometry.psf_fit import PointSourceConfig, PointSources, measure_point_sources
from gueststar.algorithms.photometry.total import ApertureConfig, TotalFluxes, measure_totals
from gueststar.algorithms.psf.scene import FreshScene, SourceState, chosen
from gueststar.algorithms.psf.simultaneous import measure_errors
from gueststar.algorithms.psf.spline import SplinePsf
from gueststar.core.bits import MaskPlane, SourceFlag
from gueststar.core.ids import source_ids
from gueststar.model.catalog import Catalog
from gueststar.model.columns import APERTURE, SOURCE
from gueststar.model.image import MaskedImage
from gueststar.model.instrumental_columns import INSTRUMENTAL_APERTURE, INSTRUMENTAL_SOURCE
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.wcs import Wcs
from gueststar.pipelines.science.astrometry import AstrometrySolution
from gueststar.pipelines.science.psf import fresh_scene_of

FLAG_OF_PLANE = {
    MaskPlane.SATURATED: SourceFlag.SATURATED,
    MaskPlane.BLEED: SourceFlag.SATURATED,
    MaskPlane.BAD: SourceFlag.BAD_PIXEL,
    MaskPlane.NO_DATA: SourceFlag.BAD_PIXEL,
    MaskPlane.COSMIC_RAY: SourceFlag.COSMIC_RAY,
    MaskPlane.SATELLITE: SourceFlag.SATELLITE,
    MaskPlane.HALO: SourceFlag.NEAR_BRIGHT_STAR,
    MaskPlane.SUSPECT: SourceFlag.SUSPECT,
    MaskPlane.EDGE: SourceFlag.EDGE,
}
"""What a mask plane in a source's core means for the source."""

MAX_CORRECTION_STARS = 1000
"""Most stars that are looked at for the aperture correction."""
MAX_NEIGHBOURS = 0.1
"""Sources per aperture from which on neighbours that are not seen count in the scatter of apertures."""
MAX_FLOOR_STARS = 300
"""Most stars, the brightest first, on which the errors of positions that noise does not explain are measured."""


@dataclass(frozen=True)
class MakeCatalogsConfig:
    """Parameters of the catalogs."""

    sources: PointSourceConfig = field(default_factory=PointSourceConfig)
    """Detection and PSF fit."""
    apertures: ApertureConfig = field(default_factory=ApertureConfig)
    """Apertures."""
    is_flux_corrected: bool = True
    """Bring PSF fluxes to the system of the third aperture, where its ratio can be measured, and allow for the light
    that a wider PSF loses beyond its stamps."""


class StruckPixels(NamedTuple):
    """Pixels that cosmic rays struck, and what the sources and the sky about them would hold there."""

    y: NDArray[np.int64]
    x: NDArray[np.int64]
    value: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class InstrumentalCatalogs:
    """Catalogs in electrons and pixels."""

    psf: Catalog
    """INSTRUMENTAL_SOURCE: every point source, the hidden ones too."""
    aperture: Catalog
    """INSTRUMENTAL_APERTURE: sources of the first detection, point-like or extended."""
    metrics: dict[str, Any]
    """Plain values: numbers, aperture diameters and correction, noise ratio, model error."""
    is_detected: NDArray[np.bool_]
    """``[y, x]``: footprints of the first detection, and the pixels of saturated stars."""
    rays: StruckPixels
    """What cosmic rays struck on sources, found when these were subtracted."""


class MakeCatalogs:
    """Detect and measure all sources of an image."""

    def __init__(self, config: MakeCatalogsConfig = MakeCatalogsConfig()) -> None:
        self.config = config

    def run(self, pixels: MaskedImage, psf: Psf, *, fresh: FreshScene | None = None) -> InstrumentalCatalogs:
        """Return PSF and aperture catalogs of background-subtracted ``pixels``; both may be empty.

        ``fresh`` is the scene of these very pixels, if it was made before; it is used up.
        """
        fwhm = psf.central_fwhm
        spline = psf.spline
        is_charged = pixels.is_masked(MaskPlane.SATURATED | MaskPlane.BLEED)
        found = measure_point_sources(
            fresh or fresh_scene_of(pixels), is_charged, spline, fwhm=fwhm,
            is_struck=pixels.is_masked(MaskPlane.COSMIC_RAY), is_spike=pixels.is_masked(MaskPlane.HALO),
            config=self.config.sources,
        )  # fmt: skip
        is_first = found.first_index >= 0
        first = chosen(found.state, is_first)
        totals = self._totals(pixels, spline, found, first)
        radius = 0.5 * fwhm * self.config.apertures.diameters_fwhm[2]
        correction = _aperture_correction(found, is_first, totals, spline, radius)
        factor = np.ones(len(found.state.x))
        if self.config.is_flux_corrected:
            factor = correction.ratio * loss_correction(spline, x=found.state.x, y=found.state.y)
        fractional = correction.floor.variance(x=found.state.x, y=found.state.y, shape=spline.shape)
        found, floor = _with_position_floor(found, spline)
        flags = _flags(pixels, found, fwhm)
        ray_y, ray_x = found.ray_y, found.ray_x
        return InstrumentalCatalogs(
            _psf_catalog(found, flags, factor, fractional),
            _aperture_catalog(found, is_first, totals, flags),
            self._metrics(found, correction, fwhm) | _floor_metrics(floor),
            found.footprints.is_detected() | is_charged,
            StruckPixels(ray_y, ray_x, pixels.image[ray_y, ray_x] - found.scene.residual[ray_y, ray_x]),
        )

    def _totals(self, pixels: MaskedImage, spline: SplinePsf, found: PointSources, first: SourceState) -> TotalFluxes:
        area = found.footprints.area[found.first_index[found.first_index >= 0]]
        return measure_totals(
            found.scene, pixels.variance, spline, first,
            area=area, fwhm=found.fwhm, config=self.config.apertures,
        )  # fmt: skip

    def _metrics(self, found: PointSources, correction: ApertureCorrection, fwhm: float) -> dict[str, Any]:
        diameters = [d * fwhm for d in self.config.apertures.diameters_fwhm]
        return {
            "n_sources": len(found.state.x),
            "n_by_pass": np.bincount(found.found_in_pass, minlength=1).tolist(),
            "n_saturated": int(found.is_saturated.sum()),
            "n_cosmic_ray_pixels_on_sources": int(found.ray_y.size),
            "noise_ratio": found.noise_ratio,
            "model_error": found.model_error,
            "variance_slope": float(found.noise.slope),
            "aperture_diameters": diameters,
            "aperture_correction": correction.ratio,
            "aperture_correction_err": None if np.isnan(correction.ratio_err) else correction.ratio_err,
            "aperture_correction_scatter": None if np.isnan(correction.scatter) else correction.scatter,
            "flux_floor": float(np.sqrt(correction.floor.middle)),
            "flux_floor_corner": float(np.sqrt(correction.floor.corner)),
            "n_aperture_correction": correction.n_stars,
            "is_flux_corrected": self.config.is_flux_corrected,
        }


def without_rays(pixels: MaskedImage, rays: StruckPixels) -> MaskedImage:
    """Return an image in which what cosmic rays struck is replaced, marked COSMIC_RAY and INTERPOLATED."""
    if rays.y.size == 0:
        return pixels
    image, mask = pixels.image.copy(), pixels.mask.copy()
    image[rays.y, rays.x] = rays.value
    mask[rays.y, rays.x] |= int(MaskPlane.COSMIC_RAY | MaskPlane.INTERPOLATED)
    return MaskedImage(image, pixels.variance, mask)


def with_planes(pixels: MaskedImage, where: NDArray[np.bool_], plane: MaskPlane) -> MaskedImage:
    """Return an image with ``plane`` set ``where``."""
    return MaskedImage(pixels.image, pixels.variance, pixels.mask | np.where(where, np.int32(plane), np.int32(0)))


def flag_near(catalog: Catalog, stars: dict[SourceFlag, Catalog], *, radius: float = 1.0) -> Catalog:
    """Return a catalog with each flag set on the sources nearest to its ``stars``, if within ``radius`` pixels."""
    if catalog.n_rows == 0 or not any(some.n_rows for some in stars.values()):
        return catalog
    tree, flags = cKDTree(np.column_stack([catalog["x"], catalog["y"]])), catalog["flags"].copy()
    for flag, some in stars.items():
        distance, row = tree.query(np.column_stack([some["x"], some["y"]]))
        flags[row[distance <= radius]] |= int(flag)
    return catalog.replace(flags=flags)


def flag_psf_stars(catalog: Catalog, stars: Catalog) -> Catalog:
    """Return a catalog with PSF_STAR and PSF_RESERVED set on the sources that are ``stars`` (PSF_STAR schema)."""
    columns = {SourceFlag.PSF_STAR: "is_used", SourceFlag.PSF_RESERVED: "is_reserved"}
    return flag_near(catalog, {flag: stars.select(stars[column]) for flag, column in columns.items()})


def flag_halos(catalog: Catalog, mask: NDArray[np.int32], *, fwhm: float) -> Catalog:
    """Return a catalog with NEAR_BRIGHT_STAR set on sources with a HALO or GHOST pixel within one FWHM (pixels)."""
    bits = mask_bits_within(mask, x=catalog["x"], y=catalog["y"], radius=fwhm)
    is_near = (bits & int(MaskPlane.HALO | MaskPlane.GHOST)) != 0
    return catalog.replace(flags=catalog["flags"] | np.where(is_near, int(SourceFlag.NEAR_BRIGHT_STAR), 0))


def calibrate_sources(
    instrumental: Catalog, wcs: Wcs, photocal: PhotoCal, *, visit: int, detector: int,
    astrometry: AstrometrySolution | None = None,
) -> Catalog:  # fmt: skip
    """Return the SOURCE catalog of an INSTRUMENTAL_SOURCE catalog: sky positions and nJy.

    With ``astrometry`` the air's displacement is taken out of the positions, and their errors hold the solution's.
    """
    magnitude, magnitude_err = _magnitudes(instrumental["flux"], instrumental["flux_err"], photocal)
    return SOURCE.catalog(
        {
            "source_id": source_ids(visit, detector, instrumental.n_rows),
            **_places(instrumental, wcs, astrometry),
            "psf_flux": instrumental["flux"] * photocal.njy_per_unit,
            "psf_flux_err": instrumental["flux_err"] * photocal.njy_per_unit,
            "mag": magnitude,
            "mag_err": magnitude_err,
            **{name: instrumental[name] for name in ("snr", "chi2", "sharpness", "sky", "n_iterations", "flags")},
        }
    )


def calibrate_apertures(
    instrumental: Catalog, wcs: Wcs, photocal: PhotoCal, *, visit: int, detector: int,
    astrometry: AstrometrySolution | None = None,
) -> Catalog:  # fmt: skip
    """Return the APERTURE catalog of an INSTRUMENTAL_APERTURE catalog: sky positions and nJy (see above)."""
    magnitude, magnitude_err = _magnitudes(instrumental["total_flux"], instrumental["total_flux_err"], photocal)
    fluxes = [name for name in instrumental if "flux" in name]
    kept = ("kron_radius", "fwhm", "a_image", "b_image", "theta_deg", "area", "peak", "class_star", "flags")
    return APERTURE.catalog(
        {
            "source_id": source_ids(visit, detector, instrumental.n_rows),
            **_places(instrumental, wcs, astrometry),
            **{name: instrumental[name] * photocal.njy_per_unit for name in fluxes},
            "mag": magnitude,
            "mag_err": magnitude_err,
            **{name: instrumental[name] for name in kept},
        }
    )


def _places(instrumental: Catalog, wcs: Wcs, astrometry: AstrometrySolution | None) -> dict[str, NDArray[Any]]:
    """Return positions and their errors on pixels and sky (the local scale is that of the reference pixel)."""
    x, y = instrumental["x"], instrumental["y"]
    ra, dec = wcs.pixel_to_sky(x=x, y=y) if astrometry is None else astrometry.places(x, y)
    common = 0.0 if astrometry is None else astrometry.error_arcsec(x, y)
    jacobian = wcs.cd * 3600.0
    x_err, y_err = instrumental["x_err"].astype(np.float64), instrumental["y_err"].astype(np.float64)
    return {
        "x": x,
        "y": y,
        "x_err": x_err,
        "y_err": y_err,
        "ra": ra,
        "dec": dec,
        "ra_err": np.hypot(np.hypot(jacobian[0, 0] * x_err, jacobian[0, 1] * y_err), common),
        "dec_err": np.hypot(np.hypot(jacobian[1, 0] * x_err, jacobian[1, 1] * y_err), common),
    }


def _magnitudes(
    flux: NDArray[np.float64], flux_err: NDArray[np.float32], photocal: PhotoCal
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    magnitude = photocal.magnitude(flux)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(flux > 0, 2.5 / np.log(10.0) * flux_err / flux, np.nan)
    return magnitude, error


def _aperture_correction(
    found: PointSources, is_first: NDArray[np.bool_], totals: TotalFluxes, spline: SplinePsf, radius: float
) -> ApertureCorrection:
    """Compare an aperture with the PSF on up to `MAX_CORRECTION_STARS` bright, clean, point-like, unblended stars."""
    flux, errors = found.state.flux, found.errors
    is_clean = ~found.is_saturated & ~found.is_blended & (errors.n_masked == 0)
    is_clean &= (np.abs(errors.sharpness) < 0.1) & (flux > 50.0 * errors.flux_err)
    rows = np.flatnonzero(is_clean[is_first] & (totals.masked_fraction == 0))
    own = flux[is_first]
    rows = rows[np.argsort(-own[rows], kind="stable")[:MAX_CORRECTION_STARS]]
    x, y = found.state.x[is_first][rows], found.state.y[is_first][rows]
    stars = chosen(found.state, np.flatnonzero(is_first)[rows])
    with_model, without = (
        measure_errors(scene, spline, stars, fwhm=found.fwhm).flux_err
        for scene in (found.scene, found.scene._replace(model_error=0.0))
    )
    by_model = np.maximum(with_model**2 - without**2, 0.0)
    psf_err = errors.flux_err[is_first][rows]
    return measure_aperture_correction(
        own[rows], psf_err, totals.ap_flux[rows, 2], totals.ap_flux_err[rows, 2],
        fraction_within(spline, x=x, y=y, radius=radius), x=x, y=y, shape=spline.shape,
        psf_noise=np.sqrt(np.maximum(psf_err**2 - by_model, 0.0)),
        is_crowded=len(flux) * np.pi * radius**2 > MAX_NEIGHBOURS * found.scene.image.size,
    )  # fmt: skip


def _with_position_floor(found: PointSources, spline: SplinePsf) -> tuple[PointSources, ErrorFloor]:
    """Add to the errors of positions what bright, clean, point-like stars show that the PSF leaves uncertain."""
    state, errors = found.state, found.errors
    is_clean = ~found.is_saturated & ~found.is_blended & (errors.n_masked == 0)
    is_clean &= (np.abs(errors.sharpness) < 0.1) & (state.flux > 100.0 * errors.flux_err)
    rows = np.flatnonzero(is_clean)
    rows = rows[np.argsort(-state.flux[rows], kind="stable")[:MAX_FLOOR_STARS]]
    stars = chosen(state, rows)
    offsets = centroid_offsets(found.scene, spline, stars, errors.select(rows), fwhm=found.fwhm)
    floor = measure_error_floor(
        np.stack([offset - np.median(offset) if rows.size else offset for offset in (offsets.x, offsets.y)]),
        np.stack([offsets.x_err, offsets.y_err]), x=stars.x, y=stars.y, shape=spline.shape,
    )  # fmt: skip
    extra = floor.variance(x=state.x, y=state.y, shape=spline.shape)
    errors = errors._replace(x_err=np.sqrt(errors.x_err**2 + extra), y_err=np.sqrt(errors.y_err**2 + extra))
    return found._replace(errors=errors), floor


def _floor_metrics(floor: ErrorFloor) -> dict[str, Any]:
    return {
        "position_floor_pixels": float(np.sqrt(floor.middle)),
        "position_floor_corner_pixels": float(np.sqrt(floor.corner)),
        "n_position_floor": floor.n_stars,
    }


def _flags(pixels: MaskedImage, found: PointSources, fwhm: float) -> NDArray[np.int32]:
    x, y = found.state.x, found.state.y
    bits = mask_bits_within(pixels.mask, x=x, y=y, radius=fwhm)
    flags = np.zeros(len(x), dtype=np.int32)
    for plane, flag in FLAG_OF_PLANE.items():
        flags[(bits & int(plane)) != 0] |= int(flag)
    flags[found.is_saturated] |= int(SourceFlag.SATURATED)
    flags[found.is_blended] |= int(SourceFlag.BLENDED)
    flags[is_near_edge(pixels.shape, x=x, y=y, margin=1.5 * fwhm)] |= int(SourceFlag.EDGE)
    flags[~(np.isfinite(found.errors.x_err) & np.isfinite(found.errors.y_err))] |= int(SourceFlag.FIT_FAILED)
    return flags


def _psf_catalog(
    found: PointSources, flags: NDArray[np.int32], factor: NDArray[np.float64], floor: NDArray[np.float64]
) -> Catalog:
    """Return the PSF catalog; ``floor`` is the squared fractional error of fluxes beyond noise."""
    order = np.argsort(-found.state.flux, kind="stable")
    errors = found.errors
    return INSTRUMENTAL_SOURCE.catalog(
        {
            "x": found.state.x,
            "y": found.state.y,
            "x_err": errors.x_err,
            "y_err": errors.y_err,
            "flux": found.state.flux * factor,
            "flux_err": np.sqrt(errors.flux_err**2 + floor * found.state.flux**2) * factor,
            "snr": found.snr,
            "chi2": errors.chi2,
            "sharpness": errors.sharpness,
            "sharpness_err": errors.sharpness_err,
            "sky": found.local_sky,
            "n_iterations": found.found_in_pass,
            "flags": flags,
        }
    ).select(order)


def _aperture_catalog(
    found: PointSources, is_first: NDArray[np.bool_], totals: TotalFluxes, flags: NDArray[np.int32]
) -> Catalog:
    state, errors = chosen(found.state, is_first), found.errors
    mean, difference = 0.5 * (totals.xx + totals.yy), np.hypot(0.5 * (totals.xx - totals.yy), totals.xy)
    own_flags = flags[is_first] | np.where(totals.masked_fraction > 0, int(SourceFlag.APERTURE_INCOMPLETE), 0)
    columns: dict[str, NDArray[Any]] = {
        "x": state.x,
        "y": state.y,
        "x_err": errors.x_err[is_first],
        "y_err": errors.y_err[is_first],
        "total_flux": totals.total_flux,
        "total_flux_err": totals.total_flux_err,
        "kron_radius": totals.kron_radius,
        "fwhm": 2.3548 * np.sqrt(mean),
        "a_image": np.sqrt(mean + difference),
        "b_image": np.sqrt(np.maximum(mean - difference, 0.0)),
        "theta_deg": np.degrees(0.5 * np.arctan2(2.0 * totals.xy, totals.xx - totals.yy)),
        "area": found.footprints.area[found.first_index[is_first]],
        "peak": totals.peak,
        "class_star": star_likeness(errors.sharpness[is_first], errors.sharpness_err[is_first]),
        "flags": own_flags,
    }
    for k in range(4):
        columns[f"ap_flux_{k + 1}"] = totals.ap_flux[:, k]
        columns[f"ap_flux_err_{k + 1}"] = totals.ap_flux_err[:, k]
    return INSTRUMENTAL_APERTURE.catalog(columns).select(np.argsort(-totals.total_flux, kind="stable"))
