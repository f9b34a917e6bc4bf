"""Artificial sources of every night: a fair sample of images, places of every kind, and what they lie on."""

import numpy as np
import pytest

from gueststar.core.bits import MaskPlane
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.wcs import Wcs
from gueststar.operations.report.completeness import class_lines, pooled_injections
from gueststar.operations.report.figures import injection_classes
from gueststar.pipelines.injection.inject import InjectedImage
from gueststar.pipelines.injection.place import (
    ArtificialSources,
    InjectionConfig,
    NightlyInjectionConfig,
    Place,
    PlaceSources,
)
from gueststar.pipelines.injection.score import Detections, ScoreInjections
from gueststar.pipelines.injection.surroundings import MeasureSurroundings, Surroundings
from gueststar.pipelines.night.injection import is_drawn
from gueststar.store.ledger import Job, JobState

SHAPE = (400, 420)


def image(light: np.ndarray | float = 0.0, *, seed: int = 1) -> CalibratedImage:
    rng = np.random.default_rng(seed)
    line = np.exp(-0.5 * (np.arange(-10, 11) / 1.2) ** 2)
    stamp = np.outer(line, line)
    psf = Psf((stamp / stamp.sum())[None].astype(np.float32), 0, SHAPE)
    pixels = rng.normal(0, 20, SHAPE) + light
    masked = MaskedImage(pixels.astype(np.float32), np.full(SHAPE, 400.0), np.zeros(SHAPE))
    wcs = Wcs.tangent(ra=10.0, dec=20.0, x=200.0, y=200.0, scale_arcsec=0.5)
    return CalibratedImage(masked, wcs, psf, PhotoCal(27.0, 0.01, band="r"))


def sources_at(x, y, place=0) -> ArtificialSources:
    x, y = np.asarray(x, float), np.asarray(y, float)
    none = np.zeros(x.size)
    return ArtificialSources(x, y, none + 20.0, none + 1e4, none, none, np.full(x.size, place, np.int8))


def test_every_exposure_gives_its_share_of_detectors_whatever_the_others_do() -> None:
    detectors = tuple(range(1, 65))
    for exposure in range(1000, 1020):
        drawn = [k for k in detectors if is_drawn(exposure, k, detectors, 0.1)]
        assert len(drawn) in (6, 7)
        assert drawn == [k for k in reversed(detectors) if is_drawn(exposure, k, detectors, 0.1)][::-1]
    times = np.array([[is_drawn(e, k, detectors, 0.1) for k in detectors] for e in range(400)]).mean(axis=0)
    assert times.mean() == pytest.approx(0.1, abs=0.005)
    assert np.ptp(times) < 0.12  # no detector is preferred
    single = np.mean([is_drawn(e, 3, (3,), 0.1) for e in range(3000)])
    assert single == pytest.approx(0.1, abs=0.02)
    assert not any(is_drawn(e, 3, (3,), 0.0) for e in range(50))
    assert all(is_drawn(e, k, (1, 2, 3), 1.0) for e in range(50) for k in (1, 2, 3))
    assert not is_drawn(5, 9, (1, 2), 1.0)


def test_sources_are_put_anywhere_at_hosts_and_near_bright_stars_in_the_shares_asked_for() -> None:
    blank = image()
    hosts = np.array([100.0, 300.0, 200.0]), np.array([100.0, 150.0, 330.0])
    stars = np.array([200.0]), np.array([200.0])
    config = InjectionConfig(
        n=2000, separation_fwhm=0.01, host_fraction=0.35, host_distance_fwhm=1.0, bright_star_fraction=0.2,
        bright_star_distance_fwhm=(2.0, 40.0),
    )  # fmt: skip
    placed = PlaceSources(config).run(
        blank, limiting_mag=21.0, random=np.random.default_rng(1), hosts=hosts, bright_stars=stars
    )
    n = placed.x.size
    assert n > 1800
    for kind, share in ((Place.ANYWHERE, 0.45), (Place.HOST, 0.35), (Place.BRIGHT_STAR, 0.2)):
        assert np.mean(placed.place == kind) == pytest.approx(share, abs=0.04)
    fwhm, mine = blank.psf.central_fwhm, placed.select(placed.place == Place.HOST)
    nearest = np.min([np.hypot(mine.x - x, mine.y - y) for x, y in zip(*hosts, strict=True)], axis=0)
    assert nearest.max() < 5 * fwhm
    around = placed.select(placed.place == Place.BRIGHT_STAR)
    distance = np.hypot(around.x - 200.0, around.y - 200.0) / fwhm
    assert distance.min() > 1.9
    assert distance.max() < 41.0
    assert np.mean(distance < np.sqrt(80.0)) == pytest.approx(0.5, abs=0.06)


def test_surroundings_are_the_static_skys_brightness_and_the_distance_to_bright_stars() -> None:
    light = np.zeros(SHAPE)
    light[250:300, 250:300] = 1000.0  # 4000 electrons per square arcsec
    around = MeasureSurroundings().run(
        sources_at([275.0, 50.0], [275.0, 50.0]), image(light), bright_stars=(np.array([275.0]), np.array([295.0]))
    )
    assert around.surface_mag[0] == pytest.approx(27.0 - 2.5 * np.log10(4000.0), abs=0.03)
    assert np.isnan(around.surface_mag[1])
    assert around.bright_star_arcsec[0] == pytest.approx(10.0, abs=1e-6)
    none = MeasureSurroundings().run(sources_at([3.0], [4.0]), image(), bright_stars=None)
    assert np.isnan(none.bright_star_arcsec[0])


def test_completeness_is_of_even_places_and_classes_count_all_of_them() -> None:
    blank = image()
    n = 60
    x, y = np.tile(np.arange(10) * 38.0 + 20, 6), np.repeat(np.arange(6) * 60.0 + 20, 10)
    sources = sources_at(x, y)._replace(place=(np.arange(n) % 3).astype(np.int8))
    surface = np.where(np.arange(n) % 3 == 1, 21.5, np.nan)
    distance = np.where(np.arange(n) % 3 == 2, 7.0, 500.0)
    found = Detections(is_differenced=np.ones(SHAPE, bool), candidates=None)
    score = ScoreInjections().run(InjectedImage(blank, sources), found, Surroundings(surface, distance))
    assert score.metrics["n_injected"] == 20
    rows = score.metrics["classes"]
    by_surface = {(row["low"], row["high"]): row["n"] for row in rows if row["by"] == "surface"}
    assert by_surface == {(None, None): 40, (21.0, 22.0): 20}
    by_distance = {(row["low"], row["high"]): row["n"] for row in rows if row["by"] == "distance"}
    assert by_distance == {(5.0, 10.0): 20, (80.0, None): 40}
    np.testing.assert_array_equal(score.catalog["place"], sources.place)


def injection_job(number: int, n_candidate: int) -> Job:
    counts = {"n": 10, "n_source": 0, "n_differenced": 10, "n_candidate": n_candidate, "n_alert": n_candidate}
    row = {"mag_low": 20.5, "mag_high": 21.0, **counts}
    figures = dict.fromkeys(("magnitude_50", "plateau", "flux_bias", "pull_median", "pull_sigma"))
    metrics = {
        "stage": "difference", "n_injected": 10, "source": figures, "bins": [row],
        "classes": [
            {"by": "surface", "low": None, "high": None, **row}, {"by": "surface", "low": 20.0, "high": 21.0, **row},
            {"by": "distance", "low": 80.0, "high": None, **row},
        ],
    }  # fmt: skip
    facts = dict.fromkeys(Job.__dataclass_fields__)
    facts |= {"id": number, "kind": "injection", "state": JobState.DONE, "metrics": metrics, "exposure_id": 1}
    return Job(**facts)


def test_the_report_shows_what_was_found_by_class() -> None:
    pooled = pooled_injections([injection_job(1, 9), injection_job(2, 6)], {})
    text = "\n".join(class_lines(pooled))
    assert "blank sky" in text
    assert "20 to 21 mag/arcsec2" in text
    assert "above 80 arcsec" in text
    assert "15/20" in text
    assert injection_classes(pooled).startswith(b"\x89PNG")
    assert class_lines({}) == []


def test_nothing_is_put_on_unusable_pixels_near_hosts() -> None:
    blank = image()
    blank.pixels.mask[80:120, 80:120] = int(MaskPlane.SATURATED)
    config = InjectionConfig(n=300, separation_fwhm=0.1, host_fraction=1.0)
    hosts = np.array([119.0]), np.array([119.0])
    placed = PlaceSources(config).run(blank, limiting_mag=21.0, random=np.random.default_rng(1), hosts=hosts)
    inside = (np.abs(placed.x - 99.5) < 19.5) & (np.abs(placed.y - 99.5) < 19.5)
    assert placed.x.size > 50
    assert not inside.any()


def test_the_default_is_light() -> None:
    config = NightlyInjectionConfig()
    assert config.fraction <= 0.1
    assert config.sources.stage == "difference"
