"""The difference image and its score."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.subtraction.depth import shallowness, usual_noise
from gueststar.algorithms.subtraction.kernel import fit_kernel, kernel_half_side
from gueststar.algorithms.subtraction.match import PolynomialField, fit_polynomial_field
from gueststar.algorithms.subtraction.mismatch import MismatchNoise, RegionNoise
from gueststar.algorithms.subtraction.normalise import (
    ScoreNoise,
    excess_where_filled,
    measure_score_noise,
    median_sigma,
    normalise_in_place,
    take_off_excess_in_place,
)
from gueststar.algorithms.subtraction.prepare import (
    Pair,
    changed_mask,
    find_unusable,
    grow,
    has_either,
    lost_power,
    prepare_pair,
    split_unusable,
)
from gueststar.algorithms.subtraction.residuals import (
    StarResiduals,
    fit_mismatch,
    measure_star_residuals,
    registration_rms,
)
from gueststar.algorithms.subtraction.saturated import find_saturated_cores, fit_saturated, restore_cores
from gueststar.algorithms.subtraction.stars import StarFits
from gueststar.algorithms.subtraction.tiles import TransferAt, subtract_in_tiles
from gueststar.core.bits import FOUND, UNUSABLE, MaskPlane
from gueststar.core.errors import DataError
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.psf import Psf
from gueststar.pipelines.difference._filters import (
    PairNoise,
    difference_psf,
    kernel_filters,
    proper_filters,
    with_common_wings,
)
from gueststar.pipelines.difference._stars import fine_psf_of, fit_same_stars, isolated_stars_of
from gueststar.pipelines.difference.own_part import take_off_shared_noise_in_place, without_own_alone

Floats = NDArray[np.float64]
Float32Image = NDArray[np.float32]
Bools = NDArray[np.bool_]
Method = Literal["proper", "kernel"]

_MOST_STEPS = 5
"""Fits of the flux ratio at most, each to the stars that are near the one before."""


@dataclass(frozen=True)
class DifferenceConfig:
    """How difference images are made."""

    method: Literal["auto", "proper", "kernel"] = "auto"
    """proper: ZOGY; kernel: a fitted convolution kernel; auto: whichever leaves less of static stars."""
    kernel_advantage: float = 0.8
    """auto: the kernel is taken if it leaves less than this fraction of what the proper subtraction leaves."""
    good_residual: float = 0.0025
    """auto: no kernel is fitted where the proper subtraction leaves less than this of static stars: of one with a
    signal to noise of 400 no more than noise is left then."""
    kernel_order: int = 2
    """Polynomial order of the kernel over the image."""
    tile_size: int = 512
    """Side of the parts of the image within which the filters are constant, pixels."""
    tile_margin: int = 32
    """Pixels that each tile sees beyond its own, at least the filters' reach."""
    wing_radius_fwhm: float = 2.0
    """Distance from which the PSFs' wings are taken to be round and alike, FWHM."""
    star_snr: float = 30.0
    """Signal to noise per peak pixel of the stars by which the images are compared."""
    max_stars: int = 500
    """Such stars at most."""
    max_test_stars: int = 100
    """Stars on which the methods are compared and mismatch is measured."""
    max_star_change: float = 0.3
    """Stars whose flux changed by more than this fraction neither scale the reference nor fit nor test the kernel: they
    vary or are new."""
    assumed_mismatch: float = 0.01
    """Part of a star's light by which the images are taken to disagree where too few stars tell."""
    flux_ratio_order: int = 2
    """Polynomial order of the residual flux ratio over the image."""
    background_box: int = 256
    """Box of the residual background, pixels; 0: none is subtracted."""
    score_box: int = 384
    """Box in which the score's scatter is measured and brought to one, pixels."""
    mask_growth: float = 2.0
    """Pixels by which unusable pixels are grown for the score, which is 0 there."""
    max_lost_power: float = 0.8
    """Defects of the detector are sharp and not grown: the score is 0 where they take more than this part of a point
    source's squared profile."""
    edge_fwhm: float = 1.0
    """Strip along the image's edges in which the score is 0, FWHM: of a star there too little is known."""
    saturated_growth_fwhm: float = 2.0
    """FWHM by which saturated pixels (not their bleed trails) are grown for the score."""
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
    """JSON-able figures: method and both methods' star residuals, noise, limiting magnitude, flux ratio..."""


class _Choice(NamedTuple):
    """The method taken, and what it leaves of stars that the kernel was not fitted to."""

    method: Method
    filters: TransferAt
    residuals: StarResiduals
    half: int
    """Half-side of the boxes of ``residuals``, pixels."""
    metrics: dict[str, Any]


class MakeDifference:
    """Subtract a warped reference from a science image."""

    def __init__(self, config: DifferenceConfig = DifferenceConfig()) -> None:
        self.config = config

    def run(
        self, science: CalibratedImage, reference_warped: CalibratedImage, *, own: Float32Image | None = None
    ) -> DifferenceResult:
        """Return difference, score and metrics; both images are on the science grid and flux scale.

        ``own`` is the part of the reference that is the science image itself (`own_part`): the noise that both have is
        not in the difference. Raises DataError when too few pixels are usable in both.
        """
        if own is not None:
            reference_warped = without_own_alone(reference_warped, own)
        bad_science, bad_reference, bad = self._checked(science, reference_warped)
        own_psf = science.psf  # what is new on the sky has it, wings and all
        psfs = with_common_wings(science.psf, reference_warped.psf, radius_fwhm=self.config.wing_radius_fwhm)
        science, reference_warped = replace(science, psf=psfs[0]), replace(reference_warped, psf=psfs[1])
        x, y = isolated_stars_of(science, snr=self.config.star_snr, max_stars=self.config.max_stars)
        fits = fit_same_stars(science, reference_warped, x=x, y=y)
        ratio = self._flux_ratio(fits, science.shape)
        fits = self._static(fits, ratio)
        n, r, restored = self._restore(science, reference_warped, bad_science, bad_reference, ratio)
        pair, background = prepare_pair(
            n, r, science.pixels.variance, reference_warped.pixels.variance,
            bad_science=bad_science & ~restored, bad_reference=bad_reference & ~restored,
            flux_ratio=ratio, background_box=self.config.background_box,
        )  # fmt: skip
        del n, r, restored  # the pair is made of them
        if own is not None:
            take_off_shared_noise_in_place(pair.science_variance, pair.reference_variance, own)
        choice = self._choose(pair, science.psf, reference_warped.psf, fits[0])
        mismatch = self._mismatch(pair, choice, fits, science, reference_warped)
        made = subtract_in_tiles(
            *pair, transfer_at=choice.filters, noise=mismatch,
            tile_size=self.config.tile_size, margin=self.config.tile_margin,
        )  # fmt: skip
        del pair  # as large as what was made of it
        excluded, lost = self._excluded(science, reference_warped, bad)
        usable = ~excluded
        noise = measure_score_noise(made.score, usable, box=self.config.score_box, inflation=made.inflation)
        normalise_in_place(made.score, made.variance, excluded, noise)
        excess = excess_where_filled(made.score, lost, usable, inflation=made.inflation)
        take_off_excess_in_place(made.score, made.variance, lost, excess)
        pixels = MaskedImage(made.difference, made.variance, _mask_of(science.pixels, bad_reference))
        psf = difference_psf(choice.filters, own_psf)
        metrics = _star_metrics(fits, ratio) | choice.metrics | {"background_rms": float(background.std())}
        metrics |= _noise_metrics(noise, mismatch.common, pixels, psf, science, usable)
        metrics["filled_excess"] = excess
        metrics["own_part"] = 0.0 if own is None else float(np.median(own))
        metadata = science.metadata | {"difference": metrics}
        difference = CalibratedImage(pixels, science.wcs, psf, science.photocal, metadata)
        return DifferenceResult(difference, made.score, made.inflation, metrics)

    def _checked(self, science: CalibratedImage, reference: CalibratedImage) -> tuple[Bools, Bools, Bools]:
        """Return the unusable pixels of both images, and of either; DataError if the rest is too little."""
        if science.shape != reference.shape:
            raise DataError(f"reference is {reference.shape} but science image is {science.shape}")
        bad = [
            find_unusable(i.pixels.image, i.pixels.variance, i.pixels.mask, int(UNUSABLE)) for i in (science, reference)
        ]
        either = bad[0] | bad[1]
        usable = 1.0 - np.count_nonzero(either) / either.size
        if usable < self.config.min_usable:
            raise DataError(
                f"only {usable:.1%} of the pixels are usable in science image and reference,"
                f" needs {self.config.min_usable:.0%}"
            )
        return bad[0], bad[1], either

    def _restore(
        self,
        science: CalibratedImage,
        reference: CalibratedImage,
        bad_science: Bools,
        bad_reference: Bools,
        ratio: PolynomialField,
    ) -> tuple[Float32Image, Float32Image, Bools]:
        """Return both images with the cores of saturated stars restored, and where."""
        saturated = has_either(science.pixels.mask, reference.pixels.mask, np.int32(int(MaskPlane.SATURATED)))
        x, y = find_saturated_cores(saturated)
        psfs = fine_psf_of(science.psf), fine_psf_of(reference.psf)
        ours, theirs = (
            fit_saturated(image.pixels.image, image.pixels.variance, ~(bad | saturated), psf, x=x, y=y)
            for image, bad, psf in ((science, bad_science, psfs[0]), (reference, bad_reference, psfs[1]))
        )
        return restore_cores(
            science.pixels.image, reference.pixels.image, (ours, theirs), psfs, saturated=saturated, flux_ratio=ratio
        )

    def _flux_ratio(self, fits: tuple[StarFits, StarFits], shape: tuple[int, int]) -> PolynomialField:
        """Return the field of science flux over reference flux, minus one.

        The images are on one flux scale already, so that stars that differ by more than ``max_star_change`` have
        changed themselves; where none is left, the scale stays what it is. Where clouds dim one side by more than that,
        the field is followed from the stars that are near one.
        """
        ours, theirs = fits
        value = ours.flux / theirs.flux - 1.0
        error = np.hypot(ours.flux_err / ours.flux, theirs.flux_err / theirs.flux)
        near = np.abs(value) < self.config.max_star_change
        for _ in range(_MOST_STEPS):
            field = fit_polynomial_field(
                ours.x[near], ours.y[near], value[near], error[near], shape, order=self.config.flux_ratio_order
            )
            reached = np.abs(value - field(ours.x, ours.y)) < self.config.max_star_change
            if np.array_equal(reached, near):
                break
            near = reached
        return field

    def _static(self, fits: tuple[StarFits, StarFits], ratio: PolynomialField) -> tuple[StarFits, StarFits]:
        """Return the stars that did not change: what is new or varies much must not shape the kernel."""
        ours, theirs = fits
        change = ours.flux / (theirs.flux * (1.0 + ratio(ours.x, ours.y))) - 1.0
        static = np.abs(change) < self.config.max_star_change
        return ours.where(static), theirs.where(static)

    def _choose(self, pair: Pair, science_psf: Psf, reference_psf: Psf, stars: StarFits) -> _Choice:
        """Return the method that leaves less of static stars; half of the stars test what the others fitted.

        The kernel is fitted only where the proper subtraction leaves enough for it to better.
        """
        config = self.config
        brightest = np.argsort(-stars.flux, kind="stable")
        tested, fitted = brightest[::2][: config.max_test_stars], brightest[1::2][: 2 * config.max_test_stars]
        noise = PairNoise.of(pair, size=config.tile_size)
        half = max(6, round(4 * science_psf.central_fwhm))

        def left_by(filters: TransferAt, rows: NDArray[np.intp]) -> StarResiduals:
            return measure_star_residuals(*pair, transfer_at=filters, x=stars.x[rows], y=stars.y[rows], half=half)

        options: dict[Method, TransferAt] = {}
        residuals: dict[Method, StarResiduals] = {}
        if config.method != "kernel":
            options["proper"] = proper_filters(noise, science_psf, reference_psf)
            residuals["proper"] = left_by(options["proper"], tested)
        if config.method == "kernel" or (config.method == "auto" and self._is_poor(residuals["proper"])):
            kernel = self._kernel(pair, noise, science_psf, reference_psf, stars, fitted)
            if kernel is not None:
                options["kernel"], residuals["kernel"] = kernel, left_by(kernel, tested)
            elif not options:
                raise DataError(f"{stars.x.size} stars are too few to fit a kernel")
        method = self._better(residuals)
        is_sharper = science_psf.central_fwhm < reference_psf.central_fwhm
        figures: dict[str, Any] = {
            "method": method,
            "convolved": "both" if method == "proper" else "science" if is_sharper else "reference",
            "n_test_stars": int(residuals[method].score.shape[0]),
        }
        for name, found in residuals.items():
            figures |= {f"{name}_star_chi2": found.chi2, f"{name}_star_residual": found.relative}
        chosen = residuals[method]
        if method == "proper" and tested.size < config.max_test_stars // 2:
            chosen = left_by(options[method], brightest)  # nothing was fitted to any star, and every one is needed
        return _Choice(method, options[method], chosen, half, figures)

    def _is_poor(self, proper: StarResiduals) -> bool:
        """Return whether a kernel may be worth its fit."""
        return not proper.relative < self.config.good_residual

    def _better(self, residuals: dict[Method, StarResiduals]) -> Method:
        if len(residuals) == 1:
            return next(iter(residuals))
        kernel, proper = residuals["kernel"].relative, residuals["proper"].relative
        return "kernel" if kernel < self.config.kernel_advantage * proper else "proper"

    def _kernel(
        self,
        pair: Pair,
        noise: PairNoise,
        science_psf: Psf,
        reference_psf: Psf,
        stars: StarFits,
        fitted: NDArray[np.intp],
    ) -> TransferAt | None:
        """Return the filters of a kernel that convolves the sharper image; None if it cannot be fitted."""
        science_fwhm, reference_fwhm = science_psf.central_fwhm, reference_psf.central_fwhm
        convolves_science = science_fwhm < reference_fwhm
        images = (pair.science, pair.reference) if convolves_science else (pair.reference, pair.science)
        kernel = fit_kernel(
            *images, pair.science_variance + pair.reference_variance, x=stars.x[fitted], y=stars.y[fitted],
            half=kernel_half_side(science_fwhm, reference_fwhm),
            box=round(2.5 * max(science_fwhm, reference_fwhm)), order=self.config.kernel_order,
        )  # fmt: skip
        if kernel is None:
            return None
        return kernel_filters(noise, kernel, science_psf, convolves_science=convolves_science)

    def _mismatch(
        self,
        pair: Pair,
        choice: _Choice,
        fits: tuple[StarFits, StarFits],
        science: CalibratedImage,
        reference: CalibratedImage,
    ) -> RegionNoise:
        """Return the mismatch that static stars show; where the reference has few epochs, that of the stars there.

        Other epochs contribute from strip to strip, and the fewer they are, the more the reference differs from what
        its PSF model and its flux scale, which are those of all, say. So the stars there tell the residual power for
        each part that is lacking in depth, and strips of which no star tells are judged by the others.
        """
        shift_x, shift_y = registration_rms(*fits)
        fwhm = science.psf.central_fwhm
        widths = tuple(f * fwhm / 2.3548 for f in (0.0, 1.0, 2.0, 4.0))
        common = fit_mismatch(
            choice.residuals, shift_x=shift_x, shift_y=shift_y, widths=widths, assumed=self.config.assumed_mismatch
        )
        is_poor = reference.pixels.is_masked(MaskPlane.SUSPECT)
        if not is_poor.any():
            return RegionNoise(common)
        usual = usual_noise(pair.reference, pair.reference_variance, ~is_poor)
        is_poor = np.asarray(grow(is_poor, 2.0 * fwhm))
        x, y = isolated_stars_of(science, snr=self.config.star_snr, max_stars=self.config.max_stars, where=is_poor)
        residuals = measure_star_residuals(*pair, transfer_at=choice.filters, x=x, y=y, half=choice.half)
        stars = residuals.y.astype(int)[None], residuals.x.astype(int)[None]
        share = shallowness(pair.reference[stars], pair.reference_variance[stars], usual)[0]
        poor = fit_mismatch(
            residuals, shift_x=shift_x, shift_y=shift_y, widths=widths, assumed=self.config.assumed_mismatch,
            share=share.astype(np.float64),
        )  # fmt: skip
        return RegionNoise(common, poor, is_poor, usual)

    def _excluded(self, science: CalibratedImage, reference: CalibratedImage, bad: Bools) -> tuple[Bools, Float32Image]:
        """Return where the score means nothing: unusable pixels and what they spoil, and the edges.

        Returned too is which part of a point source's power defects take.
        """
        config, (ny, nx) = self.config, science.shape
        is_defect, is_other, is_saturated = split_unusable(
            science.pixels.mask, reference.pixels.mask, bad,
            int(UNUSABLE), int(MaskPlane.BAD), int(MaskPlane.SATURATED),
        )  # fmt: skip
        fwhm = max(science.psf.central_fwhm, reference.psf.central_fwhm)
        excluded = grow(is_other, config.mask_growth)
        excluded |= grow(is_saturated, config.saturated_growth_fwhm * fwhm)
        stamp = science.psf.stamp(x=(nx - 1) / 2, y=(ny - 1) / 2)
        lost = lost_power(is_defect, stamp)
        excluded |= lost > config.max_lost_power
        edge = round(config.edge_fwhm * science.psf.central_fwhm)
        excluded[:edge], excluded[ny - edge :], excluded[:, :edge], excluded[:, nx - edge :] = True, True, True, True
        return np.asarray(excluded), lost


def _mask_of(science: MaskedImage, bad_reference: Bools) -> NDArray[np.int32]:
    """Return the science image's mask, with REFERENCE_MASKED where the reference cannot be used."""
    kept, added = np.int32(~int(FOUND)), np.int32(int(MaskPlane.REFERENCE_MASKED))
    return np.asarray(changed_mask(science.mask, kept, bad_reference, added))


def _star_metrics(fits: tuple[StarFits, StarFits], ratio: PolynomialField) -> dict[str, Any]:
    shift_x, shift_y = fits[0].x - fits[1].x, fits[0].y - fits[1].y
    return {
        "n_stars": ratio.n,
        "residual_flux_ratio": float(1.0 + ratio.coefficients[0]),
        "residual_flux_ratio_rms": ratio.rms if ratio.n else None,
        "residual_shift_x": float(np.median(shift_x)) if shift_x.size else None,  # none where all have changed
        "residual_shift_y": float(np.median(shift_y)) if shift_y.size else None,
    }


def _noise_metrics(
    noise: ScoreNoise, mismatch: MismatchNoise, pixels: MaskedImage, psf: Psf, science: CalibratedImage, usable: Bools
) -> dict[str, Any]:
    """Return figures of noise; the limiting magnitude is that of a 5-sigma point source on blank sky.

    ``pixel_noise_ratio`` is the variance of single pixels over that of the variance plane (which is for PSF fits).
    """
    ny, nx = science.shape
    power = float(np.sum(psf.stamp(x=(nx - 1) / 2, y=(ny - 1) / 2).astype(np.float64) ** 2))
    part = np.s_[::4, ::4]
    values, variance = pixels.image[part][usable[part]], pixels.variance[part][usable[part]]
    sigma = float(np.sqrt(np.median(variance) / power))
    scatter = median_sigma(values)
    return {
        "score_noise": noise.median,
        "score_noise_range": [noise.lowest, noise.highest],
        "mismatch_shift": [mismatch.shift_x, mismatch.shift_y],
        "mismatch_power": list(mismatch.powers),
        "limiting_mag": float(science.photocal.magnitude(5.0 * sigma)),
        "psf_flux_sigma": sigma,
        "pixel_noise_ratio": scatter**2 / float(np.median(variance)),
        "usable_fraction": np.count_nonzero(usable) / usable.size,
        "difference_fwhm": psf.central_fwhm,
    }
