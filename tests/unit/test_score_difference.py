"""The score of a difference image that was made elsewhere has unit scatter, and fluxes have their errors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from gueststar.algorithms.psf.profile import moffat_stamp
from gueststar.core.bits import MaskPlane
from gueststar.core.errors import DataError
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.wcs import Wcs
from gueststar.pipelines.difference.detect import DetectCandidates, DetectionContext
from gueststar.pipelines.difference.score import ScoreDifference

SIDE, SIGMA, FWHM = 400, 10.0, 2.5
CONTEXT = DetectionContext(86_000_000_000, 0, 0, 60000.1, 60000.1002, 1, 1)


def difference(*, smoothing: float = 0.0, seed: int = 1, sources: tuple[tuple[float, float, float], ...] = ()):
    """Return noise that neighbouring pixels share, with sources (x, y, electrons); its variance ignores the sharing."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0.0, SIGMA, (SIDE, SIDE))
    if smoothing:
        noise = gaussian_filter(noise, smoothing)
        noise *= SIGMA / noise.std()
    psf = Psf(moffat_stamp(FWHM)[None], 0, (SIDE, SIDE))
    half = psf.coefficients.shape[1] // 2
    for x, y, flux in sources:
        stamp = psf.stamp(x=x, y=y, dx=x - round(x), dy=y - round(y))
        noise[round(y) - half : round(y) + half + 1, round(x) - half : round(x) + half + 1] += flux * stamp
    pixels = MaskedImage(
        noise.astype(np.float32), np.full((SIDE, SIDE), SIGMA**2, np.float32), np.zeros((SIDE, SIDE), np.int32)
    )
    wcs = Wcs.tangent(ra=10.0, dec=0.0, x=200.0, y=200.0, scale_arcsec=1.0)
    return CalibratedImage(pixels, wcs, psf, PhotoCal(27.0, 0.01))


@pytest.mark.parametrize("smoothing", [0.0, 0.7, 1.2])
def test_the_score_of_blank_sky_has_unit_scatter_however_the_noise_is_shared(smoothing: float) -> None:
    result = ScoreDifference().run(difference(smoothing=smoothing))
    assert result.score.std() == pytest.approx(1.0, abs=0.03)
    assert (result.metrics["score_noise"] > 1.15) == (smoothing > 0)


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
def test_new_and_lost_sources_are_found_where_they_are_with_their_flux_within_their_errors(smoothing: float) -> None:
    rng = np.random.default_rng(4)
    grid = [(30.0 + 34 * (k % 10), 30.0 + 34 * (k // 10)) for k in range(100)]
    truth = tuple(
        (x + rng.uniform(-0.5, 0.5), y + rng.uniform(-0.5, 0.5), 2500.0 if k % 3 else -2500.0)
        for k, (x, y) in enumerate(grid)
    )
    image = difference(smoothing=smoothing, sources=truth)
    result = ScoreDifference().run(image)
    blank = CalibratedImage(
        MaskedImage(np.zeros_like(image.pixels.image), image.pixels.variance, image.pixels.mask),
        image.wcs, image.psf, image.photocal,
    )  # fmt: skip
    found = DetectCandidates().run(result, result.difference, blank, context=CONTEXT).catalog
    x, y, flux = np.array(truth).T
    distance = np.hypot(found["x"][:, None] - x, found["y"][:, None] - y)
    nearest, row = distance.min(axis=0), distance.argmin(axis=0)
    assert (nearest < 0.5).all()
    scale = image.photocal.njy_per_unit
    pulls = (found["psf_flux"][row] / scale - flux) / (found["psf_flux_err"][row] / scale)
    assert np.std(pulls) == pytest.approx(1.0, abs=0.25)
    assert abs(np.mean(pulls)) < 0.35
    assert (found["is_positive"][row] == (flux > 0)).all()
    assert found.n_rows <= len(truth) + 3


def test_a_difference_without_usable_pixels_is_an_error_in_words() -> None:
    image = difference()
    lost = MaskedImage(
        image.pixels.image, image.pixels.variance, np.full((SIDE, SIDE), int(MaskPlane.NO_DATA), np.int32)
    )
    with pytest.raises(DataError, match="usable"):
        ScoreDifference().run(CalibratedImage(lost, image.wcs, image.psf, image.photocal))
