"""Artificial sources: what is put in is what is measured, and detections are labelled by it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gueststar.model.columns import DIA_SOURCE, SOURCE
from gueststar.pipelines.injection.faded import ShowFaded, on_grid
from gueststar.pipelines.injection.inject import InjectSources
from gueststar.pipelines.injection.label import label_detections
from gueststar.pipelines.injection.place import LABELLING, ArtificialSources
from gueststar.pipelines.night.science import limiting_magnitude


def test_sources_are_put_in_with_their_flux_and_photon_noise(sky) -> None:
    science = sky.image()
    limit = limiting_magnitude(science)
    injected, again = (
        InjectSources(LABELLING).run(science, limiting_mag=limit, random=np.random.default_rng(5)) for _ in range(2)
    )
    sources = injected.sources
    flux = np.where(sources.flux > 0, science.photocal.flux(sources.magnitude), 0.0)
    assert np.array_equal(injected.image.pixels.image, again.image.pixels.image)
    added = injected.image.pixels.image.astype(float) - science.pixels.image
    assert (sources.flux < 0).any()
    assert (flux > 0).any()
    assert added.min() >= 0  # what has faded leaves no hole
    assert added.sum() == pytest.approx(flux.sum(), rel=0.1)
    more = injected.image.pixels.variance - science.pixels.variance
    assert np.all(more >= 0)
    assert more.sum() == pytest.approx(flux.sum(), rel=0.1)


def test_what_has_faded_shines_on_the_reference_and_stands_in_its_catalog(sky) -> None:
    science, reference = sky.image(), sky.image(seed=2, fwhm=3.0, offset=(4.3, -2.6))
    injected = InjectSources(LABELLING).run(
        science, limiting_mag=limiting_magnitude(science), random=np.random.default_rng(5)
    )
    sources = injected.sources.select(injected.sources.flux < 0)
    listed = SOURCE.empty()
    faded = ShowFaded(injected.sources, science.wcs, random=np.random.default_rng(6))
    changed, known = faded(reference, listed)
    ra, dec = science.wcs.pixel_to_sky(x=sources.x, y=sources.y)
    x, y = reference.wcs.sky_to_pixel(ra=ra, dec=dec)
    bright = np.argsort(sources.flux)[:5]
    light = changed.pixels.image.astype(float) - reference.pixels.image
    grid_y, grid_x = np.mgrid[: reference.shape[0], : reference.shape[1]]
    for k in bright:
        near = np.hypot(grid_x - x[k], grid_y - y[k]) < 7.0
        expected = reference.photocal.flux(sources.magnitude[k])
        assert light[near].sum() == pytest.approx(expected, rel=0.1)
        assert np.average(grid_x[near], weights=light[near]) == pytest.approx(x[k], abs=0.2)
        assert np.min(np.hypot(known["x"] - x[k], known["y"] - y[k])) < 1e-3
    assert (changed.pixels.variance >= reference.pixels.variance).all()
    assert 0 < known.n_rows <= sources.x.size
    assert listed.n_rows == 0
    beyond = injected.sources._replace(x=injected.sources.x - 1000.0)
    assert ShowFaded(beyond, science.wcs, random=np.random.default_rng(6))(reference, listed) == (reference, listed)
    nothing = ShowFaded(
        injected.sources.select(injected.sources.flux > 0), science.wcs, random=np.random.default_rng(6)
    )
    assert nothing(reference, listed) == (reference, listed)


def test_trails_keep_their_ends_on_another_grid(sky) -> None:
    science = sky.image()
    turned = replace(science.wcs, cd=0.5 * science.wcs.cd @ np.array([[0.0, -1.0], [1.0, 0.0]]))
    one = np.ones(1)
    trail = ArtificialSources(60.0 * one, 70.0 * one, 20 * one, -one, 10.0 * one, 30.0 * one, np.zeros(1, np.int8))
    moved = on_grid(trail, science.wcs, turned)
    assert moved.trail_length[0] == pytest.approx(20.0, rel=1e-3)
    assert (moved.trail_angle_deg[0] - 30.0) % 180.0 == pytest.approx(90.0, abs=0.1)


def test_detections_are_labelled_by_place_and_sign_and_known_changes_belong_to_neither_side(sky) -> None:
    injected = ArtificialSources(
        *(
            np.array(pair)
            for pair in ([50.0, 80.0], [50.0, 80.0], [20.0, 20.0], [900.0, -900.0], [0.0, 0.0], [0.0, 0.0], [0, 0])
        )
    )
    values = {column.name: np.zeros(5, dtype=column.dtype) for column in DIA_SOURCE.columns}
    values |= {"x": np.array([50.4, 80.0, 80.3, 120.0, 20.0]), "y": np.array([50.0, 80.2, 80.0, 120.0, 20.0])}
    values |= {"is_positive": np.array([True, False, True, True, True])}
    rows, is_real = label_detections(
        DIA_SOURCE.catalog(values), injected, known=(np.array([120.5]), np.array([120.0])), radius=1.5
    )
    assert rows.tolist() == [0, 1, 4]
    assert is_real.tolist() == [True, True, False]
