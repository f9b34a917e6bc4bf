"""Nights as workflows of lsst.ctrl.bps: what comes out is what one process makes, and an ended job loses one unit."""

from pathlib import Path

import cloudpickle
import pytest

from gueststar.core.errors import ConfigError
from gueststar.pipelines.batch.engine import BatchEngine
from gueststar.pipelines.batch.workflow import Batch, bps_config
from gueststar.pipelines.engine.contract import Call
from gueststar.store.ledger import JobState
from gueststar.store.repo import SurveyRepo
from tests.end_to_end._survey import alert_digests, gueststar, product_digests
from tests.integration import engine_units as units
from tests.integration.small_nights import processed_here, survey

pytest.importorskip("lsst.ctrl.bps.parsl", reason="not installed: pip install gueststar[batch]")


@pytest.mark.slow
def test_a_campaign_makes_what_one_process_makes(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    made = processed_here(tmp_path_factory)
    here, there = made / "here", survey(tmp_path, "there", sky=made / "sky")
    nights = [row.info.day_obs for row in SurveyRepo.open(here).ledger.exposures()]
    told = gueststar(
        "campaign", there, "--nights", f"{min(nights)}..{max(nights)}", "--workers", 2, "--until", "precover"
    )
    assert "difference" in told
    found = product_digests(there)
    assert found == product_digests(here)
    assert {name for name, _, _ in found} >= {"bias", "flat", "science_image", "reference_image", "difference_image"}
    assert alert_digests(there) == alert_digests(here)
    with SurveyRepo.open(there) as repo:
        assert {job.state for job in repo.ledger.jobs(kind="science")} == {JobState.DONE}
    assert not list((there / "scratch" / "campaign").glob("*-0*"))


@pytest.mark.slow
def test_an_ended_job_loses_the_unit_that_ran_and_hands_over_those_before_it(tmp_path: Path) -> None:
    cloudpickle.register_pickle_by_value(units)  # jobs need not find the tests
    calls = [
        Call(1, units.succeed, (1,)), Call(2, units.kill_own_worker, (2,)), Call(3, units.succeed, (3,)),
        Call(4, units.succeed, (4,)), Call(5, units.never_return, (5,)), Call(6, units.be_wrong, (6,)),
    ]  # fmt: skip
    with BatchEngine(Batch(n_units=3, unit_limit_s=5.0), tmp_path) as engine:
        found = {outcome.job_id: outcome for outcome in engine.run(calls)}
    assert [found[n].state for n in range(1, 7)] == ["done", "failed", "failed", "done", "failed", "failed"]
    assert "ended before this unit did" in found[2].reason
    assert "ended before this unit began" in found[3].reason
    assert all(found[n].is_retryable for n in (2, 3, 5, 6))


def test_a_site_must_be_described(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no site slurm"):
        bps_config(Batch(site="slurm"), tmp_path, "name")


def test_the_surveys_own_file_describes_sites(tmp_path: Path) -> None:
    path = tmp_path / "bps.yaml"
    path.write_text(
        "site:\n  slurm:\n    class: lsst.ctrl.bps.parsl.sites.Slurm\n    nodes: 2\n    walltime: '01:00:00'\n"
    )
    config = bps_config(Batch(site="slurm", config=path), tmp_path, "name")
    assert config[".site.slurm.nodes"] == 2
    assert config["computeSite"] == "slurm"
