from dataclasses import replace
from pathlib import Path

import pytest

from gueststar.core.errors import ConfigError, DataError, MissingInput
from gueststar.model.exposure import ExposureInfo
from gueststar.model.rights import Program
from gueststar.operations.report.account import Fate, account_of
from gueststar.pipelines.engine.outcome import Result, attempt
from gueststar.store.ledger import Ledger

NIGHT = 20250327
SCIENCE = ExposureInfo("simcam", "science", 60762.1, 30.0, NIGHT, Program.PUBLIC, "r", "r", 150.0, 2.0, field=1)
BIAS = ExposureInfo("simcam", "bias", 60761.9, 0.0, NIGHT, Program.ENGINEERING)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    made.add_exposure(SCIENCE, detectors=[0, 1, 2])
    made.add_exposure(BIAS, detectors=[0])
    return made


def submit(ledger: Ledger, kind: str, detector: int) -> int:
    number = SCIENCE.exposure_id
    job = ledger.submit(
        kind, {"exposure": number, "detector": detector}, exposure_id=number, detector=detector, day_obs=NIGHT
    )
    ledger.start(job)
    return job


def test_what_no_job_speaks_of_is_unexplained(ledger: Ledger) -> None:
    account = account_of(ledger, NIGHT)
    assert account.count(Fate.UNEXPLAINED) == len(account.units) == 4
    assert not account.is_balanced


def test_the_furthest_stage_decides_the_fate_of_each_detector(ledger: Ledger) -> None:
    ledger.finish(submit(ledger, "science", 0), {"fwhm_arcsec": 2.0}, cpu_s=1.0)
    ledger.hold(submit(ledger, "difference", 0), "no reference yet")
    ledger.fail(submit(ledger, "science", 1), "no star for the PSF", "DataError")
    ledger.finish(submit(ledger, "science", 2), {"zero_point": 26.0}, cpu_s=1.5)
    ledger.finish(submit(ledger, "difference", 2), {"n_candidates": 7}, cpu_s=2.0)
    ledger.finish(submit(ledger, "association", 2), {"n_alerts": 3}, cpu_s=0.5)
    units = {(u.exposure.info.observation_type, u.detector): u for u in account_of(ledger, NIGHT).units}
    assert (units["science", 0].fate, units["science", 0].reason) == (Fate.HELD, "no reference yet")
    assert (units["science", 1].fate, units["science", 1].reason) == (Fate.FAILED, "no star for the PSF")
    assert units["science", 2].fate is Fate.PROCESSED
    assert units["science", 2].metrics["cpu_s"] == pytest.approx(4.0)
    assert {"zero_point", "n_candidates", "n_alerts"} <= set(units["science", 2].metrics)


def test_a_calibration_frame_shares_the_fate_of_its_master(ledger: Ledger) -> None:
    key = {"kind": "bias", "night": NIGHT, "detector": 0, "filter": None, "frames": [BIAS.exposure_id]}
    job = ledger.submit("calibration", key, detector=0, day_obs=NIGHT)
    ledger.start(job)
    ledger.hold(job, "1 bias frames, 3 are needed")
    unit = next(u for u in account_of(ledger, NIGHT).units if u.exposure.info.observation_type == "bias")
    assert unit.fate is Fate.HELD
    assert "3 are needed" in unit.reason


def test_exposures_of_other_nights_are_not_counted(ledger: Ledger) -> None:
    ledger.add_exposure(replace(SCIENCE, mjd_start=60770.1, day_obs=20250404), detectors=[0])
    assert len(account_of(ledger, NIGHT).units) == 4


@pytest.mark.parametrize(
    ("error", "state", "kind"),
    [
        (MissingInput("no catalog"), "held", ""),
        (DataError("bad pixels"), "failed", "DataError"),
        (OSError("disk full"), "failed", "TransientError"),
        (ZeroDivisionError("oops"), "failed", "Bug"),
    ],
)
def test_every_failure_of_a_unit_becomes_an_outcome(error: Exception, state: str, kind: str) -> None:
    def work() -> Result:
        raise error

    outcome = attempt(7, work)
    assert (outcome.state, outcome.error_kind) == (state, kind)
    assert str(error) in outcome.reason
    assert outcome.is_retryable == (kind in ("TransientError", "Bug"))


def test_a_mistake_that_a_person_must_mend_stops_the_run() -> None:
    def work() -> Result:
        raise ConfigError("no such key")

    with pytest.raises(ConfigError):
        attempt(7, work)
