"""The reference image: selected epochs on one grid, combined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from gueststar.algorithms.warp.chromatic import SubbandConfig, solve_subbands
from gueststar.algorithms.warp.coadd import Coadd, CoaddConfig, EpochStack, Matching, combine_epochs
from gueststar.algorithms.warp.fill import fill_masked
from gueststar.algorithms.warp.lanczos import WarpedPixels, warp_pixels
from gueststar.algorithms.warp.matching import apply_kernels, autocorrelation
from gueststar.algorithms.warp.noise import REACH, noise_correlation
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
    kernels_to,
    matching_to_median,
    mean_of_nodes,
    warped_nodes,
    widest_of,
)
from gueststar.pipelines.reference.chromatic import Subbands

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
    homogenise: bool = False
    """Whether every epoch is given the PSF of the widest before it is combined: the PSF is then the same wherever
    fewer epochs contribute, at the price of its sharpness."""
    is_chromatic: bool = False
    """Whether the sky is solved in sub-bands, so that the reference can be given the refraction of each exposure; it
    takes epochs of different airmass, and homogenises them."""
    subbands: SubbandConfig = field(default_factory=SubbandConfig)
    """How."""
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
    subband_shifts: NDArray[np.float64] | None = None
    """``[b, 2]``: displacements (x, y), pixels of the reference, of its sub-bands; None: its air is not known."""


class _Input(NamedTuple):
    """What is kept of an epoch between bands."""

    epoch: Epoch
    position_map: PositionMap
    psf: Psf
    scale: float
    weight: float
    fwhm: float
    """On the sky, arcsec."""
    correlation: NDArray[np.float64]
    """Of its noise after resampling: `noise_correlation`."""
    kernels: NDArray[np.float32] | None = None
    """``[n_y, n_x, k, k]``: what gives it the common PSF; None where PSFs are left as they are."""


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
        return self.with_subbands(epochs, grid=grid, measure_psf=measure_psf)[0]

    def with_subbands(
        self,
        epochs: Sequence[Epoch],
        *,
        grid: tuple[Wcs, tuple[int, int]],
        measure_psf: MeasurePsfOf | None = None,
    ) -> tuple[CalibratedImage, Subbands | None]:
        """Return the reference as `run` does, and its sub-bands: None unless they are asked for.

        Epochs whose air is not known count as if it displaced nothing.
        """
        wcs, shape = grid
        # Pixels that are warped when an epoch is looked at need not be read again, where all fit into the memory.
        ready: dict[str, WarpedPixels] | None = {} if len(self._bands(shape, len(epochs))) == 1 else None
        inputs, rejected, photocal = self._admit(epochs, wcs, shape, ready)
        out = CoaddPlanes.empty(shape, len(inputs), self.config.subbands.n if self.config.is_chromatic else 0)
        psfs = warped_nodes([i.psf for i in inputs], [i.position_map for i in inputs], taps=self.config.taps)
        widest = max(item.fwhm for item in inputs) / wcs.pixel_scale_arcsec
        if self.config.homogenise or self.config.is_chromatic:
            inputs, psfs = _homogenised(inputs, psfs, shape, widest)
        matching = matching_to_median(psfs, shape, fwhm=widest)
        for rows in self._bands(shape, len(inputs)):
            band, subbands = self._band(inputs, rows, shape, matching, ready or {})
            out.put(rows, band, subbands)
        self._mark_low_coverage_in_place(out)
        pixels = MaskedImage(out.image, out.variance, out.mask)
        psf, psf_source = self._psf(pixels, inputs, psfs, measure_psf)
        metadata = self._metadata(inputs, rejected, out, photocal, grid)
        metadata |= {"psf_source": psf_source}
        reference = CalibratedImage(pixels, wcs, psf, photocal, metadata, out.coverage)
        if out.subbands is None:
            return reference, None
        return reference, Subbands(
            out.subbands, _shifts(inputs, len(out.subbands)), np.array([i.weight for i in inputs])
        )

    def _admit(
        self, epochs: Sequence[Epoch], wcs: Wcs, shape: tuple[int, int], ready: dict[str, WarpedPixels] | None
    ) -> tuple[list[_Input], list[dict[str, str]], PhotoCal]:
        """Load every epoch once; return those that can be used, the others with reasons, and the flux scale.

        ``ready`` is filled with warped pixels, in each epoch's own flux unit.
        """
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
            if ready is not None:
                ready[epoch.name] = self._warped(image.pixels, position_map, (0, shape[0]))
            correlation = noise_correlation(position_map, taps=self.config.taps)
            admitted.append(_Input(epoch, position_map, image.psf, 1.0, 1.0 / noise, fwhm, correlation))
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

    def _bands(self, shape: tuple[int, int], n: int) -> list[tuple[int, int]]:
        rows = max(32, self.config.max_memory_bytes // (_BYTES_PER_PIXEL * n * shape[1]) - 2 * _HALO_ROWS)
        n_bands = -(-shape[0] // rows)
        edges = np.linspace(0, shape[0], n_bands + 1).astype(int)
        return [(int(a), int(b)) for a, b in pairwise(edges)]

    def _band(
        self, inputs: list[_Input], rows: tuple[int, int], shape: tuple[int, int], matching: Matching,
        ready: dict[str, WarpedPixels],
    ) -> tuple[Coadd, NDArray[np.float32] | None]:  # fmt: skip
        """Warp a band of rows of every epoch, with some rows more, and combine it; ``ready`` is used up."""
        wide = max(rows[0] - _HALO_ROWS, 0), min(rows[1] + _HALO_ROWS, shape[0])
        n, size = len(inputs), (wide[1] - wide[0], shape[1])
        planes = np.empty((n, *size), np.float32), np.empty((n, *size), np.float32), np.empty((n, *size), np.int32)
        pixel_noise = np.empty(n)
        for k, item in enumerate(inputs):
            warped = self._warp(item, wide, ready.pop(item.epoch.name, None))
            planes[0][k], planes[1][k], planes[2][k] = warped.image, warped.variance, warped.mask
            pixel_noise[k] = item.correlation[REACH, REACH]
        stack = EpochStack(
            *planes,
            np.array([item.weight for item in inputs]),
            pixel_noise,
            np.array([item.fwhm for item in inputs]),
            matching._replace(first_row=wide[0]),
        )
        inner = slice(rows[0] - wide[0], rows[1] - wide[0])
        band = combine_epochs(stack, self.config.coadd, rows=inner)
        return band, self._subbands(inputs, stack, band, inner)

    def _subbands(
        self, inputs: list[_Input], stack: EpochStack, band: Coadd, inner: slice
    ) -> NDArray[np.float32] | None:
        """Return the sub-bands of the inner rows, what an epoch lacks being filled from the others' mean."""
        config = self.config.subbands
        if not self.config.is_chromatic:
            return None
        weights = stack.weight[:, None, None] * ~band.is_left_out
        total = weights.sum(axis=0)
        mean = (weights * stack.image).sum(axis=0) / np.where(total > 0, total, 1.0)
        filled = np.where(band.is_left_out, mean.astype(np.float32), stack.image)
        return solve_subbands(filled, _shifts(inputs, config.n), stack.weight, config)[:, inner]

    def _warp(self, item: _Input, rows: tuple[int, int], ready: WarpedPixels | None) -> WarpedPixels:
        """Return rows of an epoch on the grid and the common flux scale; from its own pixels where it is not ready."""
        warped = ready or self._warped(item.epoch.load().pixels, item.position_map, rows)
        scale = np.float32(item.scale)
        np.multiply(warped.image, scale, out=warped.image)
        np.multiply(warped.variance, scale * scale, out=warped.variance)
        return warped if item.kernels is None else _with_kernels(warped, item, rows[0])

    def _warped(self, pixels: MaskedImage, position_map: PositionMap, rows: tuple[int, int]) -> WarpedPixels:
        mask = pixels.mask & ~np.int32(int(FOUND))
        return warp_pixels(pixels.image, pixels.variance, mask, position_map, taps=self.config.taps, rows=rows)

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
            "noise_correlation": _noise_correlation(inputs).round(5).tolist(),
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
    subbands: NDArray[np.float32] | None

    @classmethod
    def empty(cls, shape: tuple[int, int], n_epochs: int, n_subbands: int = 0) -> CoaddPlanes:
        """Return planes of zeros."""
        return cls(
            np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.int32),
            np.zeros(shape, np.int16), np.zeros(n_epochs, np.int64),
            np.zeros((n_subbands, *shape), np.float32) if n_subbands else None,
        )  # fmt: skip

    def put(self, rows: tuple[int, int], band: Coadd, subbands: NDArray[np.float32] | None = None) -> None:
        """Write a band of rows."""
        part = slice(*rows)
        self.image[part], self.variance[part], self.mask[part] = band.image, band.variance, band.mask
        self.coverage[part] = band.coverage
        self.n_clipped[:] += band.n_clipped
        if self.subbands is not None and subbands is not None:
            self.subbands[:, part] = subbands


def _shifts(inputs: list[_Input], n: int) -> NDArray[np.float64]:
    """Return ``[n_epochs, n, 2]`` the displacements of the sub-bands."""
    none = np.zeros((n, 2))
    return np.array([none if item.epoch.subband_shifts is None else item.epoch.subband_shifts for item in inputs])


def _homogenised(
    inputs: list[_Input], psfs: list[WarpedNodes], shape: tuple[int, int], fwhm: float
) -> tuple[list[_Input], list[WarpedNodes]]:
    """Return the inputs with kernels that give them one PSF, and that PSF for each; ``fwhm`` (pixels) of the widest."""
    target = widest_of(psfs, shape, np.array([item.fwhm for item in inputs]))
    kernels = kernels_to(psfs, target, fwhm=fwhm)
    widest = max(item.fwhm for item in inputs)
    from scipy.signal import convolve2d  # on first use: it brings scipy.stats, which takes a second

    changed = []
    for item, own in zip(inputs, kernels, strict=True):
        smear = autocorrelation(own.mean(axis=(0, 1)).astype(np.float64), 2 * REACH)
        correlation = convolve2d(smear, item.correlation, mode="same")[REACH:-REACH, REACH:-REACH]
        changed.append(item._replace(kernels=own, fwhm=widest, correlation=correlation))
    return changed, [WarpedNodes(item.covered, target.stamps[item.covered], 0) for item in psfs]


def _with_kernels(warped: WarpedPixels, item: _Input, first_row: int) -> WarpedPixels:
    """Return a warped epoch with the common PSF; what is unusable spoils the two pixels next to it as well.

    The variance is the power of sums, which a kernel of unit sum keeps.
    """
    assert item.kernels is not None
    ny, nx = item.position_map.shape
    cell = (ny / item.kernels.shape[0], nx / item.kernels.shape[1])
    is_bad = (warped.mask & int(UNUSABLE)) != 0
    is_bright = (warped.mask & int(MaskPlane.SATURATED | MaskPlane.BLEED)) != 0
    image = apply_kernels(fill_masked(warped.image, is_bad & ~is_bright), item.kernels, cell=cell, first_row=first_row)
    mask = warped.mask | np.where(binary_dilation(is_bright, iterations=2), np.int32(int(MaskPlane.SATURATED)), 0)
    mask = mask | np.where(binary_dilation(is_bad & ~is_bright, iterations=2), np.int32(int(MaskPlane.BAD)), 0)
    is_outside = (warped.mask & int(MaskPlane.NO_DATA)) != 0
    mask[is_outside], image[is_outside] = int(MaskPlane.NO_DATA), 0.0
    return warped._replace(image=image, mask=mask.astype(np.int32))


def _noise_correlation(inputs: list[_Input]) -> NDArray[np.float64]:
    """Return the noise correlation of the co-add: that of the epochs by their parts in its variance."""
    parts = np.array([item.weight for item in inputs])  # weight squared times variance, both of the background
    return np.asarray(np.tensordot(parts / parts.sum(), np.array([item.correlation for item in inputs]), axes=1))


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
