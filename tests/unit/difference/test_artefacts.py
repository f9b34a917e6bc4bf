"""What does not belong to the static sky is found with its wings; what does is spared."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from gueststar.algorithms.warp.artefacts import ArtefactConfig, find_artefacts, spare_persistent_in_place
from gueststar.pipelines.reference.reference_image import Epoch, MakeReference, MakeReferenceConfig

from .test_reference import grid_of

SIZE = 400
WHOLE = np.ones((SIZE, SIZE), bool)


def noise(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (SIZE, SIZE)).astype(np.float32)


def found_in(z: np.ndarray, **config: object) -> np.ndarray:
    return find_artefacts(z.astype(np.float32), WHOLE, WHOLE, ArtefactConfig(**config), correlation=1.0)


@pytest.mark.parametrize("seed", range(4))
def test_noise_alone_is_no_artefact(seed: int) -> None:
    assert found_in(noise(seed)).sum() < 60


def test_a_trail_of_half_a_sigma_a_pixel_is_found_from_edge_to_edge() -> None:
    yy, xx = np.mgrid[:SIZE, :SIZE]
    across = (0.5 * xx - yy + 100.0) / np.hypot(0.5, 1.0)
    found = found_in(noise() + 0.5 * np.exp(-0.5 * (across / 1.5) ** 2))
    on, far = np.abs(across) < 2.0, np.abs(across) > 30.0
    assert found[on].mean() > 0.9
    assert found[far].mean() < 1e-3


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_patch_of_wrong_sky_is_left_out_whole(sign: float) -> None:
    yy, xx = np.mgrid[:SIZE, :SIZE]
    patch = np.hypot(xx - 200.0, yy - 170.0) < 55.0
    found = found_in(noise() + sign * 0.6 * gaussian_filter(patch.astype(float), 4.0))
    assert found[np.hypot(xx - 200.0, yy - 170.0) < 40.0].mean() > 0.95
    assert found[np.hypot(xx - 200.0, yy - 170.0) > 130.0].mean() < 1e-3


def test_an_artefact_is_found_with_its_wings() -> None:
    yy, xx = np.mgrid[:SIZE, :SIZE]
    radius = np.hypot(xx - 100.0, yy - 100.0)
    light = 400.0 / (1.0 + (radius / 2.0) ** 2) ** 2
    found = found_in(noise() + light)
    assert found[light > 1.5].mean() > 0.95
    assert found[radius > 40.0].mean() < 1e-3


def test_what_many_epochs_show_is_spared_and_no_pixel_is_left_without_an_epoch() -> None:
    usable = np.ones((6, 40, 40), bool)
    found = np.zeros_like(usable)
    found[:4, 10:16, 10:16] = True  # a variable star: four of six
    found[2, 25:30, 25:30] = True  # an artefact of one
    found[1, 12:14, 16] = True  # a rim of the variable that few epochs show
    usable[1:, 35, 35] = False
    found[0, 35, 35] = True
    spare_persistent_in_place(found, usable, max_epochs=0.4, persistent=0.5)
    assert not found[:, 8:18, 8:18].any()
    assert found[2, 25:30, 25:30].all()
    assert not found[0, 35, 35]


def test_stars_of_every_brightness_keep_their_light_when_the_seeing_changes(sky) -> None:
    """Seeing that changes by more than half, and no PSF in any epoch that others have."""
    epochs = []
    for k, fwhm in enumerate((2.0, 2.2, 2.5, 2.7, 2.9, 3.1, 3.3)):
        image = sky.image(seed=k, fwhm=fwhm, offset=(0.7 * k, -1.3 * k))
        epochs.append(Epoch(f"e{k}", 0.0, lambda image=image: image))
    made = MakeReference().run(epochs, grid=grid_of())
    n_pixels = made.pixels.image.size
    assert sum(made.metadata["clipped_pixels"]) < 5e-4 * n_pixels * len(epochs)


def test_faint_trails_do_not_reach_the_reference(sky) -> None:
    """The trail of a satellite at one sigma of an epoch's pixel, in one epoch of six."""
    yy, xx = np.mgrid[:300, :320]
    across = (0.6 * xx - yy + 60.0) / np.hypot(0.6, 1.0)
    light = (20.0 * np.exp(-0.5 * (across / 1.2) ** 2)).astype(np.float32)
    references = {}
    for with_trail in (False, True):
        epochs = []
        for k in range(6):
            image = sky.image(seed=k, fwhm=2.4 + 0.1 * k)
            if with_trail and k == 2:
                image.pixels.image[:] += light
            epochs.append(Epoch(f"e{k}", 0.0, lambda image=image: image))
        references[with_trail] = MakeReference(MakeReferenceConfig()).run(epochs, grid=grid_of())
    added = references[True].pixels.image - references[False].pixels.image
    shifted = np.zeros(added.shape, np.float32)
    shifted[30:330, 20:340] = light
    whole = references[False].coverage == 6
    on = (shifted > 8.0) & whole
    assert abs(added[on].mean()) < 0.25 * shifted[on].mean() / 6
