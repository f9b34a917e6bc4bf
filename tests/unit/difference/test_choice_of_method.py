"""Which image is convolved, what becomes of backgrounds, and what is done with few stars or none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.pipelines.difference.reference_warp import WarpReference
from gueststar.pipelines.difference.subtract import DifferenceConfig, DifferenceResult, MakeDifference

SMALL = DifferenceConfig(tile_size=160, score_box=150, background_box=100)
REFERENCE = {"shape": (380, 400), "sky": 60.0, "zero_point": 29.5, "offset": (3.2, -2.7), "seed": 77}
PLACE = (150.3, 120.4)
FLUX = 6e3


def subtract(science: CalibratedImage, reference: CalibratedImage, **changes) -> DifferenceResult:
    return MakeDifference(replace(SMALL, **changes)).run(science, WarpReference().run(science, reference))


def flux_at(result: DifferenceResult, x: float, y: float) -> tuple[float, float]:
    """Return flux and error of a point source at a known place."""
    x0, y0 = round(x), round(y)
    stamp = result.difference.psf.stamp(x=x, y=y, dx=x - x0, dy=y - y0, side=15)
    box = np.s_[y0 - 7 : y0 + 8, x0 - 7 : x0 + 8]
    weight = stamp / result.difference.pixels.variance[box]
    power = float((weight * stamp).sum())
    return float((weight * result.difference.pixels.image[box]).sum()) / power, power**-0.5


def n_high(result: DifferenceResult) -> int:
    """Return how many places beside the new source exceed 5 sigma."""
    x, y = (round(v) for v in PLACE)
    score = result.score.copy()
    score[y - 8 : y + 9, x - 8 : x + 9] = 0
    return int(ndimage.label(np.abs(score) > 5, structure=np.ones((3, 3)))[1])


@pytest.mark.parametrize(("fwhm", "reference_fwhm", "convolved"), [(2.0, 3.2, "science"), (3.2, 2.0, "reference")])
def test_the_kernel_convolves_the_sharper_image_and_says_which(fwhm, reference_fwhm, convolved, sky) -> None:
    science = sky.image(fwhm=fwhm, seed=5, added=((*PLACE, FLUX),))
    result = subtract(science, sky.image(**REFERENCE, fwhm=reference_fwhm), method="kernel")
    assert result.metrics["method"] == "kernel"
    assert result.metrics["convolved"] == convolved
    flux, error = flux_at(result, *PLACE)
    assert abs(flux - FLUX) < 4 * error
    assert n_high(result) <= 1


@pytest.mark.parametrize("method", ["proper", "kernel"])
def test_a_background_that_changed_leaves_neither_detections_nor_flux(method: str, sky) -> None:
    science = sky.image(seed=5, added=((*PLACE, FLUX),))
    yy, xx = np.mgrid[: science.shape[0], : science.shape[1]]
    glow = 60.0 * xx / science.shape[1] - 40.0 * yy / science.shape[0] + 30.0
    pixels = science.pixels
    brighter = MaskedImage((pixels.image + glow).astype(np.float32), pixels.variance, pixels.mask)
    result = subtract(replace(science, pixels=brighter), sky.image(**REFERENCE, fwhm=2.4), method=method)
    assert result.metrics["background_rms"] > 5.0
    flux, error = flux_at(result, *PLACE)
    assert abs(flux - FLUX) < 5 * error
    assert n_high(result) <= 1


@pytest.mark.parametrize("n_stars", [0, 1, 3])
def test_with_few_stars_or_none_the_psf_models_alone_make_the_difference(n_stars: int, sky) -> None:
    bright = np.argsort(-sky.flux)[:n_stars]
    few = replace(sky, ra=sky.ra[bright], dec=sky.dec[bright], flux=sky.flux[bright])
    result = subtract(few.image(seed=5, added=((*PLACE, FLUX),)), few.image(**REFERENCE, fwhm=2.1))
    assert result.metrics["method"] == "proper"
    assert result.metrics["convolved"] == "both"
    assert result.metrics["n_test_stars"] <= 4
    flux, error = flux_at(result, *PLACE)
    assert abs(flux - FLUX) < 4 * error
    assert 0.95 < result.metrics["score_noise"] < 1.05
    assert n_high(result) <= 1


def test_no_kernel_is_fitted_where_the_proper_subtraction_leaves_next_to_nothing(sky) -> None:
    science, reference = sky.image(seed=5), sky.image(**REFERENCE, fwhm=2.4)
    tried = subtract(science, reference, good_residual=0.0).metrics
    left = tried["proper_star_residual"]
    assert tried["kernel_star_residual"] > 0.0
    assert "kernel_star_residual" not in subtract(science, reference, good_residual=1.1 * left).metrics
    assert "kernel_star_residual" in subtract(science, reference, good_residual=0.9 * left).metrics


def test_a_wrong_psf_model_makes_the_kernel_the_choice(sky) -> None:
    science, reference = sky.image(seed=5), sky.image(**REFERENCE, fwhm=2.4)
    wrong = sky.image(fwhm=3.0, seed=5).psf
    result = subtract(replace(science, psf=wrong), reference)
    assert result.metrics["kernel_star_residual"] < result.metrics["proper_star_residual"]
    assert result.metrics["method"] == "kernel"
