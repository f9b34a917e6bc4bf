"""The network looks at cut-outs of any camera, learns, is written as ONNX, and its score comes true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gueststar.algorithms.vetting.boosted_trees import BoostingConfig
from gueststar.algorithms.vetting.calibration import expected_calibration_error, fit_stack, logistic
from gueststar.algorithms.vetting.fit_network import NetworkConfig
from gueststar.algorithms.vetting.network import StampNetwork
from gueststar.algorithms.vetting.stamps import StampViews, packed, stamp_views, unpacked
from gueststar.core.errors import ConfigError
from gueststar.formats.labelled_detections import read_labelled, write_labelled
from gueststar.formats.reliability_model import network_path, read_reliability_model, write_reliability_model
from gueststar.model.columns import DIA_SOURCE
from gueststar.model.labels import LABELLED_SOURCE, DetectionKind, LabelledDetections, joined
from gueststar.pipelines.difference.train import TrainingConfig, TrainReliability, measure_reliability

SIDE = 63


def triplets(
    rng: np.random.Generator, n: int, *, fwhm: float, unit: float = 1.0, snr: float = 25.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return stamps of point sources and of single hot pixels, whether each is real, and offsets."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    is_real = rng.random(n) < 0.5
    dx, dy = rng.uniform(-0.5, 0.5, (2, n))
    stamps = rng.normal(0.0, 1.0, (n, 3, SIDE, SIDE))
    sigma = fwhm / 2.3548
    for k in range(n):
        psf = np.exp(-((x - dx[k]) ** 2 + (y - dy[k]) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
        spike = (np.abs(x) + np.abs(y) == 0).astype(float)
        shape = psf if is_real[k] else spike * (psf**2).sum()
        stamps[k, [0, 2]] += snr / np.sqrt((psf**2).sum()) * shape
    return (unit * stamps).astype(np.float32), is_real, dx, dy


def views(stamps: np.ndarray, dx: np.ndarray, dy: np.ndarray, *, fwhm: float, positive: bool = True) -> StampViews:
    return stamp_views(stamps, dx=dx, dy=dy, fwhm=fwhm, is_positive=np.full(len(stamps), positive))


def labelled(seed: int, n: int, *, fwhm: float = 3.0, first_visit: int = 1) -> LabelledDetections:
    stamps, is_real, dx, dy = triplets(np.random.default_rng(seed), n, fwhm=fwhm)
    values = {column.name: np.ones(n, dtype=column.dtype) for column in DIA_SOURCE.columns}
    values |= {"visit": first_visit + np.arange(n) // 20, "snr": np.full(n, 25.0)}
    kind = np.where(is_real, int(DetectionKind.TRANSIENT), int(DetectionKind.BAD_PIXEL))
    rows = LABELLED_SOURCE.catalog(values | {"is_real": is_real, "kind": kind})
    return LabelledDetections(rows, views(stamps, dx, dy, fwhm=fwhm))


QUICK = TrainingConfig(
    boosting=BoostingConfig(n_trees=3, depth=2), network=NetworkConfig(n_epochs=6, batch=64, channels=(8, 8, 8))
)


@pytest.fixture(scope="module")
def model():  # type: ignore[no-untyped-def]
    pytest.importorskip("jax")
    return TrainReliability(QUICK).run(labelled(1, 700))


def test_views_do_not_know_the_unit_of_the_pixels() -> None:
    one, _, dx, dy = triplets(np.random.default_rng(1), 5, fwhm=3.0)
    for mine, other in zip(views(one, dx, dy, fwhm=3.0), views(250.0 * one + 40.0, dx, dy, fwhm=3.0), strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-3)


def test_a_point_source_looks_the_same_in_the_wide_view_whatever_the_seeing() -> None:
    shown = []
    for fwhm in (2.0, 4.0, 6.0):
        y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
        noise = np.random.default_rng(2).normal(0.0, 1.0, (1, 3, SIDE, SIDE))
        psf = np.exp(-((x - 0.3) ** 2 + (y + 0.2) ** 2) / (2 * (fwhm / 2.3548) ** 2))
        seen = views((noise + 3000.0 * psf).astype(np.float32), np.array([0.3]), np.array([-0.2]), fwhm=fwhm)
        peak = seen.wide[0, 2]
        assert np.unravel_index(np.argmax(peak), peak.shape) == (10, 10)
        profile = np.sinh(3.0 * peak[10, 8:13])
        shown.append(profile / profile.max())
    np.testing.assert_allclose(shown[1], shown[2], atol=0.05)
    np.testing.assert_allclose(shown[0], shown[2], atol=0.15)  # interpolated from two pixels a FWHM


def test_a_fading_source_is_seen_as_a_brightening_with_science_and_reference_exchanged() -> None:
    stamps, _, dx, dy = triplets(np.random.default_rng(3), 4, fwhm=3.0)
    faded = np.stack([stamps[:, 1], stamps[:, 0], -stamps[:, 2]], axis=1)
    rising, fading = views(stamps, dx, dy, fwhm=3.0), views(faded, dx, dy, fwhm=3.0, positive=False)
    np.testing.assert_allclose(rising.near, fading.near, atol=1e-6)
    np.testing.assert_allclose(rising.wide, fading.wide, atol=1e-6)
    assert rising.facts[0, 1] == 1.0
    assert fading.facts[0, 1] == 0.0


def test_pixels_without_data_are_marked_and_stamps_of_nothing_do_no_harm() -> None:
    stamps, _, dx, dy = triplets(np.random.default_rng(4), 2, fwhm=3.0)
    stamps[0, :, :, :30] = np.nan
    stamps[1] = np.nan
    seen = views(stamps, dx, dy, fwhm=float("nan"))
    assert all(np.isfinite(part).all() for part in seen)
    assert seen.near[0, 3].mean() == pytest.approx(6 / 15)
    assert seen.wide[1, 3].all()
    assert not seen.wide[1, :3].any()
    assert views(stamps[:0], dx[:0], dy[:0], fwhm=3.0).n == 0


def test_stored_views_come_back_and_are_kept_with_their_rows(tmp_path: Path) -> None:
    whole = joined([labelled(5, 30), labelled(6, 20, first_visit=50)])
    write_labelled(tmp_path / "rows.parquet", whole)
    again = read_labelled(tmp_path / "rows.parquet")
    assert again.views is not None
    assert again.rows["kind"].tolist() == whole.rows["kind"].tolist()
    for mine, other in zip(again.views, unpacked(packed(whole.views)), strict=True):  # type: ignore[arg-type]
        np.testing.assert_array_equal(mine, other)
    bare = joined([again, LabelledDetections(again.rows)])
    assert bare.views is None
    assert bare.rows.n_rows == 100


def test_a_network_trained_in_one_seeing_tells_stars_from_hot_pixels_in_another(model) -> None:  # type: ignore[no-untyped-def]
    found = measure_reliability(model, labelled(7, 300, fwhm=4.2, first_visit=900))
    assert found["area_under_curve"] > 0.97
    assert found["stamps_alone"]["area_under_curve"] > 0.97
    assert found["features_alone"]["area_under_curve"] == pytest.approx(0.5)
    assert found["by_kind"]["transient"]["median"] > 0.5 > found["by_kind"]["bad pixel"]["median"]
    assert found["calibration_error"] < 0.15


def test_the_card_counts_the_scores_of_rows_that_the_network_had_not_seen_only(model) -> None:  # type: ignore[no-untyped-def]
    distribution = model.training["distribution"]
    counts = dict(zip(distribution["names"], distribution["counts"], strict=True))
    assert sum(counts["log_snr"]) == 700
    assert sum(counts["reliability"]) == sum(counts["stamp_reliability"]) == 140
    assert counts["reliability"][-1] == counts["stamp_reliability"][-1] == 0


def test_a_model_is_written_with_its_network_and_refused_with_another(model, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write_reliability_model(tmp_path / "model.json", model)
    again = read_reliability_model(tmp_path / "model.json")
    assert again.network_version == model.network_version
    rows = labelled(8, 40)
    np.testing.assert_array_equal(
        again.network.network.log_odds(rows.views), model.network.network.log_odds(rows.views)
    )
    network_path(tmp_path / "model.json").write_bytes(b"another")
    with pytest.raises(ConfigError, match="another one"):
        read_reliability_model(tmp_path / "model.json")
    network_path(tmp_path / "model.json").unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_reliability_model(tmp_path / "model.json")


def test_scores_do_not_depend_on_the_company_in_a_batch(model) -> None:  # type: ignore[no-untyped-def]
    seen = labelled(9, 300).views
    network: StampNetwork = model.network.network
    together = network.log_odds(seen)
    alone = np.concatenate([network.log_odds(seen.select(np.array([k]))) for k in range(20)])
    np.testing.assert_allclose(alone, together[:20], atol=1e-4)


def test_stacked_scores_come_true_and_a_useless_classifier_gets_no_say() -> None:
    rng = np.random.default_rng(10)
    signal = rng.normal(0.0, 2.0, (2, 40_000))
    labels = rng.random(40_000) < logistic(signal.sum(axis=0))
    stack = fit_stack(3.0 * signal[0], 0.5 * signal[1] + 1.0, labels)
    score = logistic(stack.log_odds(3.0 * signal[0], 0.5 * signal[1] + 1.0))
    assert expected_calibration_error(score, labels) < 0.02
    contrary = fit_stack(signal[0], -signal[0] - 0.1 * signal[1], labels)
    assert min(contrary.features, contrary.stamps) == 0.0
