"""The reference image: selected epochs on one grid, combined."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.warp.coadd import Coadd, CoaddConfig, EpochStack, Matching, combine_epochs
from gueststar.algorithms.warp.lanczos import WarpedPixels, warp_pixels
from gueststar.algorithms.warp.position_map import PositionMap, build_position_map
from gueststar.core.bits import FOUND, UNUSABLE, MaskPlane
from gueststar.core.errors import DataError
from gueststar.core.ids import content_id
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.wcs import Wcs
from gueststar.pipelines.difference._registration import (
    RegistrationConfig,
    measure_registration,
    sky_transform,
)
from gueststar.pipelines.difference._warped_psf import (
    WarpedNodes,
    matching_to_median,
    mean_of_nodes,
    warped_nodes,
)

MeasurePsfOf = Callable[[MaskedImage, float], Psf]
"""Measures the PSF of (pixels, expected FWHM in pixels); raises DataError when stars are too few."""

_HALO_ROWS = 24
"""Rows that bands overlap, so that outliers are found alike on both sides of a seam."""
_BYTES_PER_PIXEL = 16
"""Memory of one epoch's pixel while a band is combined."""


@dataclass(frozen=True)
class MakeReferenceConfig:
    """How a reference image is made of its epochs."""

    taps: int = 3
    """Order of the Lanczos kernel."""
    coadd: CoaddConfig = field(default_factory=CoaddConfig)
    """How outliers are found."""
    registration: RegistrationConfig = field(default_factory=RegistrationConfig)
    """How each epoch is compared with the first."""
    max_shift: float = 0.5
    """Epochs whose stars are off those of the first by more than this (median, pixels) are rejected."""
    max_flux_change: float = 0.1
    """Epochs whose fluxes differ from those of the first by more than this fraction (with zero points) are rejected."""
    min_coverage_fraction: float = 0.5
    """Pixels with fewer epochs than this fraction of the most are SUSPECT: their PSF is that of a few epochs."""
    max_memory_bytes: int = 2_000_000_000
    """Memory for the pixels of a band of rows; more bands are made, and the epochs loaded again, to keep it."""


class Epoch(NamedTuple):
    """One input of a reference."""

    name: str
    """As in `EpochQuality`; recorded."""
    mjd_tai: float
    load: Callable[[], CalibratedImage]
    """Returns the calibrated image; called once for each band of rows."""


class _Input(NamedTuple):
    """What is kept of an epoch between bands."""

    epoch: Epoch
    position_map: PositionMap
    psf: Psf
    scale: float
    weight: float
    fwhm: float
    """On the sky, arcsec."""


class MakeReference:
    """Combine epochs into a reference image."""

    def __init__(self, config: MakeReferenceConfig = MakeReferenceConfig()) -> None:
        self.config = config

    def run(
        self,
        epochs: Sequence[Epoch],
        *,
        grid: tuple[Wcs, tuple[int, int]],
        measure_psf: MeasurePsfOf | None = None,
    ) -> CalibratedImage:
        """Return the reference on ``grid`` (WCS, shape), with coverage; the best epoch comes first in ``epochs``.

        Its flux unit is the electron of the epochs' median zero point. The PSF is measured by ``measure_psf`` on the
        result, or, without it or when it cannot, is the weighted mean of the epochs' own. Epochs that do not
        agree with the first in place or flux are left out with a reason in the metadata. To extend a reference is to
        call this with more epochs. Raises DataError when no epoch is left.
        """
        wcs, shape = grid
        inputs, rejected, photocal = self._admit(epochs, wcs, shape)
        out = CoaddPlanes.empty(shape, len(inputs))
        psfs = warped_nodes([i.psf for i in inputs], [i.position_map for i in inputs], taps=self.config.taps)
        widest = max(item.fwhm for item in inputs) / wcs.pixel_scale_arcsec
        matching = matching_to_median(psfs, shape, fwhm=widest)
        for rows in self._bands(shape, len(inputs)):
            out.put(rows, self._band(inputs, rows, shape, matching))
        self._mark_low_coverage_in_place(out)
        pixels = MaskedImage(out.image, out.variance, out.mask)
        psf, psf_source = self._psf(pixels, inputs, psfs, measure_psf)
        metadata = self._metadata(inputs, rejected, out, photocal, grid)
        metadata |= {"psf_source": psf_source}
        return CalibratedImage(pixels, wcs, psf, photocal, metadata, out.coverage)

    def _admit(
        self, epochs: Sequence[Epoch], wcs: Wcs, shape: tuple[int, int]
    ) -> tuple[list[_Input], list[dict[str, str]], PhotoCal]:
        """Load every epoch once; return those that can be used, the others with reasons, and the flux scale."""
        admitted: list[_Input] = []
        rejected: list[dict[str, str]] = []
        calibrations: list[PhotoCal] = []
        first: CalibratedImage | None = None
        for epoch in epochs:
            image = epoch.load()
            position_map = build_position_map(sky_transform(wcs, image.wcs), shape)
            reason = self._objection(first, image, position_map)
            if reason:
                rejected.append({"epoch": epoch.name, "reason": reason})
                continue
            first = first or image
            noise = float(np.median(image.pixels.variance[image.pixels.is_usable()][::16]))
            fwhm = image.psf.central_fwhm * image.wcs.pixel_scale_arcsec
            calibrations.append(image.photocal)
            admitted.append(_Input(epoch, position_map, image.psf, 1.0, 1.0 / noise, fwhm))
        if not admitted:
            raise DataError(f"none of {len(epochs)} epochs can be used: {[r['reason'] for r in rejected]}")
        photocal = _common_photocal(calibrations)
        scales = [10.0 ** (0.4 * (photocal.zero_point - c.zero_point)) for c in calibrations]
        inputs = [item._replace(scale=s, weight=item.weight / s**2) for item, s in zip(admitted, scales, strict=True)]
        return inputs, rejected, photocal

    def _objection(self, first: CalibratedImage | None, image: CalibratedImage, position_map: PositionMap) -> str:
        """Return why an epoch cannot be combined with the first; empty if it can."""
        if np.mean(image.pixels.is_usable()) < 0.1:
            return "less than a tenth of its pixels are usable"
        ny, nx = image.shape
        with np.errstate(invalid="ignore"):
            inside = (position_map.x > 0) & (position_map.y > 0) & (position_map.x < nx) & (position_map.y < ny)
        if not inside.any():
            return "does not overlap the grid"
        if first is None:
            return ""
        between = build_position_map(sky_transform(first.wcs, image.wcs), first.shape)
        found = measure_registration(first, image, between, self.config.registration)
        if found.n_stars and found.median_shift > self.config.max_shift:
            return f"stars are off those of the first epoch by {found.median_shift:.2f} pixels"
        if found.n_stars and abs(found.flux_ratio - 1.0) > self.config.max_flux_change:
            return f"stars differ from the first epoch by a factor {found.flux_ratio:.3f} beyond the zero points"
        return ""

    def _bands(self, shape: tuple[int, int], n: int) -> Iterator[tuple[int, int]]:
        rows = max(32, self.config.max_memory_bytes // (_BYTES_PER_PIXEL * n * shape[1]) - 2 * _HALO_ROWS)
        n_bands = -(-shape[0] // rows)
        edges = np.linspace(0, shape[0], n_bands + 1).astype(int)
        return ((int(a), int(b)) for a, b in pairwise(edges))

    def _band(self, inputs: list[_Input], rows: tuple[int, int], shape: tuple[int, int], matching: Matching) -> Coadd:
        """Warp a band of rows of every epoch, with some rows more, and combine it."""
        wide = max(rows[0] - _HALO_ROWS, 0), min(rows[1] + _HALO_ROWS, shape[0])
        n, size = len(inputs), (wide[1] - wide[0], shape[1])
        planes = np.empty((n, *size), np.float32), np.empty((n, *size), np.float32), np.empty((n, *size), np.int32)
        pixel_noise = np.empty(n)
        for k, item in enumerate(inputs):
            warped = self._warp(item, wide)
            planes[0][k], planes[1][k], planes[2][k] = warped.image, warped.variance, warped.mask
            pixel_noise[k] = 1.0 / warped.correlated_noise_factor
        stack = EpochStack(
            *planes,
            np.array([item.weight for item in inputs]),
            pixel_noise,
            np.array([item.fwhm for item in inputs]),
            matching._replace(first_row=wide[0]),
        )
        return combine_epochs(stack, self.config.coadd, rows=slice(rows[0] - wide[0], rows[1] - wide[0]))

    def _warp(self, item: _Input, rows: tuple[int, int]) -> WarpedPixels:
        pixels = item.epoch.load().pixels
        return warp_pixels(
            pixels.image, pixels.variance, pixels.mask & ~np.int32(int(FOUND)), item.position_map,
            taps=self.config.taps, rows=rows, flux_scale=item.scale,
        )  # fmt: skip

    def _mark_low_coverage_in_place(self, out: CoaddPlanes) -> None:
        few = out.coverage < self.config.min_coverage_fraction * out.coverage.max(initial=0)
        out.mask[few] |= np.int32(int(MaskPlane.SUSPECT))

    def _psf(
        self, pixels: MaskedImage, inputs: list[_Input], psfs: list[WarpedNodes], measure_psf: MeasurePsfOf | None
    ) -> tuple[Psf, str]:
        """Return the PSF and where it comes from."""
        weights = np.array([item.weight for item in inputs])
        mean = mean_of_nodes(psfs, weights, pixels.shape)
        if measure_psf is None:
            return mean, "mean of the epochs"
        try:
            return measure_psf(pixels, mean.central_fwhm), "measured"
        except DataError as error:
            return mean, f"mean of the epochs ({error})"

    def _metadata(
        self,
        inputs: list[_Input],
        rejected: list[dict[str, str]],
        out: CoaddPlanes,
        photocal: PhotoCal,
        grid: tuple[Wcs, tuple[int, int]],
    ) -> dict[str, Any]:
        mjds = [item.epoch.mjd_tai for item in inputs]
        usable = (out.mask & int(UNUSABLE)) == 0
        names = [item.epoch.name for item in inputs]
        return {
            "epochs": names,
            "epochs_rejected": rejected,
            "n_epochs": len(inputs),
            "first_mjd_tai": min(mjds),
            "last_mjd_tai": max(mjds),
            "zero_point": photocal.zero_point,
            "weights": [item.weight for item in inputs],
            "clipped_pixels": [int(n) for n in out.n_clipped],
            "median_coverage": float(np.median(out.coverage)),
            "usable_fraction": float(usable.mean()),
            "version": content_id(
                sorted(names), asdict(self.config), grid[1], sorted(grid[0].to_header().items()), photocal.zero_point
            ),
        }


@dataclass(frozen=True, eq=False)
class CoaddPlanes:
    """The planes of a co-add as they fill up, band by band."""

    image: NDArray[np.float32]
    variance: NDArray[np.float32]
    mask: NDArray[np.int32]
    coverage: NDArray[np.int16]
    n_clipped: NDArray[np.int64]

    @classmethod
    def empty(cls, shape: tuple[int, int], n_epochs: int) -> CoaddPlanes:
        """Return planes of zeros."""
        return cls(
            np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.int32),
            np.zeros(shape, np.int16), np.zeros(n_epochs, np.int64),
        )  # fmt: skip

    def put(self, rows: tuple[int, int], band: Coadd) -> None:
        """Write a band of rows."""
        part = slice(*rows)
        self.image[part], self.variance[part], self.mask[part] = band.image, band.variance, band.mask
        self.coverage[part] = band.coverage
        self.n_clipped[:] += band.n_clipped


def _common_photocal(calibrations: list[PhotoCal]) -> PhotoCal:
    """Return the calibration of the combined image: the median zero point, the mean colour term."""
    first = calibrations[0]
    return PhotoCal(
        zero_point=float(np.median([c.zero_point for c in calibrations])),
        zero_point_err=float(np.mean([c.zero_point_err for c in calibrations]) / np.sqrt(len(calibrations))),
        zero_point_rms=float(np.median([c.zero_point_rms for c in calibrations])),
        colour_term=float(np.mean([c.colour_term for c in calibrations])),
        colour_term_err=float(np.mean([c.colour_term_err for c in calibrations]) / np.sqrt(len(calibrations))),
        colour_name=first.colour_name,
        band=first.band,
        n_calibrators=int(np.median([c.n_calibrators for c in calibrations])),
        median_colour=float(np.median([c.median_colour for c in calibrations])),
        rms_colour=float(np.median([c.rms_colour for c in calibrations])),
    )
