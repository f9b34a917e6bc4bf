"""Artificial sources: fair places, right light, honest scores."""

import numpy as np
import pytest

from gueststar.algorithms.photometry.artificial import choose_places, points_along
from gueststar.algorithms.stats.completeness import completeness_at, fit_completeness
from gueststar.core.bits import MaskPlane
from gueststar.core.errors import DataError
from gueststar.model.columns import DIA_SOURCE, SOURCE
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.wcs import Wcs
from gueststar.operations.report.completeness import injection_lines
from gueststar.operations.report.figures import injections
from gueststar.pipelines.injection.inject import InjectSources
from gueststar.pipelines.injection.place import InjectionConfig
from gueststar.pipelines.injection.score import Detections, ScoreInjections
from gueststar.pipelines.science.catalogs import MakeCatalogs, calibrate_sources

SHAPE = (300, 320)
SKY = 400.0


def blank_image(seed: int = 1, *, mask: np.ndarray | None = None) -> CalibratedImage:
    rng = np.random.default_rng(seed)
    g = np.arange(-20, 21) / 2.0
    line = np.exp(-0.5 * (g / 1.2) ** 2)
    stamp = np.outer(line, line)
    psf = Psf((stamp / stamp.sum() * 4.0)[None].astype(np.float32), 0, SHAPE, 2)
    pixels = MaskedImage(rng.poisson(SKY, SHAPE) - SKY, np.full(SHAPE, SKY), np.zeros(SHAPE) if mask is None else mask)
    wcs = Wcs.tangent(ra=10.0, dec=20.0, x=160.0, y=150.0, scale_arcsec=1.0)
    return CalibratedImage(pixels, wcs, psf, PhotoCal(27.0, 0.01, band="r"))


def inject(image: CalibratedImage, *, seed: int = 2, limit: float = 20.7, **config: object):
    return InjectSources(InjectionConfig(**config)).run(image, limiting_mag=limit, random=np.random.default_rng(seed))


def catalog_of(image: CalibratedImage):
    found = MakeCatalogs().run(image.pixels, image.psf)
    return calibrate_sources(found.psf, image.wcs, image.photocal, visit=1, detector=1)


def test_places_are_even_over_the_allowed_pixels_and_their_phases() -> None:
    is_allowed = np.ones((200, 300), bool)
    is_allowed[:, :150] = False
    x, y = choose_places(is_allowed, 2000, separation=1.0, random=np.random.default_rng(3))
    assert x.size == 2000
    assert is_allowed[np.rint(y).astype(int), np.rint(x).astype(int)].all()
    for values, low, high in ((x, 149.5, 299.5), (y, -0.5, 199.5), (x % 1.0, 0.0, 1.0)):
        counts = np.histogram(values, bins=10, range=(low, high))[0]
        assert np.all(np.abs(counts - 200) < 5 * np.sqrt(200))
    far, _ = choose_places(is_allowed, 500, separation=20.0, random=np.random.default_rng(3))
    assert 40 < far.size < 200
    assert choose_places(np.zeros((5, 5), bool), 3, separation=1.0, random=np.random.default_rng(0))[0].size == 0


def test_trails_keep_their_light_and_length() -> None:
    source, x, y, share = points_along(
        x=np.array([50.0, 90.0]), y=np.array([40.0, 60.0]), length=np.array([0.0, 20.0]),
        angle_deg=np.array([0.0, 90.0]),
    )  # fmt: skip
    assert np.bincount(source, weights=share).tolist() == pytest.approx([1.0, 1.0])
    assert np.ptp(y[source == 1]) == pytest.approx(20.0)
    assert np.allclose(x[source == 1], 90.0)
    assert (source == 0).sum() == 1


def test_the_added_light_is_the_stars_flux_with_its_photon_noise() -> None:
    image = blank_image()
    made = inject(image, n=60, brightest=-4.0, faintest=-2.0)
    added = made.image.pixels.image - image.pixels.image
    total = image.photocal.flux(made.sources.magnitude).sum()
    assert added.sum() == pytest.approx(total, abs=5 * np.sqrt(total) + 0.01 * total)
    grown = made.image.pixels.variance - image.pixels.variance
    assert grown.sum() == pytest.approx(total, rel=0.02)
    bright = grown > 20.0
    assert np.std((added - grown)[bright] / np.sqrt(grown[bright])) == pytest.approx(1.0, abs=0.08)
    assert image.pixels.image.sum() != made.image.pixels.image.sum()


def test_the_same_seed_gives_the_same_sources_and_another_others() -> None:
    image = blank_image()
    first, again, other = inject(image, n=20), inject(image, n=20), inject(image, n=20, seed=3)
    np.testing.assert_array_equal(first.image.pixels.image, again.image.pixels.image)
    np.testing.assert_array_equal(first.sources.magnitude, again.sources.magnitude)
    assert not np.array_equal(first.sources.x, other.sources.x)


def test_nothing_is_put_onto_masked_pixels() -> None:
    mask = np.zeros(SHAPE, np.int32)
    mask[:, :250] = int(MaskPlane.SATURATED)
    mask[:, 250:280] = int(MaskPlane.HALO)
    made = inject(blank_image(mask=mask), n=30, separation_fwhm=3.0)
    assert made.sources.x.min() > 249.0
    assert made.sources.x.min() < 280.0
    with pytest.raises(DataError, match="no pixel"):
        inject(blank_image(mask=np.full(SHAPE, int(MaskPlane.NO_DATA))))


def test_half_of_the_stars_at_the_five_sigma_limit_are_found_with_right_fluxes() -> None:
    pulls, n_half = [], []
    area = 4 * np.pi * (1.2**2 + 1 / 12)
    limit = 27.0 - 2.5 * np.log10(5 * np.sqrt(SKY * area))
    for seed in range(4):
        image = blank_image(seed)
        made = inject(image, seed=seed, limit=limit, n=150, separation_fwhm=5.0, brightest=-3.0)
        score = ScoreInjections().run(made, Detections(catalog_of(made.image), catalog_of(image)))
        n_half.append(score.metrics["source"]["magnitude_50"])
        kept = score.catalog.select(score.catalog["is_source_found"] & (score.catalog["mag"] < limit - 1.5))
        pulls.append((kept["source_flux"] - kept["flux"]) / kept["source_flux_err"])
        assert not score.catalog["is_source_by_chance"].any()
        assert score.metrics["source"]["plateau"] > 0.95
    assert np.mean(n_half) == pytest.approx(limit, abs=0.12)
    assert np.mean(np.concatenate(pulls)) == pytest.approx(0.0, abs=0.4)
    assert np.std(np.concatenate(pulls)) == pytest.approx(1.0, abs=0.25)


def test_chance_matches_and_wrong_fluxes_do_not_count_as_found() -> None:
    image = blank_image()
    made = inject(image, n=10, trail_fraction=0.0)
    columns = {c.name: np.zeros(10) for c in SOURCE.columns} | {"x": made.sources.x, "y": made.sources.y}
    right = SOURCE.catalog(columns | {"psf_flux": made.sources.flux * 1.5})
    wrong = SOURCE.catalog(columns | {"psf_flux": made.sources.flux * 2.5})
    score = ScoreInjections().run(made, Detections(wrong, right))
    assert score.metrics["source"]["n_found"] == 0
    assert score.metrics["source"]["n_by_chance"] == 10
    assert score.metrics["completeness_50_mag"] is None
    assert ScoreInjections().run(made, Detections(right, wrong)).metrics["source"]["n_found"] == 10


def test_candidates_are_scored_where_the_difference_can_be_used() -> None:
    image = blank_image()
    made = inject(image, n=40, separation_fwhm=4.0)
    n = made.sources.x.size
    columns = {c.name: np.zeros(n) for c in DIA_SOURCE.columns} | {
        "x": made.sources.x,
        "y": made.sources.y,
        "psf_flux": np.where(np.arange(n) > 4, 1.0, -1.0) * made.sources.flux,
    }
    candidates = DIA_SOURCE.catalog(columns | {"is_positive": np.arange(n) > 4, "snr": np.full(n, 9.0)})
    is_differenced = np.ones(SHAPE, bool)
    is_differenced[:100] = False
    found = Detections(
        catalog_of(image), catalog_of(image), candidates, DIA_SOURCE.empty(), np.arange(n) % 2 == 0, is_differenced
    )
    score = ScoreInjections().run(made, found)
    np.testing.assert_array_equal(score.catalog["is_candidate_found"], np.arange(n) > 4)
    np.testing.assert_array_equal(score.catalog["is_likely_alert"], (np.arange(n) > 4) & (np.arange(n) % 2 == 0))
    assert score.metrics["difference"]["n"] == (made.sources.y > 99.5).sum()
    assert sum(row["n_differenced"] for row in score.metrics["bins"]) == score.metrics["difference"]["n"]


@pytest.mark.parametrize(("plateau", "width"), [(1.0, 0.1), (0.9, 0.3)])
def test_completeness_is_recovered_with_its_error(plateau: float, width: float) -> None:
    pulls = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        magnitude = rng.uniform(17.0, 22.0, 300)
        share = completeness_at(magnitude, magnitude_50=20.3, plateau=plateau, width=width)
        fit = fit_completeness(magnitude, rng.random(300) < share)
        pulls.append((fit.magnitude_50 - 20.3) / fit.magnitude_50_err)
        assert fit.magnitude_50 == pytest.approx(20.3, abs=0.35)
    assert np.std(pulls) == pytest.approx(1.0, abs=0.4)
    assert abs(np.mean(pulls)) < 0.6


@pytest.mark.parametrize("is_found", [np.ones(50, bool), np.zeros(50, bool), np.arange(50) < 2])
def test_completeness_is_unknown_where_all_or_none_are_found(is_found) -> None:
    assert np.isnan(fit_completeness(np.linspace(17, 21, 50), is_found).magnitude_50)


def test_report_shows_completeness() -> None:
    counts = {"n": 10, "n_source": 9, "n_differenced": 8, "n_candidate": 0, "n_alert": 0}
    row = {"mag_low": 19.0, "mag_high": 19.5, **counts}
    figures = {"magnitude_50": 20.0, "plateau": 1.0, "flux_bias": 0.001, "pull_median": 0.1, "pull_sigma": 1.1}
    unknown = dict.fromkeys((*figures, "alert_magnitude_50"))
    found = {"bins": [row], "n_images": 1, "limiting_mag": 20.05, "source": figures, "difference": unknown}
    pooled = {"n_images": 1, "n_injected": 10, "filters": {"r": found}}
    assert "half found at 20.00 (computed 5-sigma limit 20.05)" in injection_lines(pooled)[1]
    assert len(injection_lines(pooled)) == 2
    on_difference = pooled | {
        "filters": {"r, put into the difference": found | {"source": unknown, "difference": figures}}
    }
    assert injection_lines(on_difference)[1].startswith("  r, put into the difference: half found")
    assert injections(pooled).startswith(b"\x89PNG")
    assert injection_lines({}) == []
