"""A reference gets a second version in mid-night: objects keep their names, and packets tell which one they mean."""

import json
from pathlib import Path

import numpy as np
import pytest

from gueststar.store.ledger import Job, JobState
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo

from ._survey import Survey, gueststar, make_survey, set_parameters

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    """Two nights of one detector: three exposures first, of which a reference is made, then all others."""
    folder = tmp_path_factory.mktemp("versions")
    gueststar("simulate", folder / "sky", "--scenario", "small", "--detectors", "0", "--seed", "4", "--quiet")
    whole = Survey(folder / "whole", folder / "sky", ())
    science = whole.raw_files()
    frames = sorted(set(whole.raw_files("*")) - set(science))
    make_survey(folder / "whole", folder / "sky", *frames, *science[:3], nightly=1.0)
    set_parameters(folder / "whole", {"reference_selection": {"min_epochs": 3}})
    gueststar("process", folder / "whole")
    gueststar("ingest", folder / "whole", *science[3:], "--transfer", "link")
    gueststar("process", folder / "whole")
    nights = tuple(int(line.split()[0]) for line in gueststar("night", "list", folder / "whole").splitlines())
    return Survey(folder / "whole", folder / "sky", nights)


def packets_of(root: Path) -> list[dict]:
    lines = gueststar("alerts", "list", root, "--program", "all").splitlines()
    return [json.loads(gueststar("alerts", "show", root, line.split()[0], "--program", "all")) for line in lines]


def references_of(repo: SurveyRepo) -> list[Job]:
    """Return the jobs that made the versions of the reference, in order."""
    jobs = [job for job in repo.ledger.jobs(kind="reference") if job.state is JobState.DONE]
    return sorted(jobs, key=lambda job: job.started or 0.0)


def test_a_new_version_is_another_product_and_tells_what_it_changed(survey: Survey) -> None:
    with SurveyRepo.open(survey.root) as repo:
        jobs = references_of(repo)
        assert len(jobs) >= 2
        assert jobs[1].metrics["n_epochs"] >= 2 * jobs[0].metrics["n_epochs"]
        change = jobs[1].metrics["change"]
        assert change["old_reference_id"] == jobs[0].metrics["reference_id"] != jobs[1].metrics["reference_id"]
        assert change["n_compared"] > 100
        assert change["flux_ratio"] == pytest.approx(1.0, abs=0.01)
        change = jobs[-1].metrics["change"]
        place = repo.find("reference_change")[0].data_id
        assert repo.get("reference_change", place).n_rows == change["n_changed"]
        centre = repo.get("reference_image", place).wcs.crval
    told = gueststar("reference", survey.root, f"{centre[0]},{centre[1]}").splitlines()
    assert [int(line.split(",")[4]) for line in told[1:]] == list(range(1, len(jobs) + 1))
    assert {int(line.split(",")[0]) for line in told[1:]} == {job.metrics["reference_id"] for job in jobs}


def test_packets_tell_which_reference_they_mean(survey: Survey) -> None:
    with SurveyRepo.open(survey.root) as repo:
        used = {}
        for job in repo.ledger.jobs(kind="difference"):
            if job.state is JobState.DONE:
                used[job.exposure_id] = job.metrics["reference"]["reference_id"]
    assert len(set(used.values())) >= 2
    told = {packet["candidate"]["rfid"] for packet in packets_of(survey.root)}
    assert len(told) >= 2
    assert told <= set(used.values())


def test_detections_of_one_place_are_one_object_before_and_after(survey: Survey) -> None:
    with SurveyRepo.open(survey.root) as repo:
        rows = []
        for ref in repo.find("forced_source"):
            forced = repo.read(ref)
            version = repo.ledger.jobs(kind="difference", exposure_id=ref.data_id.visit)[0].metrics["reference"][
                "reference_id"
            ]
            rows += [(int(number), version) for number in forced["dia_object_id"]]
    versions: dict[int, set[int]] = {}
    for number, version in rows:
        versions.setdefault(number, set()).add(version)
    assert sum(len(found) >= 2 for found in versions.values()) > 0  # the same object is followed through both


def test_a_source_of_both_versions_has_one_flux_in_both(survey: Survey) -> None:
    with SurveyRepo.open(survey.root) as repo:
        place = repo.find("reference_source")[0].data_id
        sources = repo.get("reference_source", DataId(field=place.field, detector=place.detector, band=place.band))
    bright = np.argsort(-sources["psf_flux"])[20:23]
    for row in bright:
        told = gueststar("reference", survey.root, f"{sources['ra'][row]},{sources['dec'][row]}").splitlines()[1:]
        fluxes = np.array([float(line.split(",")[8]) for line in told])
        assert fluxes == pytest.approx(float(sources["psf_flux"][row]), rel=0.03)


def test_every_nights_differences_get_artificial_sources_and_the_report_tells_what_was_found(survey: Survey) -> None:
    with SurveyRepo.open(survey.root) as repo:
        done = repo.ledger.jobs(kind="injection", state=JobState.DONE)
        differences = repo.ledger.jobs(kind="difference", state=JobState.DONE)
        assert {(job.exposure_id, job.detector) for job in done} == {(j.exposure_id, j.detector) for j in differences}
        assert all(job.metrics["stage"] == "difference" for job in done)
        assert len(packets_of(survey.root)) == sum(
            job.metrics["n_alerts"] for job in repo.ledger.jobs(kind="association", state=JobState.DONE)
        )
    told = json.loads(gueststar("night", "report", survey.root, "--night", survey.nights[1], "--json", "-"))
    classes = next(iter(told["injections"]["classes"].values()))
    for by in ("surface", "distance"):
        found = [item for row in classes[by] for item in row["bins"]]
        bright = [item for item in found if item["mag_high"] <= 20.0]
        assert sum(item["n_candidate"] for item in bright) > 0.7 * sum(item["n_differenced"] for item in bright) > 0
    text = gueststar("night", "report", survey.root, "--night", survey.nights[1])
    assert "blank sky" in text
