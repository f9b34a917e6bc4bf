"""An exposure that is compared with a reference that it is part of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gueststar.core.bits import MaskPlane
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.wcs import Wcs
from gueststar.pipelines.difference.own_part import own_part, take_off_shared_noise_in_place
from gueststar.pipelines.difference.reference_warp import WarpReference
from gueststar.pipelines.difference.subtract import DifferenceConfig, DifferenceResult, MakeDifference
from gueststar.pipelines.reference.reference_image import Epoch, MakeReference

from .conftest import Sky, with_bad_columns

SMALL = DifferenceConfig(tile_size=160, score_box=75, background_box=150)
GRID = Wcs.tangent(ra=150.0, dec=20.0, x=189.5, y=189.5, scale_arcsec=1.0), (380, 380)
FIRST, STRIP = 500, 40
NEW = ((150.0, 120.0), (230.0, 190.0))
"""Sources of the first epoch alone (x, y)."""


@pytest.fixture
def images(sky: Sky) -> list[CalibratedImage]:
    """Four epochs; a strip of the first, ``x < STRIP`` less what the others are off, is seen by it alone."""
    rng = np.random.default_rng(8)
    made = []
    for k in range(4):
        offset = (STRIP / 2, 0.0) if k == 0 else (-STRIP / 2 + rng.uniform(0, 3), rng.uniform(-3, 3))
        added = tuple((x, y, 2500.0) for x, y in NEW) if k == 0 else ()
        made.append(sky.image(fwhm=2.4 + 0.1 * k, offset=offset, seed=90 + k, sky=300.0 + 100 * k, added=added))
    return made


@pytest.fixture
def reference(images: list[CalibratedImage]) -> CalibratedImage:
    epochs = [Epoch(str(FIRST + k), 60000.0 + k, lambda image=image: image) for k, image in enumerate(images)]
    return MakeReference().run(epochs, grid=GRID)


def compared(science: CalibratedImage, reference: CalibratedImage, visit: int) -> DifferenceResult:
    own = own_part(reference, visit, science)
    return MakeDifference(SMALL).run(science, WarpReference().run(science, reference), own=own)


def test_the_part_is_the_weight_over_that_of_the_epochs_that_cover_a_place(sky: Sky) -> None:
    coverage = np.repeat(np.array([0, 1, 2, 3], np.int16), 80)[None].repeat(300, 0)
    image = sky.image()
    mask = np.where(np.arange(300)[:, None] < 100, np.int32(int(MaskPlane.CLIPPED)), np.int32(0)) * np.ones((1, 320))
    pixels = MaskedImage(image.pixels.image, image.pixels.variance, mask.astype(np.int32))
    metadata = {"epochs": ["7", "8", "9"], "weights": [2.0, 1.0, 3.0]}
    reference = replace(image, pixels=pixels, coverage=coverage, metadata=metadata)
    own = own_part(reference, 7, image)
    assert own is not None
    np.testing.assert_allclose(own[200, ::80], [0.0, 1.0, 2.0 / 4.0, 2.0 / 6.0], rtol=1e-6)
    assert not own[:100].any(), "what was left out may be the exposure itself"
    assert own_part(reference, 6, image) is None
    single = replace(reference, metadata={"epochs": ["7"], "weights": [2.0]})
    assert own_part(single, 7, image) is None


def test_the_part_is_none_about_pixels_that_the_exposure_did_not_see(
    images: list[CalibratedImage], reference: CalibratedImage
) -> None:
    mask = images[1].pixels.mask.copy()
    mask[:, 150], mask[60, 60] = int(MaskPlane.BAD), int(MaskPlane.COSMIC_RAY)
    pixels = replace(images[1].pixels, mask=mask)
    own = own_part(reference, FIRST + 1, replace(images[1], pixels=pixels))
    assert own is not None
    assert not own[:, 147:154].any()
    assert not own[58:63, 58:63].any()
    assert own[20:280, [145, 156]].min() > 0.1


def test_the_score_beside_bad_columns_of_an_epoch_of_the_reference_is_that_of_noise(sky: Sky) -> None:
    rng, columns = np.random.default_rng(4), np.arange(30, 310, 14)
    images = []
    for k in range(4):
        image = sky.image(fwhm=2.6 + 0.1 * k, offset=(rng.uniform(-9, 9), rng.uniform(-9, 9)), seed=70 + k, sky=400.0)
        images.append(with_bad_columns(image, columns))
    epochs = [Epoch(str(FIRST + k), 60000.0 + k, lambda image=image: image) for k, image in enumerate(images)]
    result = compared(images[0], MakeReference().run(epochs, grid=GRID), FIRST)
    beside = np.zeros(result.score.shape, bool)
    for shift in (-3, -2, -1, 0, 1, 2, 3):
        beside[:, columns + shift] = True
    quiet = (result.inflation < 1.05) & (result.score != 0.0)
    near, far = result.score[beside & quiet], result.score[~beside & quiet]
    assert min(near.size, far.size) > 10_000
    assert np.std(near) == pytest.approx(np.std(far), rel=0.08)


def test_the_noise_of_a_difference_with_a_mean_is_as_told() -> None:
    rng = np.random.default_rng(2)
    sigma, weight = np.array([2.0, 3.0, 5.0]), np.array([0.5, 0.3, 0.2])
    epochs = rng.normal(0.0, sigma[:, None], (3, 400_000))
    mean = weight @ epochs
    for k in range(3):
        planes = [np.full((1, 1), v, np.float32) for v in (sigma[k] ** 2, (weight**2 * sigma**2).sum(), weight[k])]
        take_off_shared_noise_in_place(*planes)
        assert np.var(epochs[k] - mean) == pytest.approx((planes[0] + planes[1]).item(), rel=0.02)


def test_the_score_of_an_epoch_of_the_reference_has_unit_variance_wherever_it_tells_something(
    images: list[CalibratedImage], reference: CalibratedImage
) -> None:
    result = compared(images[0], reference, FIRST)
    another = compared(images[0], reference, 1)
    assert result.metrics["score_noise"] == pytest.approx(1.0, abs=0.06)
    assert another.metrics["score_noise"] < 0.8
    assert result.metrics["score_noise_range"][0] > 0.88
    alone = result.difference.pixels.is_masked(MaskPlane.REFERENCE_MASKED)
    assert alone[:, : STRIP - 2].all()
    assert not alone[10:-10, STRIP + 2 :].any()
    assert not result.score[alone].any()
    assert 3 * np.count_nonzero(np.abs(result.score) > 5.0) < np.count_nonzero(np.abs(another.score) > 5.0)
    for x, y in NEW:
        assert result.score[round(y) - 1 : round(y) + 2, round(x) - 1 : round(x) + 2].max() > 15.0


def test_fluxes_of_such_a_difference_have_right_errors(
    images: list[CalibratedImage], reference: CalibratedImage
) -> None:
    result = compared(images[1], reference, FIRST + 1)
    pixels = result.difference.pixels
    stamp = result.difference.psf.stamp(x=150, y=150, side=13).astype(np.float64)
    sigmas = []
    for y in range(30, 270, 12):
        for x in range(60, 260, 12):
            box = np.s_[y - 6 : y + 7, x - 6 : x + 7]
            if pixels.is_usable()[box].all() and result.inflation[box].max() < 1.05:
                error = np.sqrt(np.median(pixels.variance[box]) / (stamp**2).sum())
                sigmas.append((pixels.image[box] * stamp).sum() / (stamp**2).sum() / error)
    assert len(sigmas) > 60
    assert np.std(sigmas) == pytest.approx(1.0, abs=0.2)
