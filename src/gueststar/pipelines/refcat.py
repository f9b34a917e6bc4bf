"""Make a reference catalog of a place from images whose world coordinates are trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.astrometry.tangent import tangent_deproject, tangent_project
from gueststar.algorithms.photocal.overlap import Overlaps, group_positions, solve_overlaps
from gueststar.core.bits import SourceFlag
from gueststar.core.errors import DataError
from gueststar.core.healpix import healpix_key
from gueststar.model.catalog import Catalog
from gueststar.model.columns import REFCAT
from gueststar.model.image import MaskedImage
from gueststar.model.wcs import Wcs

Floats = NDArray[np.float64]
Detect = Callable[[MaskedImage], Catalog]
"""From background-subtracted pixels to sources: x, y, flux and, where known, x_err, y_err, flux_err, flags."""

_ARBITRARY_ZERO_POINT = 25.0
"""Magnitude given to one electron a second where no image has a zero point."""


@dataclass(frozen=True)
class RefcatConfig:
    """How detections on several images become a catalog."""

    match_radius_arcsec: float = 1.5
    """Detections nearer than this are one star."""
    min_snr: float = 8.0
    """Of a detection."""
    min_fraction: float = 0.5
    """A star must be seen on this fraction of the images that cover it, and on two where two do."""
    variable_chi2: float = 9.0
    """Suspected variable above this reduced chi-square about the mean magnitude (errors of at least 0.02 mag)."""
    position_error_mas: float = 20.0
    """Least error of a position, for what the images' solutions have in common."""
    bad_flags: int = int(
        SourceFlag.SATURATED | SourceFlag.EDGE | SourceFlag.BAD_PIXEL | SourceFlag.COSMIC_RAY | SourceFlag.FIT_FAILED
    )
    """Detections with one of these `SourceFlag` bits are not used."""


@dataclass(frozen=True, eq=False)
class TrustedImage:
    """A background-subtracted image and what is known of it."""

    name: str
    pixels: MaskedImage
    wcs: Wcs
    band: str
    """Catalog band that its magnitudes are written to: g, r, i or z."""
    exposure_s: float
    epoch_year: float
    zero_point: float | None = None
    """AB magnitude of one image unit; None: not known."""


@dataclass(frozen=True, eq=False)
class RefcatFromImages:
    """The catalog and what must be known about it."""

    catalog: Catalog
    metadata: dict[str, Any]


@dataclass(frozen=True, eq=False)
class _Detections:
    """All detections of all images, one row each."""

    image: NDArray[np.intp]
    star: NDArray[np.intp]
    plane: Floats
    """``[n, 2]``, arcsec about the field's centre."""
    position_error: Floats
    """Arcsec."""
    magnitude: Floats
    error: Floats


class MakeRefcatFromImages:
    """Detect stars on images of one field, combine them and put their magnitudes on one scale."""

    def __init__(self, detect: Detect, config: RefcatConfig | None = None) -> None:
        self.detect = detect
        self.config = config or RefcatConfig()

    def run(self, images: Sequence[TrustedImage]) -> RefcatFromImages:
        """Return the catalog of the images' common field (up to some degrees wide).

        Magnitudes are on the scale of the images with a zero point if there are any in the band, else
        arbitrary: 25 for one electron a second on the band's first image; ``metadata["is_calibrated"]`` tells.
        Raises DataError if nothing was detected.
        """
        if not images:
            raise DataError("no images to make a reference catalog from")
        centre = _centre(images[0])
        found = self._detections(images, centre)
        if found.star.size == 0:
            raise DataError(f"no stars above {self.config.min_snr} sigma on {len(images)} images")
        kept = self._confirmed(found, images, centre)
        columns, calibrated = self._columns(found, images, kept)
        ra, dec = tangent_deproject(*(_mean_plane(found)[kept].T / 3600.0), ra0=centre[0], dec0=centre[1])
        columns |= {"ra": ra, "dec": dec, "ref_id": healpix_key(ra=ra, dec=dec)}
        columns["epoch"] = np.full(ra.size, np.mean([image.epoch_year for image in images]))
        return RefcatFromImages(REFCAT.catalog(columns), _metadata(images, calibrated))

    def _detections(self, images: Sequence[TrustedImage], centre: tuple[float, float]) -> _Detections:
        """Detect on each image and group what is one star."""
        parts = [self._on_image(image, centre) for image in images]
        labels = group_positions([part[:, :2] for part in parts], radius=self.config.match_radius_arcsec)
        rows = np.concatenate(parts)
        index = np.repeat(np.arange(len(parts)), [part.shape[0] for part in parts])
        return _Detections(index, np.concatenate(labels), rows[:, :2], rows[:, 2], rows[:, 3], rows[:, 4])

    def _on_image(self, image: TrustedImage, centre: tuple[float, float]) -> Floats:
        """Return ``[n, 5]``: place in the plane, its error (arcsec), magnitude and its error."""
        sources = self.detect(image.pixels)
        flux = np.asarray(sources["flux"], dtype=np.float64)
        flux_err = np.asarray(sources["flux_err"], dtype=np.float64) if "flux_err" in sources else 0.02 * flux
        good = (flux > self.config.min_snr * flux_err) & np.isfinite(sources["x"]) & np.isfinite(sources["y"])
        if "flags" in sources:
            good &= (sources["flags"] & self.config.bad_flags) == 0
        sources, flux, flux_err = sources.select(good), flux[good], flux_err[good]
        ra, dec = image.wcs.pixel_to_sky(x=sources["x"], y=sources["y"])
        plane = 3600.0 * np.stack(tangent_project(ra, dec, ra0=centre[0], dec0=centre[1]), axis=1)
        pixel_error = np.hypot(sources["x_err"], sources["y_err"]) / np.sqrt(2.0) if "x_err" in sources else 0.1
        place_error = pixel_error * image.wcs.pixel_scale_arcsec + np.zeros(flux.size)
        zero_point = image.zero_point
        if zero_point is None:
            zero_point = _ARBITRARY_ZERO_POINT + 2.5 * np.log10(image.exposure_s)
        magnitude, error = zero_point - 2.5 * np.log10(flux), 1.0857 * flux_err / flux
        rows = np.column_stack([plane, place_error, magnitude, error])
        return rows[np.argsort(magnitude, kind="stable")]

    def _confirmed(
        self, found: _Detections, images: Sequence[TrustedImage], centre: tuple[float, float]
    ) -> NDArray[np.intp]:
        """Return the stars seen on enough of the images that cover them (not the passing asteroid)."""
        plane = _mean_plane(found)
        ra, dec = tangent_deproject(*(plane.T / 3600.0), ra0=centre[0], dec0=centre[1])
        covered = np.zeros(ra.size)
        for image in images:
            ny, nx = image.pixels.shape
            x, y = image.wcs.sky_to_pixel(ra=ra, dec=dec)
            covered += (x > -0.5) & (x < nx - 0.5) & (y > -0.5) & (y < ny - 0.5)
        seen = np.bincount(found.star, minlength=ra.size)
        needed = np.maximum(np.ceil(self.config.min_fraction * covered), np.minimum(covered, 2))
        return np.flatnonzero(seen >= needed)

    def _columns(
        self, found: _Detections, images: Sequence[TrustedImage], kept: NDArray[np.intp]
    ) -> tuple[dict[str, Any], dict[str, bool]]:
        """Return the columns beside the positions, and which bands are on a calibrated scale."""
        columns: dict[str, Any] = {c.name: np.zeros(kept.size) for c in REFCAT.columns}
        columns |= {c.name: np.full(kept.size, np.nan) for c in REFCAT.columns if c.name.startswith(("mag_", "star_"))}
        columns["ra_err"] = columns["dec_err"] = _position_error_mas(found, self.config)[kept]
        variable = np.zeros(kept.size, dtype=bool)
        calibrated = {}
        for band in sorted({image.band for image in images}):
            chosen = np.array([image.band == band for image in images])
            solved = _solve_band(found, chosen)
            known = [k for k, image in enumerate(images) if chosen[k] and image.zero_point is not None]
            calibrated[band] = bool(known)
            shift = -float(np.median(solved.offsets[known])) if known else 0.0
            columns[f"mag_{band}"] = solved.magnitudes[kept] + shift
            columns[f"mag_{band}_err"] = np.where(np.isfinite(solved.magnitudes), solved.errors, np.nan)[kept]
            variable |= np.nan_to_num(solved.reduced_chi2[kept]) > self.config.variable_chi2
        return columns | {"is_variable": variable}, calibrated


def _centre(image: TrustedImage) -> tuple[float, float]:
    ny, nx = image.pixels.shape
    ra, dec = image.wcs.pixel_to_sky(x=(nx - 1) / 2.0, y=(ny - 1) / 2.0)
    return float(ra), float(dec)


def _mean_plane(found: _Detections) -> Floats:
    """Return ``[n_stars, 2]`` weighted mean places."""
    weight = 1.0 / np.maximum(found.position_error, 1e-3) ** 2
    total = np.bincount(found.star, weights=weight)
    return np.stack([np.bincount(found.star, weights=weight * found.plane[:, k]) / total for k in (0, 1)], axis=1)


def _position_error_mas(found: _Detections, config: RefcatConfig) -> Floats:
    """Return the error per axis of the mean places: the given errors or the scatter, whichever is larger."""
    count = np.bincount(found.star)
    formal = 1.0 / np.sqrt(np.bincount(found.star, weights=1.0 / np.maximum(found.position_error, 1e-3) ** 2))
    residual = found.plane - _mean_plane(found)[found.star]
    squares = np.bincount(found.star, weights=(residual**2).sum(axis=1)) / 2.0
    scatter = np.sqrt(squares / np.maximum(count - 1, 1) / count)
    return np.hypot(1000.0 * np.maximum(formal, np.where(count > 2, scatter, 0.0)), config.position_error_mas)


def _solve_band(found: _Detections, chosen: NDArray[np.bool_]) -> Overlaps:
    rows = chosen[found.image]
    return solve_overlaps(
        found.image[rows], found.star[rows], found.magnitude[rows], np.maximum(found.error[rows], 0.02),
        n_images=chosen.size, n_stars=int(found.star.max()) + 1,
    )  # fmt: skip


def _metadata(images: Sequence[TrustedImage], calibrated: dict[str, bool]) -> dict[str, Any]:
    arbitrary = [band for band, is_known in calibrated.items() if not is_known]
    note = f"ARBITRARY in {', '.join(arbitrary)}: 25 mag is one electron per second on the first image"
    return {
        "origin": "images",
        "images": [image.name for image in images],
        "is_calibrated": not arbitrary,
        "magnitudes": note if arbitrary else "on the scale of the images' zero points",
    }
