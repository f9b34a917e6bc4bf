"""Measure the point-spread function of a science image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.detection.matched_filter import matched_score
from gueststar.algorithms.detection.noise import NoiseModel
from gueststar.algorithms.detection.peaks import Peaks, detect_peaks
from gueststar.algorithms.psf.fit import PsfFit, PsfFitConfig, fit_psf
from gueststar.algorithms.psf.profile import moffat_of
from gueststar.algorithms.psf.scene import FreshScene, fresh_scene
from gueststar.algorithms.psf.select import SelectConfig, Selection, select_stars
from gueststar.algorithms.psf.validate import ShapeDifferences, by_brightness, by_distance, compare_shapes, summary
from gueststar.core.bits import UNUSABLE
from gueststar.core.errors import DataError
from gueststar.model.catalog import Catalog
from gueststar.model.image import MaskedImage
from gueststar.model.instrumental_columns import PSF_STAR
from gueststar.model.psf import Psf


@dataclass(frozen=True)
class MeasurePsfConfig:
    """Parameters of the PSF measurement."""

    threshold: float = 5.0
    """Signal to noise of the detections among which stars are sought and whose neighbours are subtracted."""
    reserve_every: int = 5
    """Every so-manieth star is kept aside to validate the model."""
    min_stars_to_reserve: int = 15
    """With fewer stars none is kept aside."""
    select: SelectConfig = field(default_factory=SelectConfig)
    """Choice of stars."""
    fit: PsfFitConfig = field(default_factory=PsfFitConfig)
    """The model."""


@dataclass(frozen=True, eq=False)
class PsfResult:
    """A PSF with what is known of its quality."""

    psf: Psf
    metrics: dict[str, Any]
    """Plain values: fwhm, numbers of stars, residual sizes and ellipticities of reserved stars."""
    stars: Catalog
    """PSF_STAR: stars used and reserved."""


class MeasurePsf:
    """Find stars in an image and model the PSF from them."""

    def __init__(self, config: MeasurePsfConfig = MeasurePsfConfig()) -> None:
        self.config = config

    def run(self, pixels: MaskedImage, *, expected_fwhm: float, fresh: FreshScene | None = None) -> PsfResult:
        """Return the PSF of background-subtracted ``pixels``.

        ``expected_fwhm`` (pixels) need be right to a factor of two only. With few stars the model is constant,
        with fewer than three a round profile. ``fresh`` is the scene of these very pixels, if it was made before.
        Raises DataError when there is no star at all.
        """
        noise, scene = fresh or fresh_scene_of(pixels)
        peaks, selection = self._stars(pixels, noise, scene.is_masked, expected_fwhm)
        if selection.rows.size == 0:
            raise DataError(
                f"no star for the PSF: {peaks.x.size} detections above {self.config.threshold} sigma, "
                f"{selection.n_candidates} of them bright and clean, none alike in size near {expected_fwhm:.1f} pixels"
            )
        is_reserved = self._reserved(selection.rows.size)
        fit = fit_psf(
            scene, peaks, selection.rows, sigma=selection.sigma, is_reserved=is_reserved, config=self.config.fit
        )
        psf = Psf(fit.coefficients, fit.order, pixels.shape, fit.oversampling)
        shapes = compare_shapes(fit.stars, fwhm=psf.central_fwhm)
        stars = _star_catalog(fit, shapes, is_reserved)
        return PsfResult(psf, _metrics(psf, fit, selection, shapes, is_reserved), stars)

    def _stars(
        self, pixels: MaskedImage, noise: NoiseModel, is_masked: NDArray[np.bool_], expected_fwhm: float
    ) -> tuple[Peaks, Selection]:
        """Detect with a round profile of the expected width, then again with that of the stars if it differs much."""
        fwhm = expected_fwhm
        for _ in range(2):
            kernel = _round_kernel(fwhm)
            score = matched_score(pixels.image, noise.sky_variance, is_masked, kernel)
            peaks = detect_peaks(score, self.config.threshold)
            selection = select_stars(
                pixels.image, noise.sky_variance, is_masked, peaks, fwhm=fwhm, config=self.config.select
            )
            measured = 2.3548 * selection.sigma
            if selection.rows.size == 0 or abs(np.log(measured / fwhm)) < 0.25:
                break
            fwhm = measured
        return peaks, selection

    def _reserved(self, n: int) -> NDArray[np.bool_]:
        is_reserved = np.zeros(n, dtype=bool)
        if n >= self.config.min_stars_to_reserve:
            is_reserved[self.config.reserve_every // 2 :: self.config.reserve_every] = True
        return is_reserved


def fresh_scene_of(pixels: MaskedImage) -> FreshScene:
    """Return the scene in which the sources of background-subtracted ``pixels`` are to be fitted."""
    return fresh_scene(pixels.image, pixels.variance, pixels.is_masked(UNUSABLE))


def _round_kernel(fwhm: float) -> NDArray[np.float32]:
    radius = max(2, int(np.ceil(1.5 * fwhm)))
    g = np.arange(-radius, radius + 1)
    kernel = moffat_of(fwhm).at(np.hypot(g[:, None], g[None, :]))
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def _star_catalog(fit: PsfFit, shapes: ShapeDifferences, is_reserved: NDArray[np.bool_]) -> Catalog:
    return PSF_STAR.catalog(
        {
            "x": fit.stars.x,
            "y": fit.stars.y,
            "flux": fit.stars.flux,
            "chi2": fit.chi2,
            "size": shapes.size,
            "size_difference": shapes.size_difference,
            "e1_difference": shapes.e1_difference,
            "e2_difference": shapes.e2_difference,
            "is_reserved": is_reserved,
            "is_used": fit.is_used,
        }
    )


def _metrics(
    psf: Psf,
    fit: PsfFit,
    selection: Selection,
    shapes: ShapeDifferences,
    is_reserved: NDArray[np.bool_],
) -> dict[str, Any]:
    tested = is_reserved if is_reserved.any() else np.ones_like(is_reserved)
    ny, nx = psf.shape
    corners = [psf.fwhm(x=x, y=y) for x in (0.0, nx - 1.0) for y in (0.0, ny - 1.0)]
    return {
        "kind": fit.kind,
        "order": fit.order,
        "oversampling": fit.oversampling,
        "fwhm": psf.central_fwhm,
        "fwhm_corners": corners,
        "side": psf.coefficients.shape[1] // psf.oversampling,
        "model_error": fit.model_error,
        "moffat_beta": fit.moffat.beta,
        "n_candidates": selection.n_candidates,
        "n_stars": int(selection.rows.size),
        "n_used": int(fit.is_used.sum()),
        "n_reserved": int(is_reserved.sum()),
        "is_validated_on_reserved": bool(is_reserved.any()),
        "chi2_median": float(np.nanmedian(fit.chi2[tested])),
        **_shape_metrics(fit, shapes, tested, psf.shape),
    }


def _shape_metrics(
    fit: PsfFit, shapes: ShapeDifferences, tested: NDArray[np.bool_], shape: tuple[int, int]
) -> dict[str, Any]:
    """Return how far the shapes of the tested stars are from the model's: in all, by flux and by place."""
    flux = fit.stars.flux[tested]
    distance = np.hypot(fit.stars.x[tested] - 0.5 * (shape[1] - 1), fit.stars.y[tested] - 0.5 * (shape[0] - 1))
    found: dict[str, Any] = {}
    for name in ("size_difference", "e1_difference", "e2_difference"):
        values = getattr(shapes, name)[tested]
        found[name] = summary(values)
        found[f"{name}_by_flux"] = by_brightness(flux, values)
        found[f"{name}_by_distance"] = by_distance(distance, values)
    return found
