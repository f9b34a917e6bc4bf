"""The difference image and its score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.subtraction.fine_psf import cell_centres
from gueststar.algorithms.subtraction.match import PolynomialField, fit_polynomial_field, match_background
from gueststar.algorithms.subtraction.normalise import ScoreNoise, measure_score_noise, noise_factor
from gueststar.algorithms.subtraction.prepare import fill_pair, fill_variance, grow
from gueststar.algorithms.subtraction.residuals import fit_mismatch, measure_star_residuals
from gueststar.algorithms.subtraction.stars import StarFits, fit_stars
from gueststar.algorithms.subtraction.tiles import MismatchNoise, TransferAt, subtract_in_tiles
from gueststar.algorithms.subtraction.transfer import Transfer, proper_transfer
from gueststar.algorithms.warp.psf import fit_psf_polynomial
from gueststar.core.bits import UNUSABLE, MaskPlane
from gueststar.core.errors import DataError
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.psf import Psf
from gueststar.pipelines.difference._stars import NOT_FOR_STARS, fine_psf_of, isolated_stars_of

Floats = NDArray[np.float64]
Float32Image = NDArray[np.float32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class DifferenceConfig:
    """How difference images are made."""

    method: Literal["auto", "proper", "kernel"] = "auto"
    """proper: ZOGY; kernel: a fitted convolution kernel; auto: whichever leaves less of static stars."""
    tile_size: int = 512
    """Side of the parts of the image within which the filters are constant, pixels."""
    tile_margin: int = 32
    """Pixels that each tile sees beyond its own, at least the filters' reach."""
    star_snr: float = 30.0
    """Signal to noise per peak pixel of the stars by which the images are compared."""
    max_stars: int = 500
    """Such stars at most."""
    max_test_stars: int = 120
    """Stars on which the methods are compared and mismatch is measured."""
    flux_ratio_order: int = 2
    """Polynomial order of the residual flux ratio over the image."""
    background_box: int = 256
    """Box of the residual background, pixels; 0: none is subtracted."""
    score_box: int = 384
    """Box in which the score's scatter is measured and brought to one, pixels."""
    mask_growth: int = 2
    """Pixels by which unusable pixels are grown for the score, in which they are 0."""
    min_usable: float = 0.02
    """Fraction of pixels that must be usable in both images."""


class DifferenceResult(NamedTuple):
    """What `MakeDifference` makes."""

    difference: CalibratedImage
    """Science minus reference, science electrons; its variance is such that a PSF fit has the right error."""
    score: Float32Image
    """Matched-filter significance of a point source at each pixel: unit variance, 0 where unusable."""
    inflation: Float32Image
    """Noise of the score over its photon noise: above 1 where the images' mismatch dominates (bright stars)."""
    metrics: dict[str, Any]
    """JSON-able figures; see docs."""


class _Pair(NamedTuple):
    """Science and reference, free of masked pixels, on one flux scale and background."""

    science: Float32Image
    reference: Float32Image
    science_variance: Float32Image
    reference_variance: Float32Image


class MakeDifference:
    """Subtract a warped reference from a science image."""

    def __init__(self, config: DifferenceConfig = DifferenceConfig()) -> None:
        self.config = config

    def run(self, science: CalibratedImage, reference_warped: CalibratedImage) -> DifferenceResult:
        """Return difference, score and metrics; both images are on the science grid and flux scale.

        Raises DataError when too few pixels are usable in both.
        """
        if science.shape != reference_warped.shape:
            raise DataError(f"reference is {reference_warped.shape} but science image is {science.shape}")
        bad_science, bad_reference = _unusable(science.pixels), _unusable(reference_warped.pixels)
        bad = bad_science | bad_reference
        if np.mean(~bad) < self.config.min_usable:
            raise DataError(f"only {np.mean(~bad):.1%} of the pixels are usable in science image and reference")
        fits = self._fit_stars(science, reference_warped)
        ratio, metrics = self._flux_ratio(fits, science.shape)
        pair, background = self._prepare(science, reference_warped, bad_science, bad_reference, ratio)
        filters = _proper_filters(pair, science.psf, reference_warped.psf, bad, self.config)
        mismatch, star_metrics = self._mismatch(pair, filters, fits, science.psf.central_fwhm)
        made = subtract_in_tiles(
            *pair, transfer_at=filters, noise_at=lambda x, y: mismatch,
            tile_size=self.config.tile_size, margin=self.config.tile_margin,
        )  # fmt: skip
        excluded = grow(bad, self.config.mask_growth)
        noise = measure_score_noise(made.score, ~excluded, box=self.config.score_box)
        factor = noise_factor(noise, science.shape)
        score = np.where(excluded, np.float32(0), made.score / factor)
        pixels = MaskedImage(
            made.difference, made.variance * factor**2, _mask_of(science.pixels, reference_warped.pixels)
        )
        psf = _difference_psf(filters, science.psf)
        metrics |= star_metrics | {"method": "proper", "background_rms": float(background.std())}
        metrics |= _noise_metrics(noise, mismatch, pixels, psf, science, ~excluded)
        difference = CalibratedImage(
            pixels, science.wcs, psf, science.photocal, science.metadata | {"difference": metrics}
        )
        return DifferenceResult(difference, score, made.inflation, metrics)

    def _fit_stars(self, science: CalibratedImage, reference: CalibratedImage) -> tuple[StarFits, StarFits]:
        """Return PSF fits of the same isolated stars on both images (rows where both succeeded)."""
        x, y = isolated_stars_of(science, snr=self.config.star_snr, max_stars=self.config.max_stars)
        fits = []
        for image in (science, reference):
            radius = max(4, round(1.5 * image.psf.central_fwhm))
            fits.append(
                fit_stars(
                    image.pixels.image,
                    image.pixels.variance,
                    image.pixels.is_usable(NOT_FOR_STARS),
                    fine_psf_of(image.psf),
                    x=x,
                    y=y,
                    radius=radius,
                )  # fmt: skip
            )
        good = np.isfinite(fits[0].x) & np.isfinite(fits[1].x) & (fits[0].flux > 0) & (fits[1].flux > 0)
        return StarFits(*(a[good] for a in fits[0])), StarFits(*(a[good] for a in fits[1]))

    def _flux_ratio(
        self, fits: tuple[StarFits, StarFits], shape: tuple[int, int]
    ) -> tuple[PolynomialField, dict[str, Any]]:
        """Return the field of science flux over reference flux minus one."""
        ours, theirs = fits
        ratio = ours.flux / theirs.flux - 1.0
        error = np.hypot(ours.flux_err / ours.flux, theirs.flux_err / theirs.flux)
        field = fit_polynomial_field(ours.x, ours.y, ratio, error, shape, order=self.config.flux_ratio_order)
        known = field.n > 0
        metrics = {
            "n_stars": field.n,
            "residual_flux_ratio": float(1.0 + field.coefficients[0]),
            "residual_flux_ratio_rms": field.rms if known else None,
            "residual_shift_x": float(np.median(ours.x - theirs.x)) if known else None,
            "residual_shift_y": float(np.median(ours.y - theirs.y)) if known else None,
        }
        return field, metrics

    def _prepare(
        self,
        science: CalibratedImage,
        reference: CalibratedImage,
        bad_science: Bools,
        bad_reference: Bools,
        ratio: PolynomialField,
    ) -> tuple[_Pair, Float32Image]:
        """Return the images without masked pixels, on one flux scale and background."""
        factor = _field_image(ratio, science.shape) + np.float32(1)
        n = science.pixels.image
        r = reference.pixels.image * factor
        bad = bad_science | bad_reference
        background = np.zeros_like(n)
        if self.config.background_box:
            background = match_background(n - r, ~bad, box=self.config.background_box)
        n, r = fill_pair(n - background, r, bad_science, bad_reference)
        return _Pair(
            n, r, fill_variance(science.pixels.variance, bad_science),
            fill_variance(reference.pixels.variance * factor**2, bad_reference),
        ), background  # fmt: skip

    def _mismatch(
        self, pair: _Pair, filters: TransferAt, fits: tuple[StarFits, StarFits], fwhm: float
    ) -> tuple[MismatchNoise, dict[str, Any]]:
        x, y = fits[0].x[: self.config.max_test_stars], fits[0].y[: self.config.max_test_stars]
        residuals = measure_star_residuals(*pair, transfer_at=filters, x=x, y=y, half=max(3, round(1.5 * fwhm)))
        return fit_mismatch(residuals), {"star_chi2": residuals.chi2, "star_residual": residuals.relative}


def _unusable(pixels: MaskedImage) -> Bools:
    return ~pixels.is_usable(UNUSABLE) | ~np.isfinite(pixels.image) | ~(pixels.variance > 0)


def _field_image(field: PolynomialField, shape: tuple[int, int]) -> Float32Image:
    """Return a polynomial field at every pixel, by outer products of its terms."""
    ny, nx = shape
    u = 2.0 * np.arange(nx) / max(nx - 1, 1) - 1.0
    v = 2.0 * np.arange(ny) / max(ny - 1, 1) - 1.0
    out = np.zeros(shape, np.float32)
    powers = [(d - j, j) for d in range(field.order + 1) for j in range(d + 1)]
    for c, (i, j) in zip(field.coefficients, powers, strict=True):
        out += np.float32(c) * np.outer(v**j, u**i).astype(np.float32)
    return out


def _proper_filters(
    pair: _Pair, science_psf: Psf, reference_psf: Psf, bad: Bools, config: DifferenceConfig
) -> TransferAt:
    half = config.tile_size // 2

    def at(x: float, y: float, grid: tuple[int, int]) -> Transfer:
        part = np.s_[max(int(y) - half, 0) : int(y) + half : 4, max(int(x) - half, 0) : int(x) + half : 4]
        return proper_transfer(
            science_psf.stamp(x=x, y=y), reference_psf.stamp(x=x, y=y), grid,
            science_noise=float(np.median(pair.science_variance[part])),
            reference_noise=float(np.median(pair.reference_variance[part])),
        )  # fmt: skip

    return at


def _difference_psf(filters: TransferAt, science_psf: Psf, *, nodes: int = 5, grid: int = 128) -> Psf:
    """Return the PSF of the difference as a model: the filters' P_D at a grid of places, fitted by a polynomial."""
    from scipy import fft

    shape = science_psf.shape
    x, y = cell_centres(shape, (nodes, nodes))
    side = min(science_psf.coefficients.shape[1] // science_psf.oversampling | 1, grid // 2 + 1)
    half = side // 2
    index = np.arange(-half, half + 1)
    stamps = np.zeros((x.size, side, side), np.float32)
    for k in range(x.size):
        full = fft.irfft2(filters(float(x[k]), float(y[k]), (grid, grid)).psf, s=(grid, grid))
        stamps[k] = full[np.ix_(index, index)]
    stamps /= stamps.sum(axis=(1, 2), keepdims=True)
    order = min(science_psf.order, 3)
    return Psf(fit_psf_polynomial(stamps, x=x, y=y, shape=shape, order=order), order, shape)


def _mask_of(science: MaskedImage, reference: MaskedImage) -> NDArray[np.int32]:
    """Return the science image's mask, with REFERENCE_MASKED where the reference cannot be used."""
    keep = ~int(MaskPlane.DETECTED | MaskPlane.DETECTED_NEGATIVE)
    unusable = _unusable(reference)
    return np.where(unusable, science.mask | int(MaskPlane.REFERENCE_MASKED), science.mask) & keep


def _noise_metrics(
    noise: ScoreNoise, mismatch: MismatchNoise, pixels: MaskedImage, psf: Psf, science: CalibratedImage, usable: Bools
) -> dict[str, Any]:
    """Return figures of noise; the limiting magnitude is that of a 5-sigma point source on blank sky."""
    ny, nx = science.shape
    power = float(np.sum(psf.stamp(x=(nx - 1) / 2, y=(ny - 1) / 2).astype(np.float64) ** 2))
    sigma = float(np.sqrt(np.median(pixels.variance[::4, ::4][usable[::4, ::4]]) / power))
    return {
        "score_noise": noise.median,
        "score_noise_range": [noise.lowest, noise.highest],
        "mismatch_shift": [mismatch.shift_x, mismatch.shift_y],
        "mismatch_flux": mismatch.flux,
        "limiting_mag": float(science.photocal.magnitude(5.0 * sigma)),
        "psf_flux_sigma": sigma,
        "usable_fraction": float(usable.mean()),
        "difference_fwhm": psf.central_fwhm,
    }
