"""The score of streaks: what speaks for and against one."""

from __future__ import annotations

import numpy as np
import pytest

from gueststar.algorithms.streaks.features import StreakFeatures
from gueststar.algorithms.streaks.vet import DEFAULT_MODEL, TERMS, fit_model, score, terms_of

CLEAN = StreakFeatures(
    snr=12.0, length_fwhm=15.0, evenness=0.98, flux_scatter=0.0, flux_scatter_snr=-0.5, residual=0.0, broadening=0.0,
    broadening_err=0.3, beside=0.15, noise=1.0, masked=0.0, mismatch=0.0, reference=0.05, axis_offset=10.0,
    bend=0.1, step=0.05,
)  # fmt: skip


def test_a_clean_streak_is_likely() -> None:
    assert score(CLEAN, DEFAULT_MODEL) > 0.9


@pytest.mark.parametrize(
    "fault",
    [
        {"evenness": 0.45, "flux_scatter": 1.0, "flux_scatter_snr": 20.0},  # two stars
        {"flux_scatter": 1.5, "flux_scatter_snr": 30.0},
        {"reference": 20.0},  # an edge-on galaxy
        {"bend": 1.2},  # an arc
        {"step": 1.9},  # an edge
        {"axis_offset": 0.0, "broadening": -2.0, "evenness": 0.7},  # a column
    ],
)
def test_what_is_no_streak_is_unlikely(fault: dict[str, float]) -> None:
    assert score(CLEAN._replace(**fault), DEFAULT_MODEL) < 0.5


@pytest.mark.parametrize("name", ["evenness", "flux_scatter", "residual", "masked", "reference"])
def test_faults_never_speak_for_a_streak(name: str) -> None:
    worse = {"evenness": 0.6, "flux_scatter": 0.5, "residual": 0.8, "masked": 0.4, "reference": 3.0}[name]
    changed = CLEAN._replace(**{name: worse, "flux_scatter_snr": 5.0})
    assert score(changed, DEFAULT_MODEL) < score(CLEAN, DEFAULT_MODEL)


def test_a_fitted_model_tells_the_examples_apart_and_keeps_the_signs() -> None:
    random = np.random.default_rng(1)
    real = [
        CLEAN._replace(snr=s, evenness=e)
        for s, e in zip(random.uniform(7, 60, 80), random.normal(0.95, 0.08, 80), strict=True)
    ]
    false = [
        CLEAN._replace(snr=s, evenness=e, flux_scatter=0.9, flux_scatter_snr=12.0)
        for s, e in zip(random.uniform(7, 60, 80), random.normal(0.5, 0.05, 80), strict=True)
    ]
    rows = [[terms_of(f)[name] for name in TERMS] for f in real + false]
    model = fit_model(rows, [True] * 80 + [False] * 80, version="test")
    assert np.mean([score(f, model) > 0.5 for f in real]) > 0.97
    assert np.mean([score(f, model) < 0.5 for f in false]) > 0.97
    assert all((weight >= 0) == (name in ("snr", "length")) or weight == 0 for name, weight in model.weights.items())
