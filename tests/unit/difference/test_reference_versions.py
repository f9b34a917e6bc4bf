"""What a new version of a reference changes is found where it is, and by how much."""

import numpy as np
import pytest

from gueststar.model.columns import SOURCE
from gueststar.pipelines.reference.compare import CompareReferences, CompareReferencesConfig, static_flux
from gueststar.pipelines.reference.reference_image import Epoch, MakeReference

from .test_reference import grid_of


def reference_of(sky, seeds, supernova: float, in_epochs: int):
    """Return a reference of an epoch a seed; ``in_epochs`` of them show a supernova (electrons) at (150, 90)."""
    epochs = []
    for k, seed in enumerate(seeds):
        added = ((150.0, 90.0, supernova),) if k < in_epochs else ()
        image = sky.image(seed=seed, fwhm=2.4 + 0.1 * (k % 4), added=added)
        epochs.append(Epoch(f"e{seed}", 60000.0 + k, lambda image=image: image))
    return MakeReference().run(epochs, grid=grid_of())


def sources_of(sky):
    n = sky.ra.size
    columns = {column.name: np.zeros(n) for column in SOURCE.columns}
    return SOURCE.catalog(columns | {"ra": sky.ra, "dec": sky.dec})


def test_a_supernova_of_the_first_version_is_told_when_the_second_no_longer_holds_it(sky) -> None:
    old, new = reference_of(sky, range(5), 8000.0, 5), reference_of(sky, range(20), 8000.0, 5)
    ra, dec = sky.image().wcs.pixel_to_sky(x=np.array([150.0]), y=np.array([90.0]))
    listed = sources_of(sky)
    with_it = SOURCE.catalog({name: np.append(listed[name], 0) for name in listed} | {
        "ra": np.append(sky.ra, ra), "dec": np.append(sky.dec, dec)
    })  # fmt: skip
    found = CompareReferences().run(old, new, old_sources=with_it, new_sources=listed)
    assert found.changes.n_rows == 1
    assert np.hypot(found.changes["ra"][0] - ra[0], found.changes["dec"][0] - dec[0]) < 1e-6
    njy = old.photocal.njy_per_unit * 8000.0
    assert found.changes["change"][0] == pytest.approx(
        -njy, rel=0.08
    )  # a minority of the epochs: left out of the new one
    assert found.metrics["flux_ratio"] == pytest.approx(1.0, abs=0.01)
    assert found.metrics["n_changed"] == 1


def test_difference_flux_and_static_flux_add_up_whatever_the_version(sky) -> None:
    old, new = reference_of(sky, range(5), 8000.0, 5), reference_of(sky, range(8), 8000.0, 4)
    ra, dec = sky.image().wcs.pixel_to_sky(x=np.array([150.0]), y=np.array([90.0]))
    before, after = (static_flux(r, ra=ra, dec=dec) for r in (old, new))
    njy = old.photocal.njy_per_unit * 8000.0
    assert before.flux[0] == pytest.approx(njy, rel=0.06)
    share = after.flux[0] / njy  # four of eight epochs show it: it is the sky that varies, and the mean is kept
    assert 0.3 < share < 0.7
    far = static_flux(old, ra=np.array([10.0]), dec=np.array([-60.0]))
    assert np.isnan(far.flux[0])


def test_versions_of_the_same_sky_do_not_differ(sky) -> None:
    old, new = reference_of(sky, range(5), 0.0, 0), reference_of(sky, range(10), 0.0, 0)
    found = CompareReferences().run(old, new, old_sources=sources_of(sky), new_sources=sources_of(sky))
    assert found.changes.n_rows == 0
    assert found.metrics["n_compared"] > 40


def test_blended_stars_do_not_sway_the_flux_ratio_of_two_versions(sky) -> None:
    """What neighbours add to a flux grows with the seeing, that of lonely stars stays."""
    n, rng = sky.ra.size, np.random.default_rng(3)
    x, y = sky.image().wcs.sky_to_pixel(ra=sky.ra, dec=sky.dec)
    pairs = np.flatnonzero(rng.random(n) < 0.6)
    added = tuple((float(x[k]) + 3.0, float(y[k]) + 1.0, float(sky.flux[k])) for k in pairs)

    def version(fwhm: float):
        epochs = [
            Epoch(f"e{seed}", 60000.0 + seed, lambda seed=seed: sky.image(seed=seed, fwhm=fwhm, added=added))
            for seed in range(4)
        ]
        return MakeReference().run(epochs, grid=grid_of())

    ra, dec = sky.image().wcs.pixel_to_sky(x=x[pairs] + 3.0, y=y[pairs] + 1.0)
    listed = sources_of(sky)
    columns = {name: np.append(listed[name], np.zeros(pairs.size)) for name in listed}
    blended = SOURCE.catalog(columns | {"ra": np.append(sky.ra, ra), "dec": np.append(sky.dec, dec)})
    old, new = version(2.2), version(3.2)
    found = CompareReferences().run(old, new, old_sources=blended, new_sources=blended)
    assert found.metrics["flux_ratio"] == pytest.approx(1.0, abs=0.01)
    everything = CompareReferences(CompareReferencesConfig(min_isolated=10**6))
    assert everything.run(old, new, old_sources=blended, new_sources=blended).metrics["flux_ratio"] > 1.02
