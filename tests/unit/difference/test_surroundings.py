"""What tells point sources from residuals and cosmic rays."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from gueststar.algorithms.subtraction.surroundings import (
    Constant,
    Excess,
    constant_light,
    measure_excess,
    measure_surrounding_rms,
    noise_factor,
)
from gueststar.model.psf import Psf
from gueststar.pipelines.difference._stars import fine_psf_of

SIDE = 200


def white_score(seed: int = 1) -> np.ndarray:
    """Return a score of pure noise: correlated as by a PSF of two pixels, unit variance."""
    score = gaussian_filter(np.random.default_rng(seed).normal(size=(SIDE, SIDE)), 1.2)
    return (score / score.std()).astype(np.float32)


def rms_at(score: np.ndarray, *, x: int = 100, y: int = 100) -> float:
    found = measure_surrounding_rms(score, x=np.array([x]), y=np.array([y]), inner=5.0, outer=12.0)
    return float(found[0])


def test_white_noise_is_left_as_it_is() -> None:
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(20, 190, 28), np.arange(20, 190, 28)))
    score = white_score()
    score[y, x] = 7.0
    rms = measure_surrounding_rms(score, x=x, y=y, inner=5.0, outer=12.0)
    assert np.median(rms) == pytest.approx(1.0, abs=0.1)
    assert np.mean(noise_factor(rms) > 1.05) < 0.15


def test_a_peak_on_an_edge_is_judged_by_the_edge_and_a_lone_one_of_any_brightness_is_not() -> None:
    for height in (6.0, 50.0, 500.0):
        lone = white_score()
        lone += height * np.exp(-0.5 * np.hypot(*(np.mgrid[:SIDE, :SIDE] - 100)) ** 2 / 1.5**2).astype(np.float32)
        assert float(noise_factor(np.array([rms_at(lone)]))[0]) < 1.1
    edge = white_score()
    edge[99:102, :] += 7.0
    assert rms_at(edge) > 1.8
    assert 7.0 / float(noise_factor(np.array([rms_at(edge)]))[0]) < 5.0


def test_where_nothing_is_usable_nothing_is_known_and_nothing_changed() -> None:
    score = np.zeros((SIDE, SIDE), np.float32)
    score[100, 100] = 6.0
    assert np.isnan(rms_at(score))
    assert noise_factor(np.array([np.nan])) == pytest.approx(1.0)
    assert np.isfinite(rms_at(white_score(), x=0, y=SIDE - 1))


def round_psf(fwhm: float) -> Psf:
    """Return a round Gaussian, integrated over pixels."""
    yy, xx = np.mgrid[-10:11, -10:11]
    fine = sum(
        np.exp(-4 * np.log(2) * ((xx - a) ** 2 + (yy - b) ** 2) / fwhm**2)
        for a in np.linspace(-0.4, 0.4, 5)
        for b in np.linspace(-0.4, 0.4, 5)
    )
    return Psf((fine / fine.sum())[None].astype(np.float32), 0, (SIDE, SIDE))


@pytest.mark.parametrize("fwhm", [1.5, 2.0, 4.0])
def test_a_star_has_no_excess_at_any_place_in_a_pixel_and_a_cosmic_ray_has_all(fwhm: float) -> None:
    rng = np.random.default_rng(3)
    psf = round_psf(fwhm)
    image = rng.normal(0, 1, (SIDE, SIDE)).astype(np.float32)
    places = np.arange(20, 180, 20)
    x, y = (axis.ravel() + rng.uniform(-0.5, 0.5, places.size**2) for axis in np.meshgrid(places, places))
    for stamp, a, b in zip(psf.placed_stamps(x=x, y=y), np.rint(x).astype(int), np.rint(y).astype(int), strict=True):
        image[b - 10 : b + 11, a - 10 : a + 11] += 15.0 / np.sqrt((stamp**2).sum()) * stamp
    rays = np.stack([x, y]).round().astype(int) + 10
    image[rays[1], rays[0]] += 25.0
    tracks = rays + np.array([[-20], [0]])
    image[tracks[1], tracks[0]] += 18.0
    image[tracks[1] + 1, tracks[0] + 1] += 18.0
    variance, usable = np.ones_like(image), np.ones(image.shape, bool)

    def excess(x: np.ndarray, y: np.ndarray) -> Excess:
        return measure_excess(image, variance, usable, fine_psf_of(psf), x=x, y=y, sign=np.ones(x.size))

    of_stars, of_rays = excess(x, y), excess(rays[0].astype(float), rays[1].astype(float))
    of_tracks = excess(tracks[0] + 0.5, tracks[1] + 0.5)
    assert np.median(of_stars.pixel) == pytest.approx(0.0, abs=0.35)
    assert np.median(of_rays.pixel) == pytest.approx(1.0, abs=0.15)
    assert np.quantile(of_stars.pixel_sigma, 0.95) < 3.0 < 5.0 < np.quantile(of_rays.pixel_sigma, 0.05)
    assert np.median(of_tracks.pair) == pytest.approx(1.0, abs=0.15)
    assert np.quantile(of_stars.pair_sigma, 0.95) < 3.5 < 5.0 < np.quantile(of_tracks.pair_sigma, 0.05)


@pytest.mark.parametrize("fwhm", [1.8, 2.6])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_star_that_varies_is_no_ray_in_whatever_seeing_the_reference_was_and_a_ray_on_it_is(
    fwhm: float, sign: float
) -> None:
    places = np.arange(20, 180, 20)
    rng = np.random.default_rng(4)
    x, y = (axis.ravel() + rng.uniform(-0.5, 0.5, places.size**2) for axis in np.meshgrid(places, places))
    now, before = round_psf(fwhm), round_psf(2.2)
    image = rng.normal(0, 1, (SIDE, SIDE)).astype(np.float32)
    change, constant = (brightness / np.sqrt((now.stamp(x=0, y=0) ** 2).sum()) for brightness in (15.0, 150.0))
    stamps = now.placed_stamps(x=x, y=y), before.placed_stamps(x=x, y=y)
    corners = np.rint(x).astype(int) - 10, np.rint(y).astype(int) - 10
    for stamp, old, a, b in zip(*stamps, *corners, strict=True):
        image[b : b + 21, a : a + 21] += (constant + sign * change) * stamp - constant * old

    def excess(flux: float | None) -> Excess:
        places = x[:, None], y[:, None]
        shone = None if flux is None else Constant(*places, np.full((x.size, 1), flux), fine_psf_of(before))
        usable = np.ones(image.shape, bool)
        return measure_excess(
            image, np.ones_like(image), usable, fine_psf_of(now), x=x, y=y, sign=np.full(x.size, sign), constant=shone
        )

    known, unknown = excess(constant), excess(None)
    assert np.median(known.pixel) == pytest.approx(0.0, abs=0.15)
    assert np.quantile(known.pixel_sigma, 0.95) < 3.0
    assert np.quantile(known.pair_sigma, 0.95) < 3.5
    assert np.median(known.flux) == pytest.approx(change, rel=0.1)
    assert np.mean(np.abs(unknown.pixel) < 0.2) < 0.2
    image[np.rint(y).astype(int), np.rint(x).astype(int)] += 25.0 * sign
    assert np.quantile(excess(constant).pixel_sigma, 0.05) > 5.0


@pytest.mark.parametrize("gap", [0.0, 1.5, 2.5])
def test_light_of_the_reference_is_found_at_a_place_and_beside_it(gap: float) -> None:
    psf = round_psf(2.2)
    places = np.arange(20, 180, 20)
    rng = np.random.default_rng(5)
    x, y = (axis.ravel() + rng.uniform(-0.5, 0.5, places.size**2) for axis in np.meshgrid(places, places))
    image = rng.normal(0, 1, (SIDE, SIDE)).astype(np.float32)
    corners = np.rint(x).astype(int) - 10, np.rint(y).astype(int) - 10
    for stamp, beside, a, b in zip(
        psf.placed_stamps(x=x, y=y), shifted(psf.placed_stamps(x=x, y=y), gap), *corners, strict=True
    ):
        image[b : b + 21, a : a + 21] += 300.0 * stamp * (gap > 0) + 3000.0 * beside
    found = constant_light(
        image, np.ones_like(image), np.ones(image.shape, bool), fine_psf_of(psf), x=x, y=y, reach=1.5 * 2.2
    )
    assert np.median(found.x[:, 1] - x) == pytest.approx(gap, abs=0.2)
    assert np.median(found.y[:, 1] - y) == pytest.approx(0.0, abs=0.2)
    assert np.median(found.flux[:, 1]) == pytest.approx(3000.0, rel=0.12)
    assert np.median(found.flux[:, 0]) == pytest.approx(300.0 * (gap > 0), abs=200.0)


def shifted(stamps: np.ndarray, gap: float) -> np.ndarray:
    """Return stamps moved along x."""
    return np.stack([shift(stamp, (0, gap), order=5) for stamp in stamps])
