"""Artificial sources: what is put in is what is measured, and detections are labelled by it."""

from __future__ import annotations

import numpy as np
import pytest

from gueststar.model.columns import DIA_SOURCE
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
    flux = np.sign(injected.sources.flux) * science.photocal.flux(injected.sources.magnitude)
    assert np.array_equal(injected.image.pixels.image, again.image.pixels.image)
    added = injected.image.pixels.image.astype(float) - science.pixels.image
    assert added.sum() == pytest.approx(flux.sum(), rel=0.1)
    assert (flux < 0).any()
    assert (flux > 0).any()
    more = injected.image.pixels.variance - science.pixels.variance
    assert np.all(more >= 0)
    assert more.sum() == pytest.approx(flux[flux > 0].sum(), rel=0.1)


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
