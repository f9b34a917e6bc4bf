"""Nights like the training rows are calm; a night whose detections changed is told apart, feature by feature."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ks_2samp

from gueststar.algorithms.vetting.drift import (
    bin_counts,
    bin_edges,
    chance_of_distance,
    kolmogorov_smirnov,
    population_stability,
)
from gueststar.formats.reliability_model import default_reliability_model
from gueststar.model.metrics import Grade
from gueststar.operations.report.drift import compare_nights, drift_lines

MODEL = replace(
    default_reliability_model(),
    training={
        "distribution": {
            "names": ["elongation", "reliability"],
            "edges": [[1.0, 2.0], [0.1, 0.5, 0.9]],
            "counts": [[500, 300, 150, 50], [600, 100, 100, 200, 0]],
        }
    },
)


def metrics(rng: np.random.Generator, n: int, *, shape: tuple[float, ...], score: tuple[float, ...]) -> dict:
    counts = [rng.multinomial(n, shape).tolist(), [*rng.multinomial(n, score).tolist(), 0]]
    n_reliable = counts[1][2] + counts[1][3]
    return {"vetting": {"version": MODEL.version, "counts": counts, "n_reliable": n_reliable}}


ALIKE = {"shape": (0.5, 0.3, 0.15, 0.05), "score": (0.6, 0.1, 0.1, 0.2)}
OTHER = {"shape": (0.1, 0.2, 0.65, 0.05), "score": (0.6, 0.1, 0.1, 0.2)}


def test_bins_hold_equal_counts_and_missing_values_are_counted_apart() -> None:
    rng = np.random.default_rng(1)
    values = np.column_stack([rng.normal(size=10_000), rng.random(10_000) < 0.3])
    values[:500, 0] = np.nan
    edges = bin_edges(values)
    counts = bin_counts(values, edges)
    assert counts[0][-1] == 500
    np.testing.assert_allclose(counts[0][:-1], 950, atol=2)
    assert len(counts[1]) == 3  # no, yes, missing
    assert all(count.sum() == 10_000 for count in counts)


def test_distance_is_that_of_an_independent_code_at_the_edges() -> None:
    rng = np.random.default_rng(2)
    one, other = rng.normal(0.0, 1.0, 4000), rng.normal(0.4, 1.0, 5000)
    edges = bin_edges(one[:, None], n_bins=200)
    counts = [bin_counts(sample[:, None], edges)[0] for sample in (one, other)]
    found, expected = kolmogorov_smirnov(*counts), ks_2samp(one, other)
    assert found == pytest.approx(expected.statistic, abs=0.01)
    assert chance_of_distance(found, 4000, 5000) < 1e-6
    assert chance_of_distance(0.01, 4000, 5000) > 0.5
    assert np.isnan(kolmogorov_smirnov(counts[0], np.zeros_like(counts[0])))


def test_stability_is_small_for_chance_and_large_for_a_shift() -> None:
    rng = np.random.default_rng(3)
    expected = rng.multinomial(30_000, np.full(10, 0.1))
    assert population_stability(rng.multinomial(2000, np.full(10, 0.1)), expected) < 0.02
    moved = rng.multinomial(2000, np.linspace(0.01, 0.19, 10))
    assert population_stability(moved, expected) > 0.25
    assert population_stability(moved, expected) == pytest.approx(population_stability(expected, moved), rel=0.05)


def test_a_night_like_the_training_rows_is_good_and_one_of_long_shapes_is_poor() -> None:
    rng = np.random.default_rng(4)
    calm = compare_nights(MODEL, [metrics(rng, 600, **ALIKE) for _ in range(3)], [])
    assert calm is not None
    assert calm.n_detections == 1800
    assert {shift.grade for shift in calm.shifts} == {Grade.GOOD}
    assert calm.passing == pytest.approx(0.3, abs=0.04)
    moved = compare_nights(MODEL, [metrics(rng, 600, **OTHER)], [])
    assert moved is not None
    grades = {shift.name: shift.grade for shift in moved.shifts}
    assert grades == {"elongation": Grade.POOR, "reliability": Grade.GOOD}
    assert moved.worst()[0].name == "elongation"
    assert "elongation" in "\n".join(drift_lines(moved))


def test_a_survey_unlike_the_training_rows_is_judged_by_its_own_earlier_nights() -> None:
    rng = np.random.default_rng(5)
    earlier = [metrics(rng, 500, **OTHER) for _ in range(4)]
    same = compare_nights(MODEL, [metrics(rng, 800, **OTHER)], earlier)
    assert same is not None
    assert same.shifts[0].psi_training > 0.25 > 0.1 > same.shifts[0].psi_before
    assert same.shifts[0].grade is Grade.GOOD


def test_few_detections_and_another_model_say_nothing() -> None:
    rng = np.random.default_rng(6)
    few = compare_nights(MODEL, [metrics(rng, 50, **OTHER)], [])
    assert few is not None
    assert {shift.grade for shift in few.shifts} == {Grade.UNKNOWN}
    foreign = metrics(rng, 500, **ALIKE)
    foreign["vetting"]["version"] = "another"
    assert compare_nights(MODEL, [foreign], []) is None
    assert compare_nights(MODEL, [{"vetting": {"version": "given"}}], []) is None
    assert drift_lines(None) == []


def test_scores_of_artificial_sources_are_told_beside_those_of_earlier_nights() -> None:
    rng = np.random.default_rng(7)
    night = [metrics(rng, 500, **ALIKE)]
    put_in = {"n": 100, "n_likely": 80, "edges": [0.1, 0.5, 0.9], "counts": [10, 10, 10, 70, 0]}
    drift = compare_nights(MODEL, [*night, {"injected_scores": put_in}], [{"injected_scores": put_in | {"n": 160}}])
    assert drift is not None
    assert drift.injected is not None
    assert drift.injected.likely == pytest.approx(0.8)
    assert drift.injected.likely_before == pytest.approx(0.5)
    assert drift.injected.median_bin == (0.9, 1.0)
    assert "80.0%" in drift_lines(drift)[-1]
    json.dumps([vars(shift) for shift in drift.shifts])
