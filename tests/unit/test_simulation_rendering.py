"""Sources are drawn where they are, with their light and shape."""

import galsim
import numpy as np
import pytest

from gueststar.cameras.load import load_camera
from gueststar.model.camera import Camera
from gueststar.simulation.bright_stars import add_far_light_in_place
from gueststar.simulation.optics import Aberrations, Optics, make_optics
from gueststar.simulation.point_spread import PsfField, PsfState, air_fwhm, make_psf_field
from gueststar.simulation.rendering import Sources, add_sources_in_place, points
from gueststar.simulation.scenario import OpticsPlan

PERFECT = Aberrations(0.0, (0.0, 0.0), 0.0, 0.0, (0.0, 0.0), 0.0, (0.0, 0.0))
PLAIN = OpticsPlan(halo_fraction=0.0, spike_fraction=0.0, ghost_fraction=0.0)


def psf_of(fwhm: float, *, plan: OpticsPlan = PLAIN, aberrations: Aberrations = PERFECT) -> PsfField:
    camera = load_camera("simcam")
    optics = make_optics(camera, plan, seed=1)
    state = PsfState(fwhm, (0.0, 0.0, 0.0), aberrations)
    width = air_fwhm(camera, optics, state)
    return make_psf_field(camera, optics, camera.detectors[0], state, air_fwhm_arcsec=width)


def air_width(fwhm: float) -> float:
    camera = load_camera("simcam")
    return air_fwhm(camera, make_optics(camera, PLAIN, seed=1), PsfState(fwhm, (0.0, 0.0, 0.0), PERFECT))


def drawn(sources: Sources, psf: PsfField, *, noise: float = 1e-3) -> np.ndarray:
    image = np.zeros((301, 301), dtype=np.float32)
    add_sources_in_place(image, sources, psf, noise=noise)
    return image


@pytest.mark.parametrize(("x", "y"), [(150.0, 150.0), (150.37, 149.81), (149.5, 150.5)])
def test_star_is_what_galsim_draws(x: float, y: float) -> None:
    ours = drawn(points(np.array([x]), np.array([y]), np.array([1e4])), psf_of(2.2))
    air = galsim.Kolmogorov(fwhm=air_width(2.2), flux=1e4).shift(x - 150.0, y - 150.0)
    theirs = air.drawImage(nx=301, ny=301, scale=1.0).array
    assert np.abs(ours - theirs).max() < 3e-3 * theirs.max()
    assert ours.sum() == pytest.approx(1e4, rel=1e-3)


def test_galaxy_is_what_galsim_draws() -> None:
    source = Sources(
        np.array([150.3]), np.array([149.8]), np.array([1e5]), np.array([[9.0, 0.0, 9.0 * 0.36]]),
        np.array([0.4]), np.array([0.5]), np.zeros((1, 2)),
    )  # fmt: skip
    ours = drawn(source, psf_of(2.2))
    disc = galsim.Exponential(half_light_radius=3.0, flux=6e4)
    bulge = galsim.DeVaucouleurs(half_light_radius=1.5, flux=4e4, trunc=37.5)
    # A shear that keeps the major axis at the given radius and the minor axis at 0.6 of it.
    squeezed = (disc + bulge).transform(1.0, 0.0, 0.0, 0.6)
    theirs = galsim.Convolve(squeezed / 1.0, galsim.Kolmogorov(fwhm=air_width(2.2))).withFlux(1e5)
    expected = theirs.shift(0.3, -0.2).drawImage(nx=301, ny=301, scale=1.0).array
    assert np.abs(ours - expected).max() < 1e-2 * expected.max()
    assert ours.sum() == pytest.approx(1e5, rel=1e-2)


def test_trail_is_a_line_of_points() -> None:
    psf = psf_of(2.5)
    trail = Sources(
        np.array([150.0]), np.array([150.0]), np.array([1e4]), np.zeros((1, 3)), np.zeros(1), np.ones(1),
        np.array([[6.0, -3.0]]),
    )  # fmt: skip
    part = (np.arange(400) + 0.5) / 400 - 0.5
    many = points(150.0 + 6.0 * part, 150.0 - 3.0 * part, np.full(400, 25.0))
    one, sum_of_points = drawn(trail, psf), drawn(many, psf)
    assert np.abs(one - sum_of_points).max() < 2e-3 * sum_of_points.max()


@pytest.mark.parametrize("fwhm", [1.3, 2.0, 3.5])
def test_delivered_width_is_the_one_asked_for(fwhm: float) -> None:
    plan = PLAIN.model_copy(update={"halo_fraction": 0.02})
    blurred = Aberrations(0.2, (0.0, 0.0), 0.0, 0.0, (0.05, 0.0), 0.0, (0.05, 0.0))
    psf = psf_of(fwhm, plan=plan, aberrations=blurred)
    # Five samples a pixel by drawing stars at sub-pixel places.
    fine = np.zeros((205, 205))
    for j in range(5):
        for i in range(5):
            star = points(np.array([150.0 - (i - 2) / 5]), np.array([150.0 - (j - 2) / 5]), np.array([1e5]))
            fine[j::5, i::5] = drawn(star, psf)[130:171, 130:171]
    cuts = (fine[102, 102:], fine[102, 102::-1], fine[102:, 102], fine[102::-1, 102])
    half = [np.interp(-0.5 * fine.max(), -cut[:40], np.arange(40)) / 5.0 for cut in cuts]
    assert 2.0 * np.mean(half) == pytest.approx(fwhm, rel=0.02)


def test_psf_varies_over_the_field_and_centroids_stay() -> None:
    coma = Aberrations(0.0, (0.3, 0.0), 0.4, 0.3, (0.0, 0.0), 0.6, (0.0, 0.0))
    psf = psf_of(2.0, aberrations=coma)
    y, x = np.mgrid[:301, :301]
    peaks = []
    for column, row in ((60.0, 240.0), (240.3, 60.2)):
        image = drawn(points(np.array([column]), np.array([row]), np.array([1e5])), psf)
        near = np.hypot(x - column, y - row) < 25
        weight = np.where(near, image, 0.0)
        peaks.append(image.max())
        assert (weight * x).sum() / weight.sum() == pytest.approx(column, abs=0.01)
        assert (weight * y).sum() / weight.sum() == pytest.approx(row, abs=0.01)
    assert abs(peaks[0] - peaks[1]) > 2e-3 * peaks[0]


def test_light_of_a_bright_star_adds_up() -> None:
    plan = OpticsPlan(halo_fraction=0.03, spike_fraction=0.005, ghost_fraction=0.002)
    psf = psf_of(2.5, plan=plan)
    star = points(np.array([500.0]), np.array([500.0]), np.array([1e9]))
    image = np.zeros((1001, 1001), dtype=np.float32)
    add_sources_in_place(image, star, psf, noise=1.0)
    add_far_light_in_place(
        image, x=star.x, y=star.y, flux=star.flux, psf=psf, noise=1.0, spike_fraction=0.005, spike_angle_deg=30.0,
        ghost_fraction=0.002, ghost_radius=45.0,
    )  # fmt: skip
    # What is missing is the aureole beyond the image: about halo * scale / 500 pixels.
    assert image.astype(np.float64).sum() == pytest.approx(1e9, rel=1.5e-3)


def test_bright_star_has_no_step_where_its_stamp_ends() -> None:
    psf = psf_of(2.5, plan=OpticsPlan(halo_fraction=0.03, spike_fraction=0.0, ghost_fraction=0.0))
    star = points(np.array([150.0]), np.array([150.0]), np.array([1e8]))
    image = drawn(star, psf, noise=1.0)
    add_far_light_in_place(
        image, x=star.x, y=star.y, flux=star.flux, psf=psf, noise=1.0, spike_fraction=0.0, spike_angle_deg=0.0,
        ghost_fraction=0.0, ghost_radius=45.0,
    )  # fmt: skip
    radius = np.arange(18, 90)
    slope = np.gradient(np.log(image[150, 150 + radius].astype(np.float64)), np.log(radius))
    # Kolmogorov wings fall as r**-11/3, the aureole as r**-3.
    assert np.all((slope < -2.6) & (slope > -4.2))


def test_optics_are_the_same_for_a_seed() -> None:
    camera: Camera = load_camera("simcam")
    first: Optics = make_optics(camera, OpticsPlan(), seed=4)
    second = make_optics(camera, OpticsPlan(), seed=4)
    np.testing.assert_array_equal(first.pv1, second.pv1)
    assert first.placements == second.placements
