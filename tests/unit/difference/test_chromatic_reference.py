"""A reference that knows the colours of the sky fits exposures through air that none of its epochs had."""

import numpy as np
import pytest

from gueststar.algorithms.astrometry.refraction import air_above, refract, subband_refraction_arcsec
from gueststar.algorithms.warp.chromatic import SubbandConfig, displaced_sum, solve_subbands
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.wcs import Wcs
from gueststar.pipelines.reference.chromatic import MatchReferenceToAir, Subbands, subband_shifts
from gueststar.pipelines.reference.reference_image import Epoch, MakeReference, MakeReferenceConfig

from .conftest import draw_star, psf_model

SIZE, FWHM, SKY = 300, 2.4, 100.0
RED, BLUE = np.array([0.2, 0.33, 0.47]), np.array([0.5, 0.32, 0.18])
"""Shares of the light of a red and a blue star in three sub-bands, the bluest first."""


def stars(seed: int = 3, n: int = 40) -> list[tuple[float, float, float, np.ndarray]]:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(15, SIZE - 15, (2, n))
    return [(x[k], y[k], np.exp(rng.uniform(8, 11.5)), RED if k % 2 else BLUE) for k in range(n)]


def sky_through(shifts: np.ndarray, seed: int) -> CalibratedImage:
    """Return the stars, each sub-band displaced."""
    truth = np.zeros((SIZE, SIZE))
    for x, y, flux, shares in stars():
        for share, (dx, dy) in zip(shares, shifts, strict=True):
            draw_star(truth, x + dx, y + dy, flux * share, FWHM)
    data = np.random.default_rng(seed).poisson(truth + SKY) - SKY
    pixels = MaskedImage(data.astype(np.float32), (truth + SKY).astype(np.float32), np.zeros(data.shape))
    return CalibratedImage(pixels, grid()[0], psf_model(FWHM, (SIZE, SIZE)), PhotoCal(27.0, 0.01, band="g"))


def grid() -> tuple[Wcs, tuple[int, int]]:
    middle = (SIZE - 1) / 2
    return Wcs.tangent(ra=150.0, dec=20.0, x=middle, y=middle, scale_arcsec=1.0), (SIZE, SIZE)


def displacements(size: float, angle_deg: float) -> np.ndarray:
    """Return sub-bands spread by ``size`` pixels from the bluest to the reddest, towards an angle from +x."""
    direction = np.array([np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))])
    return np.array([0.5, 0.0, -0.5])[:, None] * size * direction


AIRS = [(0.1, 90.0), (0.5, 60.0), (0.8, 120.0), (0.9, 30.0), (0.6, 150.0), (0.3, 100.0), (0.7, 80.0), (1.0, 50.0)]


def chromatic_reference() -> tuple[CalibratedImage, Subbands]:
    epochs = []
    for k, air in enumerate(AIRS):
        image = sky_through(displacements(*air), seed=10 + k)
        epochs.append(Epoch(f"e{k}", 60000.0 + k, lambda image=image: image, displacements(*air)))
    reference, subbands = MakeReference(
        MakeReferenceConfig(is_chromatic=True, subbands=SubbandConfig(tile=200))
    ).with_subbands(epochs, grid=grid())
    assert subbands is not None
    return reference, subbands


def residual(science: CalibratedImage, reference: CalibratedImage) -> float:
    """Return the mean square of science less reference at the stars, where noise alone would leave one."""
    off = science.pixels.image - reference.pixels.image
    noise = science.pixels.variance + reference.pixels.variance
    pulls = []
    for x, y, flux, _ in stars():
        if flux > 2e4:
            box = np.s_[round(y) - 3 : round(y) + 4, round(x) - 3 : round(x) + 4]
            pulls.append((off[box] ** 2 / noise[box]).mean())
    return float(np.mean(pulls))


def test_dipoles_of_refraction_vanish_from_differences_with_a_matched_reference() -> None:
    reference, subbands = chromatic_reference()
    wanted = displacements(0.6, 20.0)  # no epoch had this
    # The science image gets the PSF of the reference, so that colours alone are left.
    science = sky_through(wanted, seed=99)
    wide = MakeReference(MakeReferenceConfig(homogenise=True)).run(
        [Epoch("s", 0.0, lambda: science), Epoch("t", 0.0, lambda: sky_through(wanted, seed=98))], grid=grid()
    )
    plain = residual(wide, reference)
    matched = residual(wide, MatchReferenceToAir(SubbandConfig(tile=200)).run(reference, subbands, wanted))
    assert plain > 4.0
    assert matched < 0.5 * plain  # the noise of both is in it


def test_blank_sky_of_a_matched_reference_is_as_noisy_as_before() -> None:
    reference, subbands = chromatic_reference()
    matched = MatchReferenceToAir().run(reference, subbands, displacements(0.9, 170.0))
    blank = np.ones((SIZE, SIZE), bool)
    for x, y, _, _ in stars():
        yy, xx = np.mgrid[:SIZE, :SIZE]
        blank &= np.hypot(xx - x, yy - y) > 18
    blank &= reference.pixels.is_usable()
    before, after = (image.pixels.image[blank].std() for image in (reference, matched))
    assert after == pytest.approx(before, rel=0.06)
    stored = Subbands.from_frame(subbands.to_frame(7))
    np.testing.assert_array_equal(stored.planes, subbands.planes)
    np.testing.assert_allclose(stored.shifts, subbands.shifts)


def test_sub_bands_add_up_and_are_equal_where_the_air_displaces_nothing() -> None:
    image = sky_through(np.zeros((3, 2)), seed=1).pixels.image
    solved = solve_subbands(np.stack([image, image]), np.zeros((2, 3, 2)), np.ones(2), SubbandConfig(tile=150))
    np.testing.assert_allclose(solved.sum(axis=0), image, atol=0.02 + 1e-4 * np.abs(image).max())
    np.testing.assert_allclose(solved[0], image / 3, atol=0.02 + 1e-4 * np.abs(image).max())
    moved = displaced_sum(solved, np.full((3, 2), 2.0), SubbandConfig(tile=150))
    np.testing.assert_allclose(moved[20:-20, 20:-20], image[18:-22, 18:-22], atol=0.1 + 2e-3 * np.abs(image).max())


def test_blue_light_is_displaced_towards_the_zenith_as_the_refraction_formula_says() -> None:
    facts = {"mjd_utc": 60000.3, "latitude_deg": 33.0, "longitude_deg": -117.0, "height_m": 1700.0}
    air = air_above(**facts, band="g", colour=("g", "r"))
    refraction = subband_refraction_arcsec(air, "g", 3)
    assert refraction[0] > refraction[1] > refraction[2]
    assert refraction[0] - refraction[2] == pytest.approx(0.5, abs=0.25)  # a g filter's thirds, at tan z = 1
    assert not subband_refraction_arcsec(air, "clear0", 3).any()
    ra, dec = air.zenith[0] + 40.0, air.zenith[1]
    wcs = Wcs.tangent(ra=ra, dec=dec, x=100.0, y=100.0, scale_arcsec=1.0)
    shifts = subband_shifts(air, wcs, x=100.0, y=100.0, band="g", n=3)
    up_ra, up_dec = refract(air, np.array([ra]), np.array([dec]))
    x, y = wcs.sky_to_pixel(ra=up_ra, dec=up_dec)
    up = np.array([x[0] - 100.0, y[0] - 100.0])
    assert shifts[0] @ up / np.linalg.norm(shifts[0]) / np.linalg.norm(up) == pytest.approx(1.0, abs=1e-3)
    assert shifts[2] @ up < 0


def test_psf_of_a_homogenised_reference_is_the_same_where_fewer_epochs_contribute(sky) -> None:
    images = [sky.image(seed=k, fwhm=2.2 + 0.2 * k, offset=(0.0, 0.0)) for k in range(5)]
    for image in images[:3]:
        image.pixels.mask[:, :150] |= 1  # the sharp epochs are missing on the left
    epochs = [Epoch(f"e{k}", 0.0, lambda image=image: image) for k, image in enumerate(images)]
    size = 360
    where = Wcs.tangent(ra=150.0, dec=20.0, x=(size - 1) / 2, y=(size - 1) / 2, scale_arcsec=1.0), (size, size)
    widths = {}
    for homogenise in (False, True):
        reference = MakeReference(MakeReferenceConfig(homogenise=homogenise)).run(epochs, grid=where)
        x, y = reference.wcs.sky_to_pixel(ra=sky.ra, dec=sky.dec)
        sharpness: dict[bool, list[float]] = {True: [], False: []}
        for k in np.flatnonzero(sky.flux > 3e4):
            x0, y0 = round(x[k]), round(y[k])
            alone = np.sort(np.hypot(x - x[k], y - y[k]))[1] > 15
            if alone and 40 < x0 < 320 and 40 < y0 < 320 and abs(x0 - 170) > 12:
                cut = reference.pixels.image[y0 - 6 : y0 + 7, x0 - 6 : x0 + 7].astype(float)
                yy, xx = np.mgrid[-6:7, -6:7]
                near = np.hypot(xx - (x[k] - x0), yy - (y[k] - y0)) < 2.0
                sharpness[x0 < 170].append(cut[near].sum() / cut.sum())
        widths[homogenise] = abs(np.median(sharpness[True]) / np.median(sharpness[False]) - 1.0)
    assert widths[True] < 0.4 * widths[False]
    assert widths[True] < 0.03


def test_kernels_of_a_psf_with_itself_change_nothing() -> None:
    from gueststar.algorithms.warp.matching import apply_kernels, matching_kernels, mismatch_of

    stamp = psf_model(2.5, (50, 50)).coefficients[0][None]
    kernels = matching_kernels(stamp, stamp, half=5)
    assert mismatch_of(kernels)[0] == pytest.approx(0.0, abs=1e-6)
    image = np.random.default_rng(0).normal(0, 1, (50, 60)).astype(np.float32)
    np.testing.assert_allclose(apply_kernels(image, kernels[None], cell=(50.0, 60.0)), image, atol=1e-5)
    wide = psf_model(3.5, (50, 50)).coefficients[0][None]
    found = matching_kernels(stamp, wide, half=6)
    padded = np.zeros((1, 71, 71), np.float32)
    padded[0, 20:51, 20:51] = stamp[0]
    made = apply_kernels(padded[0], found[None], cell=(71.0, 71.0))
    assert np.abs(made[20:51, 20:51] - wide[0]).max() < 0.02 * wide.max()
