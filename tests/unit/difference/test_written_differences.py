"""What is forced on a difference that was written and read is what it was in memory, errors and all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from gueststar.core.bits import SourceFlag
from gueststar.formats.calibrated_image import MOST_STEPS, VARIANCE_STEP, read_calibrated_image, write_calibrated_image
from gueststar.pipelines.difference.forced import ImageFacts, MeasureOnDifference
from gueststar.pipelines.difference.reference_warp import WarpReference
from gueststar.pipelines.difference.subtract import DifferenceConfig, MakeDifference

FACTS = ImageFacts(1, 0, 60000.0, 2, 1)
CONFIG = DifferenceConfig(tile_size=160, score_box=150, background_box=150)
MOST_OF_ERROR, MOST_OF_FLUX = 0.005, 0.15
"""By what part of itself an error may change, and by what part of its error a flux."""


def test_forced_fluxes_and_errors_of_a_written_difference_are_those_of_the_unwritten_one(sky, tmp_path: Path) -> None:
    science = sky.image(fwhm=2.2, seed=4)
    reference = sky.image(shape=(380, 400), sky=60.0, fwhm=2.4, zero_point=29.5, offset=(3.2, -2.7), seed=77)
    made = MakeDifference(CONFIG).run(science, WarpReference().run(science, reference)).difference
    variance = made.pixels.variance.copy()
    x, y = made.wcs.sky_to_pixel(ra=sky.ra, dec=sky.dec)
    is_on = (np.minimum(x, y) > 10) & (x < made.shape[1] - 11) & (y < made.shape[0] - 11)
    cores = np.rint(np.stack([y, x])[:, is_on]).astype(int)[:, ::4]
    variance[cores[0], cores[1]] = 10.0 * MOST_STEPS * VARIANCE_STEP * np.median(variance)  # as on the brightest stars
    difference = replace(made, pixels=replace(made.pixels, variance=variance))
    write_calibrated_image(tmp_path / "difference.fits", difference)
    back = read_calibrated_image(tmp_path / "difference.fits")
    assert np.isinf(back.pixels.variance[cores[0], cores[1]]).all()
    rng = np.random.default_rng(1)
    everywhere = rng.uniform(0.5, np.array(made.shape)[:, None] - 1.5, (2, 3000))
    ra, dec = made.wcs.pixel_to_sky(x=np.append(x, everywhere[1]), y=np.append(y, everywhere[0]))
    places = {"object_ids": np.arange(ra.size), "ra": ra, "dec": dec}
    before, after = (MeasureOnDifference().run(image, FACTS, **places) for image in (difference, back))
    is_known = np.isfinite(before["psf_flux_err"])
    assert is_known.sum() > 2500
    assert np.array_equal(is_known, np.isfinite(after["psf_flux_err"]))
    assert np.array_equal(np.isfinite(before["psf_flux"]), np.isfinite(after["psf_flux"]))
    to_core = np.hypot(before["x"][:, None] - cores[1], before["y"][:, None] - cores[0]).min(axis=1)
    assert np.array_equal(before["flags"][to_core > 10], after["flags"][to_core > 10])
    assert ((after["flags"][to_core < 1.5] & int(SourceFlag.BAD_PIXEL)) != 0).all()
    error = before["psf_flux_err"][is_known]
    ratio = after["psf_flux_err"][is_known] / error
    assert abs(np.median(ratio) - 1.0) < 2e-4
    assert np.abs(ratio - 1.0).max() < MOST_OF_ERROR
    assert np.abs((after["psf_flux"] - before["psf_flux"])[is_known] / error).max() < MOST_OF_FLUX
