"""Two simulated nights through the whole chain: what comes out is right, complete, and the same however it was made."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pandas as pd
import pytest
import yaml
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from gueststar.core.bits import USES, MaskPlane, SourceFlag
from gueststar.model.rights import Program
from gueststar.pipelines.night.runner import STAGES
from gueststar.store.alerts.log import AlertLog
from gueststar.store.ledger import JobState
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo

from ._survey import (
    Survey,
    alert_digests,
    copied_survey,
    gueststar,
    make_survey,
    processing,
    product_digests,
    wait_until,
)

pytestmark = pytest.mark.slow

STAR, TRANSIENT = 0, 2
"""Kinds in the truth tables."""


@pytest.fixture(scope="module")
def survey(small_survey: Path, small_sky: Path, tmp_path_factory: pytest.TempPathFactory) -> Survey:
    """Two nights of one detector, simulated and processed."""
    root = tmp_path_factory.mktemp("survey") / "whole"
    copied_survey(small_survey, root)
    nights = tuple(int(line.split()[0]) for line in gueststar("night", "list", root).splitlines())
    return Survey(root, small_sky, nights)


def report_of(root: Path, night: int, **options: Path) -> dict:
    """Return a night's report as values; it must be explained."""
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return json.loads(gueststar("night", "report", root, "--night", night, "--json", "-", *words))


def science_exposures(survey: Survey, night: int) -> list[int]:
    with SurveyRepo.open(survey.root) as repo:
        return [row.id for row in repo.ledger.exposures(day_obs=night, observation_type="science")]


# What the night was


def test_the_account_of_each_night_balances_to_the_last_detector(survey: Survey, tmp_path: Path) -> None:
    for night in survey.nights:
        page = tmp_path / f"{night}.html"
        told = report_of(survey.root, night, html=page, truth=survey.sky / "truth")
        assert told["is_explained"]
        n_files = len(list((survey.sky / "raw" / str(night)).iterdir()))
        assert told["received"] == told["processed"] + told["failed"] + told["held"] == n_files
        assert told["failed"] == told["pending"] == told["unexplained"] == 0, told["reasons"]
        assert "</html>" in page.read_text()
        assert str(night) in page.read_text()


def test_products_open_in_plain_astropy_and_pandas(survey: Survey) -> None:
    with SurveyRepo.open(survey.root) as repo:
        visit = science_exposures(survey, survey.nights[1])[0]
        image = repo.get("science_image", DataId(visit=visit, detector=0))
        path = repo.path("science_image", DataId(visit=visit, detector=0))
        table = pd.read_parquet(repo.path("source", DataId(visit=visit, detector=0)))
    with fits.open(path) as hdus:
        hdus.verify("exception")
        science = next(hdu for hdu in hdus if hdu.data is not None and hdu.data.shape == image.shape)
        mask = next(hdu for hdu in hdus if hdu.name == "MASK")
        world = WCS(science.header)
        planes = {key: value for key, value in mask.header.items() if key.startswith("MP_")}
        np.testing.assert_array_equal(mask.data, image.pixels.mask)
    assert planes, "the mask's header tells the meaning of its bits"
    x, y = np.meshgrid(np.linspace(0, 1023, 12), np.linspace(0, 1023, 12))
    ra, dec = image.wcs.pixel_to_sky(x=x, y=y)
    theirs = world.all_pix2world(x, y, 0)
    np.testing.assert_allclose(theirs[0], ra, atol=1e-3 / 3600.0)
    np.testing.assert_allclose(theirs[1], dec, atol=1e-3 / 3600.0)
    assert len(table) > 100
    assert table["ra"].between(ra.min() - 0.01, ra.max() + 0.01).all()


def test_why_tells_the_story_of_an_exposure_an_alert_and_a_place(survey: Survey) -> None:
    visit = science_exposures(survey, survey.nights[1])[0]
    story = gueststar("why", survey.root, visit)
    for word in ("ingested", "science: done", "difference: done", "association: done", "zero_point", "used bias"):
        assert word in story, story
    line = gueststar("alerts", "list", survey.root, "--program", "all").splitlines()[0]
    candid, name = line.split()[:2]
    for subject in (candid, name):
        story = gueststar("why", survey.root, subject)
        assert f"alert {candid} of {name}" in story
        assert "reliability" in story
    packet = json.loads(gueststar("alerts", "show", survey.root, candid, "--program", "all"))["candidate"]
    story = gueststar("why", survey.root, f"{packet['ra']},{packet['dec']}")
    assert "difference detection at 0.0" in story
    assert any(f"exposure {number} detector 0" in story for number in science_exposures(survey, survey.nights[0]))


def test_processing_again_does_nothing(survey: Survey) -> None:
    def everything() -> tuple[object, ...]:
        with SurveyRepo.open(survey.root) as repo:
            jobs = {job.id: (job.state, job.attempts, job.finished) for job in repo.ledger.jobs()}
        files = {path: path.stat().st_mtime_ns for path in (survey.root / "products").rglob("*") if path.is_file()}
        return jobs, files, product_digests(survey.root), alert_digests(survey.root)

    before = everything()
    gueststar("process", survey.root)
    gueststar("ingest", survey.root, survey.sky / "raw")
    gueststar("process", survey.root)
    assert everything() == before


# What the sky was


def test_bright_stars_lie_where_they_are_and_are_as_bright_as_they_are(survey: Survey) -> None:
    scatter, offsets, pulls = [], [], []
    images = pd.read_parquet(survey.sky / "truth" / "detector_images.parquet").set_index("exposure_id")
    with SurveyRepo.open(survey.root) as repo:
        for visit in [v for night in survey.nights for v in science_exposures(survey, night)]:
            sources = pd.read_parquet(repo.path("source", DataId(visit=visit, detector=0)))
            photocal = repo.get("science_image", DataId(visit=visit, detector=0)).photocal
            bright = sources[(sources.snr > 50) & (sources["flags"] & ~int(USES) == 0)]
            truth = survey.truth(visit)
            stars = truth[(truth.kind == STAR) & ~truth.is_saturated]
            index, distance, _ = places(bright).match_to_catalog_sky(places(stars))
            near = distance.arcsec < 1.0
            assert near.sum() >= 20
            bright, stars = bright[near], stars.iloc[index[near]]
            d_dec = (bright.dec.to_numpy() - stars.dec.to_numpy()) * 3.6e6
            scatter.append(1.4826 * np.median(np.abs(d_dec - np.median(d_dec))))
            # In the camera's own system: zero points are of all the light, our fluxes of that in the PSF.
            true_mag = images.zero_point[visit] - images.cloud_mag[visit] - 2.5 * np.log10(stars.flux.to_numpy())
            offsets.append(np.median(31.4 - 2.5 * np.log10(bright.psf_flux.to_numpy()) - true_mag))
            pulls.append(offsets[-1] / photocal.zero_point_err)
    # S/N above 50 at a seeing of 3 arcsec (25 mas) and the turbulence of 15 mas: a few hundredths of a pixel.
    assert np.median(scatter) < 50.0, scatter
    assert np.abs(np.median(offsets)) < 0.01, offsets
    assert np.median(np.abs(pulls)) < 2.5, pulls


def places(table: pd.DataFrame) -> SkyCoord:
    return SkyCoord(table["ra"].to_numpy(), table["dec"].to_numpy(), unit="deg")


def test_bright_isolated_transients_of_the_second_night_are_detected_and_alerted(survey: Survey) -> None:
    n = n_detected = n_alerted = 0
    alerted = [e.candid for e in AlertLog(survey.root).entries(programs=tuple(Program))]
    with SurveyRepo.open(survey.root) as repo:
        for visit in science_exposures(survey, survey.nights[1]):
            found = pd.read_parquet(repo.path("dia_source", DataId(visit=visit, detector=0)))
            truth = survey.truth(visit)
            bright = truth[(truth.kind == TRANSIENT) & (truth.mag < 19.0) & (truth.source_id % 10**9 >= 10**4)]
            inside = bright[bright.x.between(30, 993) & bright.y.between(30, 993)]
            new = inside[[is_isolated(row, truth) for row in inside.itertuples()]]
            index, distance, _ = places(new).match_to_catalog_sky(places(found))
            is_found = distance.arcsec < 1.0
            n, n_detected = n + len(new), n_detected + int(is_found.sum())
            n_alerted += int(found.dia_source_id.iloc[index[is_found]].isin(alerted).sum())
    assert n >= 9, "the scene is too empty to judge"
    assert n_detected >= 0.85 * n, f"{n_detected} of {n}"
    assert n_alerted >= 0.75 * n, f"{n_alerted} of {n}"


def test_changes_put_into_the_surveys_own_images_are_labelled_and_scored(survey: Survey, tmp_path: Path) -> None:
    rows = tmp_path / "rows.parquet"
    before = product_digests(survey.root)
    gueststar("vet", "label", survey.root, rows, "--sources", 60)
    found = json.loads(gueststar("vet", "test", rows))
    assert product_digests(survey.root) == before
    assert found["n_real"] > 100
    assert found["at_threshold"]["0.1"]["completeness"] > 0.9


def is_isolated(thing: Any, truth: pd.DataFrame) -> bool:
    """Return whether nothing much brighter, and no other thing that changes, lies within 12 arcsec."""
    others = truth[truth.source_id != thing.source_id]
    near = others[np.hypot(others.x - thing.x, others.y - thing.y) < 12.0]
    return not ((near.mag < thing.mag - 1.0) | (near.kind >= TRANSIENT)).any()


def test_public_packets_decode_elsewhere_and_hold_public_history_only(survey: Survey) -> None:
    log = AlertLog(survey.root)
    n_by_program = {program: len(log.entries(programs=(program,))) for program in Program}
    assert n_by_program[Program.PUBLIC] > 0
    assert n_by_program[Program.PARTNERSHIP] > 0
    assert n_by_program[Program.ENGINEERING] == 0
    n_history = 0
    for _, data in log.replay(programs=(Program.PUBLIC,)):
        (packet,) = fastavro.reader(as_file(data))
        assert packet["candidate"]["programid"] == 1
        for item in [*(packet["prv_candidates"] or []), *(packet.get("fp_hists") or [])]:
            assert item["programid"] == 1
            n_history += 1
        for stamp in ("cutoutScience", "cutoutTemplate", "cutoutDifference"):
            with fits.open(as_file(gzip.decompress(packet[stamp]["stampData"]))) as hdus:
                assert min(hdus[0].data.shape) > 20
    assert n_history > 0


def as_file(data: bytes) -> io.BytesIO:
    return io.BytesIO(data)


# What may go wrong


@pytest.fixture(scope="module")
def damaged(survey: Survey, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files that a bad day delivers, by what is wrong with them."""
    folder = tmp_path_factory.mktemp("damaged")
    good = survey.raw_files()
    names = ("flipped", "truncated", "garbage", "headerless", "renamed", "contradicting")
    files = {name: folder / f"{name}.fits.fz" for name in names}
    with fits.open(good[1]) as hdus:
        hdus.writeto(files["flipped"], checksum=True)
    data = bytearray(files["flipped"].read_bytes())
    data[int(0.7 * len(data))] ^= 0x10
    files["flipped"].write_bytes(data)
    files["truncated"].write_bytes(good[2].read_bytes()[: int(0.6 * good[2].stat().st_size)])
    files["garbage"].write_bytes(np.random.default_rng(1).bytes(30000))
    fits.PrimaryHDU(np.zeros((64, 64), np.int16)).writeto(files["headerless"])
    shutil.copy(good[0], files["renamed"])
    with fits.open(files["renamed"], mode="update") as hdus:
        hdus[0].header["COMMENT"] = "copied by a careful person"
    with fits.open(good[3]) as hdus:
        hdus[2].data = hdus[2].data + np.uint16(1)
        hdus.writeto(files["contradicting"], checksum=True)
    return files


def test_damage_is_refused_with_its_reason_and_harms_nothing_else(
    survey: Survey, damaged: dict[str, Path], tmp_path: Path
) -> None:
    root = tmp_path / "bad_day"
    late = survey.raw_files()[-2]
    first = [damaged[name] for name in ("flipped", "truncated", "garbage", "headerless")]
    rest = [path for path in sorted(survey.sky.glob("raw/*/*")) if path != late]
    make_survey(root, survey.sky)
    told = gueststar("ingest", root, *first, *rest, damaged["renamed"], damaged["contradicting"], status=1)
    assert f"{len(rest)} ingested" in told
    assert "1 already there, 5 refused" in told
    gueststar("process", root)

    reports = [report_of(root, night) for night in survey.nights]
    for told_night in reports:
        assert told_night["is_explained"]
        assert told_night["received"] == told_night["processed"]
    refused = {Path(item["path"]).name: item["reason"] for item in reports[0]["refused_files"]}
    assert set(refused) == {path.name for path in [*first, damaged["contradicting"]]}
    for name, word in {
        "flipped": "is damaged", "truncated": "is truncated", "garbage": "is not FITS",
        "headerless": "INSTRUME", "contradicting": "different pixels",
    }.items():  # fmt: skip
        reason = refused[damaged[name].name]
        assert "\n" not in reason
        assert word in reason, f"{name}: {reason}"
        assert reason.removesuffix(" (it tells no night)") in gueststar("why", root, damaged[name].name)

    whole, here = product_digests(survey.root), product_digests(root)
    assert {key: whole[key] for key in here if key[0] not in ("forced_source",)} == {
        key: here[key] for key in here if key[0] not in ("forced_source",)
    }

    gueststar("ingest", root, late)
    gueststar("process", root)
    again = report_of(root, survey.nights[1])
    assert again["is_explained"]
    assert again["processed"] == reports[1]["processed"] + 1
    here = product_digests(root)
    assert here.keys() == whole.keys()
    assert all(here[key] == whole[key] for key in here if key[0] != "forced_source")


CRASH_BEFORE_WRITING_DOWN = """
import os
from gueststar.pipelines.night import stages
stages.JobBatches.settle = lambda self, endings: os._exit(9)
"""

CRASH_AFTER_ASSOCIATION = """
import os
from gueststar.pipelines.alerts import visit
visit.drain_outbox = lambda store, log: os._exit(9)
"""


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_products(survey: Survey, tmp_path: Path) -> None:
    root = tmp_path / "killed"
    make_survey(root, survey.sky, survey.sky / "raw")
    with processing(root, "--until", "calibrate", script=CRASH_BEFORE_WRITING_DOWN) as process:
        assert process.wait(600) == 9  # masters are there, the ledger does not know
    with SurveyRepo.open(root) as repo, processing(root) as process:
        wait_until(lambda: len(repo.ledger.jobs(kind="science", state=JobState.DONE)) >= 2, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        n_done = len(repo.ledger.jobs(kind="science", state=JobState.DONE))
    with SurveyRepo.open(survey.root) as whole:
        assert n_done < len(whole.ledger.jobs(kind="science"))
    with processing(root, script=CRASH_AFTER_ASSOCIATION) as process:
        assert process.wait(600) == 9  # detections and alerts are committed, nothing is sent
    with SurveyRepo.open(root) as repo, processing(root, "--workers", "2") as process:
        n_before = len(repo.ledger.jobs(kind="difference", state=JobState.DONE))
        wait_until(lambda: len(repo.ledger.jobs(kind="difference", state=JobState.DONE)) > n_before, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with processing(root, "--workers", "2") as process:
        said, _ = process.communicate(timeout=900)
        assert process.returncode == 0, said
    for night in survey.nights:
        assert report_of(root, night)["is_explained"]
    assert product_digests(root) == product_digests(survey.root)
    assert packets_of(root) == packets_of(survey.root)


def packets_of(root: Path) -> dict[int, dict]:
    """Return candid -> packet, without the moment when it was made."""
    packets = {}
    for entry, data in AlertLog(root).replay(programs=tuple(Program)):
        (packet,) = fastavro.reader(as_file(data))
        packets[entry.candid] = packet
    return packets


def test_two_processes_do_not_work_on_one_repository(survey: Survey) -> None:
    with SurveyRepo.open(survey.root) as repo, repo.only_writer():
        assert f"process {os.getpid()} on" in gueststar("process", survey.root, status=3)


def test_an_unknown_parameter_and_an_unknown_night_are_refused_by_name(survey: Survey, tmp_path: Path) -> None:
    assert "20200101" in gueststar("process", survey.root, "--night", "20200101", status=2)
    assert "20200101" in gueststar("night", "report", survey.root, "--night", "20200101", status=2)
    make_survey(tmp_path / "mistaken", survey.sky)
    path = tmp_path / "mistaken" / "survey.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["parameters"] = {"psf": {"sharpnes": 3}}
    path.write_text(yaml.safe_dump(settings))
    assert "sharpnes" in gueststar("process", tmp_path / "mistaken", status=2)


# What artificial sources tell


def test_a_night_done_again_makes_new_versions_of_what_differs_and_sends_nothing_twice(
    survey: Survey, tmp_path: Path
) -> None:
    root, night = tmp_path / "again", survey.nights[-1]
    shutil.copytree(survey.root, root, symlinks=True)
    settings = yaml.safe_load((root / "survey.yaml").read_text())
    settings["parameters"]["detection"] = {"threshold": 8.0}
    (root / "survey.yaml").write_text(yaml.safe_dump(settings))
    assert "--night" in gueststar("process", root, "--again", status=2)
    products, alerts = product_digests(root), alert_digests(root)
    gueststar("process", root, "--night", night, "--again")
    anew = product_digests(root)
    differ = {key[0] for key in products.keys() | anew.keys() if products.get(key) != anew.get(key)}
    assert "dia_source" in differ
    assert not differ & {"raw", "bias", "flat", "reference_image", "forced_source"}, "these are not done again"
    assert alert_digests(root) == alerts
    with SurveyRepo.open(root) as repo:
        for job in repo.ledger.jobs(kind="difference", day_obs=night, state=JobState.DONE):
            assert job.config["detection"]["threshold"] == 8.0
        for job in repo.ledger.jobs(kind="science", day_obs=night, state=JobState.DONE):
            info = repo.ledger.exposure(job.exposure_id).info
            valid = repo.find_calibration("distortion", 0, info.mjd_tai)
            assert Path(job.metrics["inputs"]["distortion"]) == Path(valid.path), "what is valid now, not then"
        assert f"night {night} again until {STAGES[-1]}" in {
            event.text for event in repo.ledger.events(what="processed")
        }
    assert report_of(root, night)["is_explained"]


def test_injection_is_repeatable_and_touches_neither_products_nor_alerts(survey: Survey, tmp_path: Path) -> None:
    night = survey.nights[-1]
    roots = [tmp_path / name for name in ("first", "again")]
    for root in roots:
        shutil.copytree(survey.root, root, symlinks=True)
        gueststar("inject", root, "--night", night, "--images", 2, "--trails", 0.1)
        gueststar("inject", root, "--night", night, "--images", 2, "--trails", 0.1)  # nothing is left to do
    apart = frozenset({"injected_source", "injection_metrics"})
    assert product_digests(roots[0], but=apart) == product_digests(survey.root, but=apart)
    assert alert_digests(roots[0]) == alert_digests(survey.root)
    assert product_digests(roots[0]) == product_digests(roots[1])
    told = report_of(roots[0], night)
    assert told["alerts"] == report_of(survey.root, night)["alerts"]
    assert told["injections"]["n_images"] == 2
    for found in told["injections"]["filters"].values():
        source, difference = found["source"], found["difference"]
        assert source["magnitude_50"] == pytest.approx(found["limiting_mag"], abs=0.35)
        assert difference["magnitude_50"] == pytest.approx(found["limiting_mag"], abs=0.7)
        assert min(source["plateau"], difference["plateau"]) > 0.85
        assert abs(source["flux_bias"]) < 0.03
        assert abs(difference["flux_bias"]) < 0.03


def test_sources_put_into_raw_counts_and_into_the_difference_are_scored_apart(survey: Survey, tmp_path: Path) -> None:
    night, root = survey.nights[-1], tmp_path / "repo"
    shutil.copytree(survey.root, root, symlinks=True)
    for stage in ("raw", "difference"):
        gueststar("inject", root, "--night", night, "--images", 1, "--stage", stage)
    told = report_of(root, night)["injections"]
    assert told["n_images"] == 2
    raw, difference = (told["filters"][name] for name in sorted(told["filters"], key=lambda name: "raw" not in name))
    assert raw["source"]["magnitude_50"] == pytest.approx(raw["limiting_mag"], abs=0.4)
    assert abs(raw["source"]["flux_bias"]) < 0.03
    assert difference["source"]["plateau"] is None
    assert difference["difference"]["plateau"] > 0.8


def test_images_tell_what_is_doubtful_and_sources_what_they_were_used_for(survey: Survey) -> None:
    visit = DataId(visit=science_exposures(survey, survey.nights[-1])[0], detector=0)
    with SurveyRepo.open(survey.root) as repo:
        image, sources = repo.get("science_image", visit), repo.get("source", visit)
        difference, candidates = repo.get("difference_image", visit), repo.get("dia_source", visit)
    metrics = image.metadata["metrics"]
    for flag, n in (
        (SourceFlag.CALIBRATOR, metrics["photometry"]["n_calibrators"]),
        (SourceFlag.ASTROMETRIC, metrics["astrometry"]["n_fitted"]),
        (SourceFlag.PSF_RESERVED, metrics["psf"]["n_reserved"]),
    ):
        flagged = (sources["flags"] & int(flag)) != 0
        assert 0.9 * n <= flagged.sum() <= n
    is_detected = (image.pixels.mask & int(MaskPlane.DETECTED)) != 0
    bright = sources.select(sources["snr"] > 10)
    on = is_detected[np.rint(bright["y"]).astype(int), np.rint(bright["x"]).astype(int)]
    assert on.mean() > 0.9
    assert is_detected.mean() < 0.3
    for is_positive, plane in ((True, MaskPlane.DETECTED), (False, MaskPlane.DETECTED_NEGATIVE)):
        found = (difference.pixels.mask & int(plane)) != 0
        assert found.any() == (candidates["is_positive"] == is_positive).any()
