"""The reliability score learns, is calibrated, and knows no camera."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gueststar.algorithms.vetting.boosted_trees import BoostingConfig, fit_trees, log_odds
from gueststar.algorithms.vetting.calibration import calibrated, fit_calibration, reliability_diagram
from gueststar.algorithms.vetting.features import FEATURE_NAMES, measure_features, pixel_scale, psf_width
from gueststar.algorithms.vetting.score import blended
from gueststar.core.errors import ConfigError, DataError
from gueststar.formats.labelled_detections import read_labelled, write_labelled
from gueststar.formats.reliability_model import (
    default_reliability_model,
    read_reliability_model,
    write_reliability_model,
)
from gueststar.model.catalog import Catalog
from gueststar.model.columns import DIA_SOURCE
from gueststar.model.labels import LABELLED_SOURCE, DetectionKind, LabelledDetections
from gueststar.pipelines.difference.train import (
    TrainingConfig,
    TrainReliability,
    measure_reliability,
)
from gueststar.pipelines.difference.vet import VetCandidates

QUICK = TrainingConfig(boosting=BoostingConfig(n_trees=30, depth=3))


def detections(
    rng: np.random.Generator, n: int, *, scale: float = 1.0, psf_fwhm: float = 2.2, njy: float = 1.0
) -> Catalog:
    """Measure point sources (is_real) and one-pixel spikes on a camera of some pixel scale, sampling and depth."""
    is_real = rng.random(n) < 0.4
    snr = np.exp(rng.uniform(np.log(5), np.log(80), n))
    error = 900.0 * njy
    width = np.where(is_real, 1.0 + rng.normal(0, 0.6, n) / snr, 0.45 + rng.normal(0, 1.0, n) / snr) * psf_fwhm
    values = {column.name: np.zeros(n, dtype=column.dtype) for column in DIA_SOURCE.columns}
    excess = (width**2 - psf_fwhm**2) / 2.3548**2
    values |= {
        "dia_source_id": np.arange(n) + 1, "visit": np.arange(n) // 50 + 1, "detector": np.ones(n),
        "x": rng.uniform(0, 1000, n), "y": rng.uniform(0, 1000, n), "x_err": np.full(n, 0.1), "y_err": np.full(n, 0.12),
        "ra_err": np.full(n, 0.1 * scale), "dec_err": np.full(n, 0.12 * scale), "snr": snr,
        "is_positive": np.ones(n, bool),
        "psf_flux": snr * error, "psf_flux_err": np.full(n, error),
        "chi2": np.where(is_real, 1.0, 1.0 + (0.2 * snr) ** 2 / 25),
        "fwhm": width, "sharpness": np.sign(excess) * np.sqrt(np.abs(excess)),
        "a_image": width, "b_image": width * 0.95,
        "ap_flux": snr * error * np.where(is_real, 1.0, 0.6), "reference_distance": rng.uniform(0, 15, n) * scale,
        "reference_mag": 31.4 - 2.5 * np.log10(3e4 * njy) + np.zeros(n), "edge_distance": np.full(n, 400.0),
        "science_flux": snr * error * 1.5, "science_flux_err": np.full(n, error),
        "bright_distance": np.full(n, np.nan), "bright_mag": np.full(n, np.nan),
        "sum_ratio": np.where(is_real, 0.95, 0.7),
        "plain_flux": snr * error * np.where(is_real, 1.0, 0.8),
        "surrounding_rms": np.ones(n), "pixel_excess": np.where(is_real, 0.0, 1.0) + rng.normal(0, 2.0, n) / snr,
    }  # fmt: skip
    return LABELLED_SOURCE.catalog({name: np.asarray(v) for name, v in values.items()} | {"is_real": is_real})


def test_features_are_the_same_on_a_camera_of_other_pixels_units_and_depth() -> None:
    one = detections(np.random.default_rng(1), 60)
    other = detections(np.random.default_rng(1), 60, scale=4.0, njy=250.0)
    np.testing.assert_allclose(measure_features(one), measure_features(other), rtol=2e-5, atol=2e-5)
    assert psf_width(one) == pytest.approx(2.2, rel=1e-4)
    assert pixel_scale(other) == pytest.approx(4.0, rel=1e-5)
    assert measure_features(one).shape == (60, len(FEATURE_NAMES))


def test_features_of_nothing_and_of_unmeasurable_things_are_well_behaved() -> None:
    assert measure_features(DIA_SOURCE.empty()).shape == (0, len(FEATURE_NAMES))
    rows = detections(np.random.default_rng(2), 5)
    broken = rows.replace(
        **{name: np.full(5, np.nan) for name in ("fwhm", "sharpness", "chi2", "ap_flux", "dipole_separation")}
    )
    assert not np.isinf(measure_features(broken)).any()
    scores = VetCandidates().run(DIA_SOURCE.catalog({c.name: broken[c.name] for c in DIA_SOURCE.columns})).dia_sources
    assert np.all((scores["reliability"] >= 0) & (scores["reliability"] <= 1))


def test_trees_learn_what_no_straight_line_tells_and_use_missing_values() -> None:
    rng = np.random.default_rng(3)
    features = rng.normal(size=(3000, 6))
    features[rng.random((3000, 6)) < 0.1] = np.nan
    labels = (np.nan_to_num(features[:, 0]) * np.nan_to_num(features[:, 1]) > 0) ^ np.isnan(features[:, 2])
    trees = fit_trees(features[:2000], labels[:2000], config=BoostingConfig(n_trees=80))
    assert np.mean((log_odds(trees, features[2000:]) > 0) == labels[2000:]) > 0.93
    again = fit_trees(features[:2000], labels[:2000], config=BoostingConfig(n_trees=80))
    np.testing.assert_array_equal(trees.value, again.value)


def test_the_log_odds_of_blended_models_are_the_mean_of_theirs() -> None:
    one, other = (
        TrainReliability(QUICK).run(LabelledDetections(detections(np.random.default_rng(seed), 600)))
        for seed in (11, 12)
    )
    both = blended(one, other)
    features = measure_features(detections(np.random.default_rng(13), 50))
    mean = 0.5 * (log_odds(one.trees, features) + log_odds(other.trees, features))
    np.testing.assert_allclose(log_odds(both.trees, features), mean)
    assert both.version not in (one.version, other.version)
    assert set(both.training["blended"]) == {one.version, other.version}


def test_calibrated_scores_come_true() -> None:
    rng = np.random.default_rng(4)
    truth = rng.uniform(-4, 4, 60_000)
    labels = rng.random(60_000) < 1 / (1 + np.exp(-truth))
    overconfident = 2.5 * truth + 1.0
    curve = fit_calibration(overconfident[:10_000], labels[:10_000])
    scores = calibrated(curve, overconfident[10_000:])
    diagram = reliability_diagram(scores, labels[10_000:])
    np.testing.assert_allclose(diagram.fraction_real, diagram.score, atol=0.05)
    beyond = calibrated(curve, np.array([-1e3, 1e3]))
    assert 0.0 <= beyond[0] < 0.01 < 0.99 < beyond[1] <= 1.0
    assert np.all(np.diff(calibrated(curve, np.linspace(-20, 20, 500))) >= 0)


def test_a_model_trained_on_one_camera_serves_another(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    rows = detections(rng, 1500)
    write_labelled(tmp_path / "rows.parquet", LabelledDetections(rows))
    model = TrainReliability(QUICK).run(read_labelled(tmp_path / "rows.parquet"))
    write_reliability_model(tmp_path / "model.json", model)
    again = read_reliability_model(tmp_path / "model.json")
    other = detections(rng, 500, scale=0.26, psf_fwhm=4.0, njy=0.05)
    dia_sources = DIA_SOURCE.catalog({c.name: other[c.name] for c in DIA_SOURCE.columns})
    vetted = VetCandidates(model=again).run(dia_sources)
    assert np.mean((vetted.dia_sources["reliability"] > 0.5) == other["is_real"]) > 0.95
    assert vetted.metrics["version"] == model.version
    assert model.training["held_out"]["area_under_curve"] > 0.97


def test_a_model_is_judged_on_rows_that_it_never_saw_by_what_it_misses_at_each_brightness() -> None:
    model = TrainReliability(QUICK).run(LabelledDetections(detections(np.random.default_rng(7), 1500)))
    found = measure_reliability(model, LabelledDetections(detections(np.random.default_rng(8), 800)))
    missed = found["missed_at_1_percent"]
    brightness = [part for part in missed.values() if isinstance(part, dict)]
    assert sum(part["n"] for part in brightness) == found["n_real"]
    assert brightness[-1]["missed"] <= brightness[0]["missed"]
    assert missed["all"] == pytest.approx(sum(p["n"] * p["missed"] for p in brightness) / found["n_real"], abs=1e-3)
    with pytest.raises(DataError, match="artefacts"):
        measure_reliability(
            model, LabelledDetections(detections(np.random.default_rng(9), 50).select(np.zeros(0, int)))
        )


@pytest.mark.parametrize(("counts", "share"), [(1, 0.5), (4, 0.2)])
def test_peaks_of_noise_that_nothing_tells_from_sources_count_as_often_as_skies_have_them(
    counts: int, share: float
) -> None:
    rng = np.random.default_rng(10)
    alike = detections(rng, 5000)
    alike = alike.select(np.flatnonzero(alike["is_real"]))
    is_real = rng.random(alike.n_rows) < 0.5
    rows = alike.replace(is_real=is_real, kind=np.where(is_real, 0, int(DetectionKind.NOISE)))
    model = TrainReliability(replace(QUICK, noise_counts=counts)).run(LabelledDetections(rows))
    score = VetCandidates(model=model).run(DIA_SOURCE.catalog({c.name: rows[c.name] for c in DIA_SOURCE.columns}))
    assert np.median(score.dia_sources["reliability"]) == pytest.approx(share, abs=0.08)
    assert model.training["n_real"] + model.training["n_artefact"] == rows.n_rows


def test_rows_of_one_label_and_foreign_models_are_refused(tmp_path: Path) -> None:
    rows = detections(np.random.default_rng(6), 200)
    with pytest.raises(DataError, match="50 artefacts"):
        TrainReliability(QUICK).run(LabelledDetections(rows.select(rows["is_real"])))
    (tmp_path / "model.json").write_text('{"feature_version": 0, "feature_names": []}')
    with pytest.raises(ConfigError, match="train it again"):
        read_reliability_model(tmp_path / "model.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_reliability_model(tmp_path / "nowhere.json")


def test_the_model_that_ships_says_what_it_was_trained_on() -> None:
    training = default_reliability_model().training
    assert training["n_real"] > 1000
    held_out = training["held_out"]
    assert held_out["area_under_curve"] > 0.95
    assert held_out["at_threshold"]["0.5"]["completeness"] > 0.85
