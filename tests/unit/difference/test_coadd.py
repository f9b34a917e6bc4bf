import numpy as np
import pytest

from gueststar.algorithms.warp.coadd import EpochStack, combine_epochs
from gueststar.core.bits import MaskPlane


def gaussian(shape, x, y, flux, sigma):
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    return flux / (2 * np.pi * sigma**2) * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * sigma**2))


def epochs(n, *, shape=(120, 130), fwhm=None, extra=None, sky=100.0, seed=0):
    """Return a stack of a field with stars of 2e3 to 2e6 electrons; ``extra`` maps an epoch to an image to add."""
    rng = np.random.default_rng(seed)
    fwhm = np.full(n, 3.0) if fwhm is None else np.asarray(fwhm)
    stars = [(30.2, 40.7, 2e6), (90.5, 80.1, 1e5), (60.0, 20.3, 2e3), (100.0, 30.0, 3e4)]
    image = np.empty((n, *shape), np.float32)
    variance = np.empty_like(image)
    for k in range(n):
        truth = sum(gaussian(shape, *star, fwhm[k] / 2.3548) for star in stars)
        if extra and k in extra:
            truth = truth + extra[k]
        image[k] = rng.poisson(truth + sky) - sky
        variance[k] = truth + sky
    mask = np.zeros(image.shape, np.int32)
    return EpochStack(image, variance, mask, np.full(n, 1.0 / sky), np.ones(n), fwhm)


def test_noise_of_the_mean_is_what_its_variance_says() -> None:
    made = combine_epochs(epochs(9))
    blank = np.s_[90:118, 5:60]
    assert made.image[blank].var() == pytest.approx(made.variance[blank].mean(), rel=0.1)
    assert made.variance[blank].mean() == pytest.approx(100 / 9, rel=0.02)
    assert (made.coverage == 9).mean() > 0.999
    assert made.image[blank].mean() == pytest.approx(0, abs=0.3)


def test_satellites_cosmic_rays_and_movers_are_left_out_and_marked() -> None:
    yy, xx = np.mgrid[:120, :130]
    trail = 300.0 * np.exp(-((yy - 0.7 * xx - 10) ** 2) / 8.0)
    ray = np.zeros((120, 130))
    ray[100, 20:23] = 5000.0
    extra = {2: trail, 4: ray} | {k: gaussian((120, 130), 20 + 12 * k, 110, 6e3, 1.3) for k in (5, 6, 7)}
    made, clean = combine_epochs(epochs(8, extra=extra)), combine_epochs(epochs(8))
    residual = made.image - clean.image
    stars = ((30, 40), (90, 80), (60, 20), (100, 30))  # a trail across a bright star is hidden by its structure
    away = np.min([np.hypot(xx - x, yy - y) for x, y in stars], axis=0) > 12
    assert np.abs(residual[away]).max() < 6 * np.sqrt(100 / 8)
    marked = (made.mask & int(MaskPlane.CLIPPED)) != 0
    assert marked[100, 21]
    assert marked[110, 80]
    assert marked[38, 40]
    assert made.coverage[100, 21] == 7
    assert made.n_clipped[2] > 200


def test_stars_keep_their_flux_when_the_seeing_changes() -> None:
    fwhm = [2.2, 2.6, 3.0, 3.3, 2.4, 2.9, 3.6, 2.3]
    stack = epochs(8, fwhm=fwhm)
    made = combine_epochs(stack)
    mean = stack.image.mean(axis=0)
    for x, y, flux in ((30, 41, 2e6), (90, 80, 1e5), (100, 30, 3e4)):
        box = np.s_[y - 8 : y + 9, x - 8 : x + 9]
        assert made.image[box].sum() == pytest.approx(flux, rel=0.004)
        assert np.abs(made.image[box] - mean[box]).max() < 0.02 * mean[box].max()
    assert made.n_clipped.sum() < 60


def test_a_variable_star_is_not_mistaken_for_an_artefact() -> None:
    flare = gaussian((120, 130), 70.0, 95.0, 2e4, 1.3)
    stack = epochs(8, extra=dict.fromkeys((0, 2, 4, 6), flare))
    made = combine_epochs(stack)
    np.testing.assert_allclose(made.image[95, 70], stack.image[:, 95, 70].mean(), rtol=0.05)


def test_of_two_epochs_the_lower_is_believed() -> None:
    ray = np.zeros((120, 130))
    ray[60, 60] = 9000.0
    made = combine_epochs(epochs(2, extra={1: ray}))
    assert abs(made.image[60, 60]) < 60
    assert made.coverage[60, 60] == 1


def test_masks_decide_what_enters() -> None:
    stack = epochs(4)
    stack.mask[:, 10, 10] = int(MaskPlane.NO_DATA)
    stack.mask[:, 20, 20] = int(MaskPlane.SATURATED)
    stack.mask[0, 30, 100] = int(MaskPlane.SATURATED)
    stack.mask[1, 50, 50] = int(MaskPlane.COSMIC_RAY)
    stack.image[1, 50, 50] = 1e9
    made = combine_epochs(stack)
    assert made.mask[10, 10] == int(MaskPlane.NO_DATA)
    assert made.variance[10, 10] == 0
    assert made.mask[20, 20] & int(MaskPlane.SATURATED)
    assert made.mask[30, 100] & int(MaskPlane.SATURATED)
    assert made.mask[50, 50] == 0
    assert made.coverage[50, 50] == 3
    assert abs(made.image[50, 50]) < 50


def test_one_epoch_is_returned_as_it_is() -> None:
    stack = epochs(1)
    made = combine_epochs(stack)
    np.testing.assert_allclose(made.image, stack.image[0], rtol=1e-6)
    np.testing.assert_allclose(made.variance, stack.variance[0], rtol=1e-6)
