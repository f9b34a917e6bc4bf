"""What another pipeline made of a night enters a fresh survey, and the same transients come out as of the raw files."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import Angle, SkyCoord
from astropy.io import fits
from astropy.time import Time

from gueststar.formats.avro import decode_alert
from gueststar.formats.cutouts import decode_cutout
from gueststar.model.rights import Program
from gueststar.store.alerts.log import AlertLog
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo

from ..end_to_end._survey import copied_survey, gueststar, make_survey, product_digests

pytestmark = pytest.mark.slow

WCS_CARDS = ("CTYPE", "CRVAL", "CRPIX", "CUNIT", "CD1_", "CD2_", "PV1_", "PV2_", "RADESYS")
HARMLESS = ("MP_DETECTED", "MP_DETECTED_NEGATIVE")


class Night(NamedTuple):
    """A survey made of raw files, and what it made as files of another pipeline."""

    sky: Path
    full: Path
    science: Path
    difference: Path
    visits: tuple[int, ...]
    """Exposures with a difference image."""
    night: int


def as_plain_fits(product: Path, path: Path, *, has_variance: bool = True, psf: np.ndarray | None = None) -> None:
    """Write a stored image as pipelines commonly do, with astropy alone."""
    with fits.open(product) as hdus:
        facts = json.loads(hdus["METADATA"].data[0][0])["exposure"]
        image, mask = hdus["IMAGE"], hdus["MASK"]
        header = fits.Header({key: value for key, value in image.header.items() if key.startswith(WCS_CARDS)})
        header.update({
            "INSTRUME": "simcam", "IMAGETYP": "OBJECT", "BUNIT": "electron", "PROGRMID": facts["program"],
            "DATE-OBS": Time(facts["mjd_start"], format="mjd", scale="tai").utc.isot, "EXPTIME": facts["exposure_s"],
            "FILTER": facts["physical_filter"], "MAGZP": image.header["ZP"], "MAGZPUNC": image.header["ZPERR"],
            "RA": Angle(facts["ra"], "deg").to_string("hourangle", sep=":", precision=4),
            "DEC": Angle(facts["dec"], "deg").to_string(sep=":", precision=3),
        })  # fmt: skip
        harmless = sum(1 << int(mask.header[key]) for key in HARMLESS if key in mask.header)
        planes = [fits.PrimaryHDU(header=header), fits.ImageHDU(image.data, header, name="SCI")]
        if has_variance:
            planes.append(fits.ImageHDU(hdus["VARIANCE"].data, name="VAR"))
        planes.append(fits.ImageHDU(((mask.data & ~harmless) != 0).astype("u1"), name="DQ"))
        if psf is not None:
            planes.append(fits.ImageHDU(psf, name="PSF"))
        path.parent.mkdir(parents=True, exist_ok=True)
        fits.HDUList(planes).writeto(path)


@pytest.fixture(scope="module")
def night(small_sky: Path, small_survey: Path, tmp_path_factory: pytest.TempPathFactory) -> Night:
    folder = tmp_path_factory.mktemp("entry")
    copied_survey(small_survey, folder / "full")
    with SurveyRepo.open(folder / "full") as repo:
        for ref in repo.find("science_image"):
            as_plain_fits(ref.path, folder / "science" / f"{ref.data_id.visit}.fits")
        for ref in repo.find("difference_image"):
            psf = repo.read(ref).psf.stamp(x=511.5, y=511.5)
            as_plain_fits(ref.path, folder / "difference" / f"{ref.data_id.visit}.fits", has_variance=False, psf=psf)
        visits = tuple(sorted(ref.data_id.visit or 0 for ref in repo.find("difference_image")))
        last = max(row.info.day_obs for row in repo.ledger.exposures())
    return Night(small_sky, folder / "full", folder / "science", folder / "difference", visits, last)


@pytest.fixture(scope="module")
def from_science(night: Night, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A survey that calibrated images entered."""
    root = tmp_path_factory.mktemp("science") / "survey"
    make_survey(root, night.sky)
    gueststar("ingest", root, night.science, "--as", "science_image", "--detector", 0)
    gueststar("process", root)
    return root


@pytest.fixture(scope="module")
def from_differences(night: Night, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A survey that difference images entered alone: no reference catalog, no variance, no science images."""
    root = tmp_path_factory.mktemp("difference") / "survey"
    gueststar("init", root, "--camera", "simcam")
    gueststar("ingest", root, night.difference, "--as", "difference_image", "--detector", 0)
    gueststar("process", root)
    return root


def detections(root: Path, visit: int) -> pd.DataFrame:
    with SurveyRepo.open(root) as repo:
        return pd.read_parquet(repo.path("dia_source", DataId(visit=visit, detector=0)))


def compared(full: Path, other: Path, visits: tuple[int, ...]) -> tuple[float, np.ndarray, np.ndarray]:
    """Return which part of the sure detections of one survey the other has, distances (arcsec) and flux pulls."""
    n, distances, pulls = 0, [], []
    for visit in visits:
        ours, theirs = detections(full, visit), detections(other, visit)
        sure = ours[(ours.reliability > 0.5) & (ours.snr.abs() > 7) & (ours["flags"] == 0)]
        index, distance, _ = places(sure).match_to_catalog_sky(places(theirs))
        found = distance.arcsec < 1.0
        n += len(sure)
        distances.append(distance.arcsec[found])
        same = theirs.iloc[index[found]]
        error = np.hypot(sure.psf_flux_err[found].to_numpy(), same.psf_flux_err.to_numpy())
        pulls.append((same.psf_flux.to_numpy() - sure.psf_flux[found].to_numpy()) / error)
    found_all = np.concatenate(distances)
    assert n >= 10, "the scene is too empty to judge"
    return found_all.size / n, found_all, np.concatenate(pulls)


def places(table: pd.DataFrame) -> SkyCoord:
    return SkyCoord(table["ra"].to_numpy(), table["dec"].to_numpy(), unit="deg")


def account(root: Path, night: int) -> dict[str, Any]:
    told = json.loads(gueststar("night", "report", root, "--night", night, "--json", "-"))
    assert told["is_explained"], told["reasons"]
    assert told["received"] == told["processed"] + told["failed"] + told["held"]
    return told


def packets_of(root: Path) -> list[dict[str, Any]]:
    log = AlertLog(root)
    return [decode_alert(data) for _, data in log.replay(programs=tuple(Program))]


def test_calibrated_images_give_the_transients_that_their_raw_files_give(night: Night, from_science: Path) -> None:
    part, distances, pulls = compared(night.full, from_science, night.visits)
    assert part >= 0.9
    assert np.median(distances) < 0.05
    assert np.median(np.abs(pulls)) < 0.3
    assert np.abs(np.median(pulls)) < 0.15
    told = account(from_science, night.night)
    assert told["failed"] == told["held"] == 0
    assert set(told["origins"]) == {"science_image"}
    n_ours, n_theirs = len(packets_of(night.full)), len(packets_of(from_science))
    assert n_theirs == pytest.approx(n_ours, abs=max(4, 0.3 * n_ours))


def test_difference_images_alone_give_the_same_transients(night: Night, from_differences: Path) -> None:
    part, distances, pulls = compared(night.full, from_differences, night.visits)
    assert part >= 0.9
    assert np.median(distances) < 0.1
    assert np.median(np.abs(pulls)) < 0.5
    told = account(from_differences, night.night)
    assert told["processed"] == told["received"] == told["origins"]["difference_image"]
    story = gueststar("why", from_differences, night.visits[-1])
    for words in ("came in as difference_image", "entered from", "variance estimated", "association: done"):
        assert words in story, story


def test_their_alerts_have_a_difference_cutout_history_and_forced_photometry(
    night: Night, from_differences: Path
) -> None:
    packets = packets_of(from_differences)
    assert len(packets) > 5
    for packet in packets:
        assert packet["cutoutScience"] is None
        assert packet["cutoutTemplate"] is None
        with fits.open(io.BytesIO(gzip.decompress(packet["cutoutDifference"]["stampData"]))) as hdus:
            assert hdus[0].data.shape == (63, 63)
    history = [item for packet in packets for item in packet["prv_candidates"] or []]
    assert any(item["candid"] is None and item["diffmaglim"] > 15 for item in history), "upper limits are told"
    assert any(item["candid"] is not None for item in history), "earlier detections are told"
    assert any(packet["fp_hists"] for packet in packets)
    public = [packet for packet in packets if packet["candidate"]["programid"] == 1]
    assert public
    assert all(item["programid"] == 1 for packet in public for item in packet["prv_candidates"] or [])


def _with_science(night: Night, visit: int, folder: Path) -> Path:
    """Write a difference image with its science image in one file, and its reference beside it."""
    with fits.open(night.science / f"{visit}.fits") as hdus:
        header, science = hdus["SCI"].header, hdus["SCI"].data
    with fits.open(night.difference / f"{visit}.fits") as hdus:
        difference, bad = hdus["SCI"].data, hdus["DQ"].data
    planes = [fits.PrimaryHDU(header=header), fits.ImageHDU(difference, header, name="DIFF")]
    planes += [fits.ImageHDU(science, name="SCI"), fits.ImageHDU(bad, name="DQ")]
    fits.HDUList(planes).writeto(folder / f"{visit}.fits")
    fits.PrimaryHDU(science - difference).writeto(folder / f"{visit}_ref.fits")
    return folder / f"{visit}.fits"


def test_science_and_reference_that_come_along_are_cut_out_and_measured_on(night: Night, tmp_path: Path) -> None:
    root, visits = tmp_path / "survey", night.visits[-2:]
    files = [_with_science(night, visit, tmp_path) for visit in visits]
    gueststar("init", root, "--camera", "simcam")
    gueststar(
        "ingest", root, *files, "--as", "difference_image", "--detector", 0,
        "--companion", "reference={stem}_ref.fits",
    )  # fmt: skip
    gueststar("process", root)
    for visit in visits:
        found = detections(root, visit)
        assert np.isfinite(found.science_flux).all()
        assert (found.reference_distance < 30).mean() > 0.5
    part, distances, _ = compared(night.full, root, visits)
    assert part >= 0.9
    assert np.median(distances) < 0.1
    packets = packets_of(root)
    assert len(packets) > 3
    for packet in packets:
        stamps = {
            key: decode_cutout(packet[key]["stampData"])
            for key in ("cutoutScience", "cutoutTemplate", "cutoutDifference")
        }
        sign = 1.0 if packet["candidate"]["isdiffpos"] == "t" else -1.0
        made = sign * (stamps["cutoutScience"] - stamps["cutoutTemplate"])
        rest = (made - stamps["cutoutDifference"])[np.isfinite(made)]
        assert np.std(rest) < 2.0, "the cut-outs are of the same place, but for the smooth sky"


def test_doing_it_again_changes_nothing(night: Night, from_differences: Path, from_science: Path) -> None:
    def state(root: Path) -> tuple[Any, ...]:
        with SurveyRepo.open(root) as repo:
            jobs = {job.id: (job.state, job.attempts) for job in repo.ledger.jobs()}
        return jobs, product_digests(root), len(packets_of(root))

    for root, folder, product in (
        (from_differences, night.difference, "difference_image"), (from_science, night.science, "science_image")
    ):  # fmt: skip
        before = state(root)
        told = gueststar("ingest", root, folder, "--as", product, "--detector", 0)
        assert "0 ingested" in told
        gueststar("process", root)
        assert state(root) == before


def test_catalogs_give_light_curves_objects_and_alerts(night: Night, tmp_path: Path) -> None:
    root, rows, stars = tmp_path / "survey", [], []
    with SurveyRepo.open(night.full) as repo:
        for visit in night.visits:
            row = repo.ledger.exposure(visit)
            start = Time(row.info.mjd_start, format="mjd", scale="tai").utc.mjd
            facts = {"MJD": start, "FILT": row.info.band, "PROG": int(row.info.program)}
            rows.append(detections(night.full, visit).assign(**facts))
            stars.append(pd.read_parquet(repo.path("source", DataId(visit=visit, detector=0))).assign(**facts))
        place = row.info.ra, row.info.dec
    names = {"ra": "RAJ2000", "dec": "DEJ2000", "psf_flux": "F", "psf_flux_err": "e_F", "reliability": "RBscore"}
    ours = ["ra", "dec", "psf_flux", "psf_flux_err"]
    pd.concat(rows)[[*ours, "reliability", "flags", "MJD", "FILT", "PROG"]].rename(columns=names).to_csv(
        tmp_path / "d.csv"
    )
    pd.concat(stars)[[*ours, "MJD", "FILT", "PROG"]].rename(columns=names).to_parquet(tmp_path / "s.parquet")
    gueststar("init", root, "--camera", "simcam")
    mapping = "psf_flux=F,psf_flux_err=e_F,mjd_utc=MJD,filter=FILT,program=PROG"
    pointing = Angle(place[0], "deg").to_string("hourangle", sep=":"), Angle(place[1], "deg").to_string(sep=":")
    told = ("--detector", 0, "--set", "EXPTIME=30", "--set", f"RA={pointing[0]}", "--set", f"DEC={pointing[1]}")
    refused = gueststar(
        "ingest", root, tmp_path / "d.csv", "--as", "dia_source", "--columns", mapping, "--detector", 0, status=1
    )
    assert "EXPTIME" in refused
    assert "refused" in gueststar("why", root, "d.csv")
    gueststar(
        "ingest",
        root,
        tmp_path / "d.csv",
        "--as",
        "dia_source",
        *told,
        "--columns",
        f"{mapping},reliability=RBscore,flags=flags",
    )
    gueststar("ingest", root, tmp_path / "s.parquet", "--as", "source", *told, "--columns", mapping)
    gueststar("process", root)
    report = account(root, night.night)
    assert report["origins"] == {"source and dia_source": report["received"]}
    ours = {p["candid"] for p in packets_of(night.full)}
    packets = packets_of(root)
    assert len(packets) == len(ours)
    assert all(packet[key] is None for packet in packets for key in ("cutoutScience", "cutoutDifference"))
    assert any(packet["prv_candidates"] for packet in packets)
    bright = pd.concat(stars).sort_values("psf_flux").iloc[-40]
    curve = gueststar(
        "lightcurve", root, f"{bright.ra},{bright.dec}", "--program", "public", "--program", "partnership",
        "--program", "private",
    )  # fmt: skip
    assert len(curve.splitlines()) >= 3
    forced = gueststar(
        "forced", night.full, f"{bright.ra},{bright.dec}", "--program", "public", "--program", "partnership",
        "--program", "private",
    )  # fmt: skip
    fluxes = [float(line.split(",")[4]) for line in forced.splitlines()[1:]]
    assert len(fluxes) >= 2
    assert np.min(np.abs(np.array(fluxes) / bright.psf_flux - 1.0)) < 0.02
