"""Diffraction spikes: told from cosmic rays by their direction and by the stars they belong to."""

import numpy as np

from gueststar.algorithms.detrend.cosmic_rays import remove_cosmic_rays_in_place
from gueststar.algorithms.detrend.spikes import find_spikes

SHAPE = (420, 440)
SKY, NOISE, WELL = 400.0, 22.0, 60_000.0
ANGLES = (28.0, 118.0, 208.0, 298.0)


def star_with_spikes(x, y, *, flux, angles=ANGLES):
    """A Gaussian core, a halo and spikes one pixel wide whose light falls with the square of the distance."""
    v, u = np.mgrid[: SHAPE[0], : SHAPE[1]]
    dx, dy = u - x, v - y
    r = np.hypot(dx, dy)
    light = np.exp(-0.5 * (r / 1.2) ** 2) / 9.0 + 1.5e-3 / (4.0 + r) ** 2
    for angle in np.radians(angles):
        along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        light += np.where(along > 0, 0.02 / (6.0 + np.abs(along)) ** 2 * np.exp(-0.5 * (across / 0.6) ** 2), 0.0)
    return flux * light


def exposure(seed, stars):
    rng = np.random.default_rng(seed)
    light = SKY + sum(star_with_spikes(x, y, flux=flux) for x, y, flux in stars)
    image = light + np.sqrt(np.maximum(light, 0.0) / SKY) * rng.normal(0.0, NOISE, SHAPE)
    return image.astype(np.float32)


def prepared(image):
    saturated = image > WELL
    level, rms = np.full(SHAPE, SKY, np.float32), np.full(SHAPE, NOISE, np.float32)
    y, x = np.nonzero(saturated)
    return level, rms, saturated, {"saturated_y": y, "saturated_x": x}


STARS = ((120.3, 150.2, 3e7), (300.4, 80.7, 2e7), (260.0, 300.0, 4e7))


def test_spikes_of_saturated_stars_are_found_in_their_directions():
    level, rms, saturated, places = prepared(image := exposure(1, STARS))
    spikes = find_spikes(image, level, rms, saturated, **places)
    assert len(spikes.angles_deg) == 4
    np.testing.assert_allclose(np.sort(spikes.angles_deg), ANGLES, atol=1.0)
    assert spikes.n_stars >= 3


def test_spikes_are_no_cosmic_rays_and_rays_beside_them_are():
    image = exposure(2, STARS)
    ray = (np.arange(340, 360), np.arange(60, 80))
    image[ray] += 900.0
    level, rms, saturated, places = prepared(image)
    spikes = find_spikes(image, level, rms, saturated, **places)
    before = image.copy()
    found = remove_cosmic_rays_in_place(
        image, level, rms, saturated, neighbour_ratio=0.6, spikes=(spikes.y, spikes.x)
    )  # fmt: skip
    marked = np.zeros(SHAPE, bool)
    marked[found.y, found.x] = True
    assert marked[ray].mean() > 0.95
    marked[330:370, 50:90] = False
    assert marked.sum() <= 6
    np.testing.assert_array_equal(image[spikes.y, spikes.x], before[spikes.y, spikes.x])
    blind = remove_cosmic_rays_in_place(before.copy(), level, rms, saturated, neighbour_ratio=0.6)
    assert blind.y.size > found.y.size + 50  # what the test is about


def test_spike_of_a_star_beyond_the_border_is_followed_inwards():
    angle = np.radians(ANGLES[0])
    outside = (-30.0, 150.0, 2e8)
    level, rms, saturated, places = prepared(image := exposure(3, (*STARS, outside)))
    spikes = find_spikes(image, level, rms, saturated, **places)
    x = np.arange(0, 25)
    y = np.rint(outside[1] + (x - outside[0]) * np.tan(angle)).astype(int)
    on = np.zeros(SHAPE, bool)
    on[spikes.y, spikes.x] = True
    assert on[y, x].mean() > 0.6


def test_spike_beside_a_neighbour_is_marked_like_the_others_of_its_star():
    x0, y0, _ = STARS[2]
    angle = np.radians(ANGLES[0])
    image = exposure(6, STARS).astype(np.float64)
    v, u = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for r, across, flux in ((14.0, 4.0, 4e5), (24.0, -4.0, 2e5), (34.0, 4.0, 2e5)):
        x, y = x0 + r * np.cos(angle) - across * np.sin(angle), y0 + r * np.sin(angle) + across * np.cos(angle)
        image += flux / 9.0 * np.exp(-0.5 * ((u - x) ** 2 + (v - y) ** 2) / 1.2**2)
    level, rms, saturated, places = prepared(image := image.astype(np.float32))
    spikes = find_spikes(image, level, rms, saturated, **places)
    on = np.zeros(SHAPE, bool)
    on[spikes.y, spikes.x] = True
    r = np.arange(12, 42)
    lit = on[np.rint(y0 + r * np.sin(angle)).astype(int), np.rint(x0 + r * np.cos(angle)).astype(int)]
    assert lit.mean() > 0.8


def test_track_across_the_direction_of_spikes_stays_a_ray():
    level, rms, saturated, places = prepared(image := exposure(7, STARS))
    spikes = find_spikes(image, level, rms, saturated, **places)
    image[200, 230:242] += 1500.0
    image[210:222, 250] += 1500.0
    marked = np.array([(200, x) for x in range(230, 242)] + [(y, 250) for y in range(210, 222)]).T
    everywhere = tuple(np.indices((20, 40)).reshape(2, -1) + np.array([[195], [225]]))
    track = tuple(np.indices((16, 10)).reshape(2, -1) + np.array([[208], [246]]))
    shadow = tuple(np.concatenate(pair) for pair in zip(everywhere, track, strict=True))
    found = remove_cosmic_rays_in_place(
        image, level, rms, saturated, neighbour_ratio=0.6, spikes=shadow, spike_angles_deg=spikes.angles_deg
    )  # fmt: skip
    is_ray = np.zeros(SHAPE, bool)
    is_ray[found.y, found.x] = True
    assert is_ray[marked[0], marked[1]].mean() > 0.9


def test_image_without_saturated_stars_has_no_spikes():
    rng = np.random.default_rng(4)
    image = rng.normal(SKY, NOISE, SHAPE).astype(np.float32)
    level, rms, saturated, places = prepared(image)
    assert find_spikes(image, level, rms, saturated, **places).y.size == 0


def test_stars_that_charge_has_joined_each_keep_their_spikes():
    stars = ((200.0, 120.0, 4e7), (200.0, 260.0, 4e7), *STARS[:2])
    image = exposure(5, stars)
    image[110:270, 199:202] = 2.0 * WELL
    level, rms, saturated, places = prepared(image)
    spikes = find_spikes(image, level, rms, saturated, **places)
    on = np.zeros(SHAPE, bool)
    on[spikes.y, spikes.x] = True
    for x0, y0, _ in stars[:2]:
        r = np.arange(15, 40)
        for angle in np.radians(ANGLES):
            lit = on[np.rint(y0 + r * np.sin(angle)).astype(int), np.rint(x0 + r * np.cos(angle)).astype(int)]
            assert lit.mean() > 0.7
