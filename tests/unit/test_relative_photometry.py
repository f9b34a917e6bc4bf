"""A night's exposures on one scale: zero points and slopes come back, variables and bad rows do not matter."""

import numpy as np
import pytest

from gueststar.algorithms.photocal.relative import Measurements, RelativeConfig, solve_relative
from gueststar.core.bits import SourceFlag
from gueststar.core.errors import DataError
from gueststar.formats.calibration_table import read_calibration_table, write_calibration_table
from gueststar.model.catalog import Catalog
from gueststar.operations.report.repeatability import repeatability, repeatability_lines
from gueststar.pipelines.calibration.relative_photometry import (
    CalibrateRelative,
    RelativeExposure,
    RelativePhotometryConfig,
)
from gueststar.store.ledger import Job, JobState

SHAPE = (1000, 1200)
N_IMAGES, N_STARS = 12, 150


def night(
    rng: np.random.Generator, *, seen: float = 0.8, variables: int = 15, bad_rows: float = 0.02, tilt: float = 0.0,
    floor: float = 0.0,
) -> tuple[Measurements, np.ndarray, np.ndarray]:  # fmt: skip
    """Return measurements, the exposures' true offsets and tilts (mag from side to side)."""
    offset = rng.normal(0.0, 0.05, N_IMAGES)
    tilts = rng.normal(0.0, tilt, N_IMAGES) if tilt else np.zeros(N_IMAGES)
    image, star = (g.ravel() for g in np.meshgrid(np.arange(N_IMAGES), np.arange(N_STARS), indexing="ij"))
    kept = rng.random(image.size) < seen
    image, star = image[kept], star[kept]
    magnitude = rng.uniform(14.0, 18.0, N_STARS)
    x = rng.uniform(0, SHAPE[1], N_STARS)[star] + rng.normal(0, 5, star.size)
    y = rng.uniform(0, SHAPE[0], N_STARS)[star] + rng.normal(0, 5, star.size)
    error = 0.002 + 0.01 * 10 ** (0.4 * (magnitude[star] - 18.0))
    seen_mag = magnitude[star] + offset[image] + tilts[image] * (x / SHAPE[1] - 0.5)
    seen_mag += rng.normal(0.0, np.hypot(error, floor))
    seen_mag += np.where(star < variables, rng.normal(0.0, 0.2, star.size), 0.0)
    seen_mag += np.where(rng.random(star.size) < bad_rows, rng.uniform(-1.0, 1.0, star.size), 0.0)
    return Measurements(image, star, x, y, seen_mag, error), offset, tilts


def solve(rows: Measurements, **config: object):
    return solve_relative(rows, n_images=N_IMAGES, n_stars=N_STARS, shape=SHAPE, config=RelativeConfig(**config))


def test_offsets_come_back_with_honest_errors() -> None:
    pulls = []
    for seed in range(25):
        rows, offset, _ = night(np.random.default_rng(seed))
        found = solve(rows)
        assert found.order == 0
        off = found.offset - offset - np.mean(found.offset - offset)
        pulls.append(off / found.offset_err)
        assert np.std(off) < 0.001
    assert np.std(pulls) == pytest.approx(1.0, abs=0.25)


def test_variable_stars_take_no_part_and_constant_ones_do() -> None:
    rows, _, _ = night(np.random.default_rng(1))
    found = solve(rows)
    assert found.is_comparison[:15].sum() <= 2
    assert found.is_comparison[15:].mean() > 0.97
    assert np.median(found.rms[:15]) > 0.1


def test_scatter_that_the_errors_leave_out_is_found() -> None:
    rows, _, _ = night(np.random.default_rng(2), floor=0.008, variables=0, bad_rows=0.0)
    assert solve(rows).floor == pytest.approx(0.008, abs=0.001)
    bright = np.argsort(solve(rows).mean)[:30]
    assert np.median(solve(rows).rms[bright]) == pytest.approx(0.0083, abs=0.0012)


def test_a_changing_slope_over_the_detector_is_found_and_taken_out() -> None:
    rows, _, tilts = night(np.random.default_rng(3), tilt=0.05)
    found = solve(rows)
    assert found.order == 1
    slopes = 2.0 * found.coefficients[:, 0]
    assert np.std(slopes - tilts - np.mean(slopes - tilts)) < 0.003
    corrected = rows.magnitude - found.correction(rows, SHAPE)
    constant = (rows.star >= 15) & (np.abs(corrected - found.mean[rows.star]) < 0.1)
    pull = (corrected - found.mean[rows.star])[constant] / rows.error[constant]
    assert np.std(pull) == pytest.approx(1.0, abs=0.1)
    assert solve(rows, spatial_order=0).floor > 0.005


def test_exposures_that_share_no_star_keep_their_own_zero_points() -> None:
    """Two fields of a night: within each the offsets are relative, between them nothing is known."""
    rows, offset, _ = night(np.random.default_rng(4), variables=0, bad_rows=0.0)
    first = rows.image < 6
    apart = (first & (rows.star < 75)) | (~first & (rows.star >= 75))
    found = solve(rows.select(apart))
    for part in (slice(0, 6), slice(6, 12)):
        off = found.offset[part] - offset[part]
        assert np.std(off) < 0.002
        assert abs(np.mean(found.offset[part])) < 0.005


def exposures(rng: np.random.Generator, n: int = 5) -> list[RelativeExposure]:
    ra, dec, mag = rng.uniform(10, 10.2, 60), rng.uniform(-5, -4.8, 60), rng.uniform(15, 17, 60)
    found = []
    for k in range(n):
        flux = 10 ** (0.4 * (31.4 - mag - 0.03 * k)) * (1 + rng.normal(0, 0.002, 60))
        columns = {
            "ra": ra + rng.normal(0, 2e-5, 60), "dec": dec + rng.normal(0, 2e-5, 60), "x": rng.uniform(0, 1200, 60),
            "y": rng.uniform(0, 1000, 60), "ap_flux_3": flux, "ap_flux_err_3": 0.002 * flux,
            "flags": np.where(np.arange(60) == 7, int(SourceFlag.SATURATED), 0),
        }  # fmt: skip
        found.append(RelativeExposure(100 + k, 60000.0 + 0.01 * k, Catalog(columns)))
    return found


def test_the_nights_product_tells_exposures_and_stars_and_survives_its_file(tmp_path) -> None:
    made = CalibrateRelative().run(exposures(np.random.default_rng(5)), detector_id=3, shape=SHAPE, physical_filter="r")
    write_calibration_table(tmp_path / "relative.fits", made)
    back = read_calibration_table(tmp_path / "relative.fits")
    steps = np.diff(back.column("exposures", "offset"))
    assert steps == pytest.approx(0.03, abs=0.002)
    assert back.tables["exposures"]["visit"].tolist() == [100, 101, 102, 103, 104]
    assert back.tables["stars"]["ra"].size == 59
    assert back.metadata["repeatability_bright_mag"] == pytest.approx(0.002, abs=0.001)
    assert back.kind == "relative_photometry"
    assert back.physical_filter == "r"


def test_too_few_exposures_or_stars_are_refused_with_figures() -> None:
    few = exposures(np.random.default_rng(6), n=2)
    with pytest.raises(DataError, match="2 exposures cannot be compared, 3 are needed"):
        CalibrateRelative().run(few, detector_id=3, shape=SHAPE, physical_filter="r")
    more = exposures(np.random.default_rng(6))
    with pytest.raises(DataError, match="59 stars are on more than one exposure, 100 are needed"):
        CalibrateRelative(RelativePhotometryConfig(min_stars=100)).run(
            more, detector_id=3, shape=SHAPE, physical_filter="r"
        )


def learned(metrics: dict[str, float], *, kind: str = "relative_photometry", glass: str = "r") -> Job:
    return Job(
        1, "learning", {"kind": kind, "filter": glass}, None, 0, 20230225, JobState.DONE, 1, 3, "", "", "", metrics, {},
        None, "", 0.0, 0.0, 1.0, 0.1, 100.0,
    )  # fmt: skip


def test_the_report_tells_how_stars_repeat_filter_by_filter() -> None:
    figures = {
        "repeatability_bright_mag": 0.002,
        "repeatability_mag": 0.008,
        "offset_rms_mag": 0.01,
        "floor_mag": 0.001,
    }
    jobs = [
        learned(figures | {"n_frames": 16}),
        learned(figures | {"n_frames": 12, "repeatability_bright_mag": 0.004}),
        learned({"nothing_made": "2 exposures cannot be compared"}, glass="g"),
        learned({"n_frames": 5}, kind="distortion"),
    ]
    rows = repeatability(jobs)
    assert [row["filter"] for row in rows] == ["r"]
    assert repeatability_lines(rows) == [
        "r: the brightest stars repeat to 3.0 mmag, all to 8.0, once 16 exposures are tied together"
        " (2 detectors; zero points moved by 10.0 mmag)"
    ]
    assert repeatability([]) == []
