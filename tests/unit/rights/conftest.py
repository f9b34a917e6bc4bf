"""A survey whose private and partnership exposures are marked in every value that could leave."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import BytesIO, TextIOWrapper
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from starlette.applications import Starlette

from gueststar.cameras.load import load_camera
from gueststar.cli.main import main
from gueststar.model.camera import Camera
from gueststar.model.catalog import Catalog, Schema
from gueststar.model.columns import APERTURE, DIA_SOURCE, SOURCE
from gueststar.model.cutouts import CandidateCutouts
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.rights import Program, RightsPolicy
from gueststar.model.streak_columns import STREAK
from gueststar.model.streaks import StreakCutouts
from gueststar.model.visit import VisitRecord
from gueststar.model.wcs import Wcs
from gueststar.pipelines.alerts.visit import AlertVisit, VisitProducts
from gueststar.store.alerts.log import AlertLog
from gueststar.store.detections.store import DetectionStore
from gueststar.store.ledger import FileStatus, JobState
from gueststar.store.products import DataId
from gueststar.store.readers import ReaderStore
from gueststar.store.repo import SurveyRepo
from tests.unit.alerts.conftest import NIGHT_ZERO, REFERENCE, make_cutouts, make_forced, make_record, make_sources
from tests.unit.alerts.test_limits import varying_psf
from tests.unit.rights.canaries import Canary

SHAPE = (200, 220)
DETECTOR = 3
SHARED_PLACE, OWN_PLACE = (0.005, 20.01), (0.0251937, 20.0281437)
"""An object that all see, and one that only closed exposures see (degrees)."""
STARS_RA = np.linspace(359.985, 0.015, 12)
STARS_DEC = np.linspace(19.985, 20.015, 12)


@dataclass(frozen=True)
class Marks:
    """What marks the exposures of one program: values that stand nowhere else."""

    object_name: str
    investigator: str
    file_name: str
    pixel: float
    flux: float
    zero_point: float
    place: tuple[float, float] = OWN_PLACE


MARKS = {
    Program.PARTNERSHIP: Marks("PARTNERS-TARGET", "Wang Jinglun", "partners_image.fits", 31337.25, 223456.7, 25.71931),
    Program.PRIVATE: Marks("SECRET-TARGET", "Ibn Ridwan", "secret_exposure.fits", 27182.75, 123456.7, 25.83517),
    Program.ENGINEERING: Marks("TEST-TARGET", "nobody", "test_exposure.fits", 14142.25, 323456.7, 25.61803),
}  # fmt: skip

TAKEN = (
    (0.1, Program.PUBLIC), (1.1, Program.PRIVATE), (2.1, Program.PARTNERSHIP), (2.3, Program.ENGINEERING),
    (3.05, Program.PRIVATE), (3.1, Program.PUBLIC), (4.1, Program.PARTNERSHIP), (5.1, Program.PUBLIC),
)  # fmt: skip
"""Days and programs of the exposures."""


@dataclass
class MarkedSurvey:
    """The survey, and what marks each program's exposures."""

    root: Path
    canaries: dict[Program, dict[str, Canary]]
    visits: dict[Program, list[int]]
    public_name: str = ""

    def run(self, *words: object) -> tuple[int, bytes]:
        """Run a command; return its status and what it says."""
        raw = BytesIO()
        told, before, ended = TextIOWrapper(raw, encoding="utf-8", write_through=True), sys.argv, 0
        sys.argv = ["gueststar", *map(str, words)]
        try:
            with redirect_stdout(told), redirect_stderr(told):
                main()
        except SystemExit as end:
            ended = int(end.code or 0)
        finally:
            sys.argv = before
        return ended, raw.getvalue()

    def closed(self, *programs: Program) -> dict[str, Canary]:
        """Return the canaries of programs, by program and kind."""
        return {f"{p.name.lower()} {kind}": value for p in programs for kind, value in self.canaries[p].items()}


@pytest.fixture(scope="session")
def marked(tmp_path_factory: pytest.TempPathFactory) -> MarkedSurvey:
    """The survey: alerts, catalogs, images, streaks, jobs, and two users beside the operator."""
    return make_marked(tmp_path_factory.mktemp("rights") / "survey", TAKEN)


def make_marked(root: Path, taken: tuple[tuple[float, Program], ...]) -> MarkedSurvey:
    """Return a survey of some exposures."""
    camera = load_camera("simcam")
    made = MarkedSurvey(root, {program: {} for program in Program}, {program: [] for program in Program})
    with SurveyRepo.create(root, camera) as repo:
        store, log = DetectionStore.at(root, name_key=b"a key of the tests"), AlertLog(root)
        if any(program is not Program.PUBLIC for _, program in taken):
            _visit_elsewhere_first(repo, camera)
        for day, program in taken:
            _take(made, repo, camera, store, log, day, program)
        made.public_name = log.entries()[0].object_name
        for program in (Program.PARTNERSHIP, Program.PRIVATE):
            entries = log.entries(programs=(program,))
            made.canaries[program] |= {f"candid {k}": entry.candid for k, entry in enumerate(entries)}
        store.close()
        log.close()
    users = ReaderStore.of(root, None)
    users.add("alice", ["partnership"])
    users.add("carol", ["private"])
    users.close()
    return made


def _visit_elsewhere_first(repo: SurveyRepo, camera: Camera) -> None:
    """Take private exposures of other fields first: how many they are must not show in the number of the public one."""
    glass = camera.filters[0]
    for k in range(3):
        info = ExposureInfo(
            camera.name, "science", NIGHT_ZERO - 1.0 + 0.01 * k, 30.0, 20251120, Program.PRIVATE, glass.physical_filter,
            glass.band, 40.0 + 10 * k, 20.0, object_name="SECRET-TARGET",
        )  # fmt: skip
        repo.add_exposure(info, [DETECTOR])


def _take(
    made: MarkedSurvey, repo: SurveyRepo, camera: Camera, store: DetectionStore, log: AlertLog, day: float,
    program: Program,
) -> None:  # fmt: skip
    marks, mjd = MARKS.get(program), NIGHT_ZERO + day
    glass = camera.filters[0]
    record = make_record(mjd, program=program, rcid=DETECTOR, band_id=glass.fid)
    info = ExposureInfo(
        camera.name, "science", mjd, 30.0, record.day_obs, program, glass.physical_filter, glass.band, 0.0, 20.0,
        object_name=marks.object_name if marks else "field 7",
        principal_investigator=marks.investigator if marks else "survey",
    )  # fmt: skip
    record = replace(record, principal_investigator=info.principal_investigator)
    visit = repo.add_exposure(info, [DETECTOR]).exposure_id
    assert visit == record.visit
    made.visits[program].append(visit)
    file = marks.file_name if marks else f"exposure_{day}.fits"
    repo.ledger.record_file(
        f"/observatory/{file}", f"{visit:064x}", FileStatus.INGESTED, exposure_id=visit, day_obs=info.day_obs
    )
    if marks:
        made.canaries[program] |= {
            "object": marks.object_name, "investigator": marks.investigator, "file": marks.file_name,
            "pixel": marks.pixel, "flux": marks.flux, "zero point": marks.zero_point, f"visit {day}": visit,
        }  # fmt: skip
    _store_products(repo, visit, info, marks)
    _alert(record, store, log, marks)
    _write_jobs(repo, info, record, marks)


def _store_products(repo: SurveyRepo, visit: int, info: ExposureInfo, marks: Marks | None) -> None:
    data_id = DataId(visit=visit, detector=DETECTOR)
    pixel, flux = (marks.pixel, marks.flux) if marks else (700.0, 50_000.0)
    rng = np.random.default_rng(visit)
    wcs = Wcs.tangent(ra=0.0, dec=20.0, x=110.0, y=100.0, scale_arcsec=1.0)
    for product in ("science_image", "difference_image"):
        image = (4.0 * rng.standard_normal(SHAPE)).astype(np.float32)
        image[100, 110] = pixel
        pixels = MaskedImage(image, np.full(SHAPE, 16.0, np.float32), np.zeros(SHAPE, np.int32))
        facts = {"visit": visit, "detector": DETECTOR, "exposure": info.to_dict()}
        repo.put(product, data_id, CalibratedImage(pixels, wcs, varying_psf(), PhotoCal(27.0, 0.01), facts))
    places = (OWN_PLACE,) if marks else ()
    ra = np.r_[STARS_RA, SHARED_PLACE[0], [ra for ra, _ in places]]
    dec = np.r_[STARS_DEC, SHARED_PLACE[1], [dec for _, dec in places]]
    fluxes = np.r_[np.full(12, 3e6), flux, [flux] * len(places)]
    mag = 31.4 - 2.5 * np.log10(fluxes)
    common = {"ra": ra, "dec": dec, "x": np.full(len(ra), 50.0), "y": np.full(len(ra), 60.0), "mag": mag,
              "mag_err": np.full(len(ra), 0.004), "source_id": np.arange(len(ra)) + visit}  # fmt: skip
    repo.put("source", data_id, _rows(SOURCE, common | {"psf_flux": fluxes, "psf_flux_err": fluxes / 250.0}))
    repo.put("aperture_source", data_id, _rows(APERTURE, common | {"ap_flux_1": fluxes, "total_flux": fluxes}))
    streak = {
        "streak_id": np.array([visit * 7]), "visit": np.array([visit]), "detector": np.array([DETECTOR]),
        "is_positive": np.array([True]), "reliability": np.array([0.9]), "flux": np.array([flux]),
        "mag": np.array([17.0]), "mjd_begin": np.array([info.mjd_start]), "kind": np.array(["unclear"]),
    }  # fmt: skip
    repo.put("streak", data_id, _rows(STREAK, streak))
    stamp = np.full((2, 9, 20), pixel, np.float32)
    repo.put("streak_cutouts", data_id, StreakCutouts(streak["streak_id"], (stamp,), np.ones(1, np.float32)))


def _rows(schema: Schema, values: dict[str, np.ndarray]) -> Catalog:
    n = len(next(iter(values.values())))
    return schema.catalog({c.name: values.get(c.name, np.ones(n, dtype=c.dtype)) for c in schema.columns})


def _alert(record: VisitRecord, store: DetectionStore, log: AlertLog, marks: Marks | None) -> None:
    places = [SHARED_PLACE, *([marks.place] if marks else [])]
    ra, dec = np.array(places).T
    flux = np.full(len(places), marks.flux if marks else 45_000.0)
    sources = make_sources(record, ra, dec, psf_flux=flux)
    cutouts = make_cutouts(sources)
    if marks:
        cutouts.stamps[:, 0, 31, 31] = marks.pixel
        cutouts.stamps[:, 2, 30, 30] = marks.pixel
    run = AlertVisit(store, log, policy=RightsPolicy(), clock=lambda: record.mjd_tai + 0.01)
    run.run(
        VisitProducts(
            record, sources, CandidateCutouts(sources["dia_source_id"], cutouts.stamps), REFERENCE,
            measure_forced=lambda objects: make_forced(record, objects).replace(
                psf_flux=np.full(objects.n_rows, marks.flux if marks else 45_000.0)
            ),
        )
    )  # fmt: skip


def _write_jobs(repo: SurveyRepo, info: ExposureInfo, record: VisitRecord, marks: Marks | None) -> None:
    visit, program = record.visit, info.program
    ra, dec = record.corners
    common = {"zero_point": marks.zero_point if marks else 26.0, "limiting_mag": 20.5,
              "corners": [[float(a), float(d)] for a, d in zip(ra, dec, strict=True)]}  # fmt: skip
    metrics = {
        "science": common,
        "difference": common | {
            "vetting": {"version": "m1"}, "n_candidates": 2, "reference": {"epochs": _all_visits(repo)},
            "streaks": {"likely": [{"streak_id": visit * 7, "mjd_begin": info.mjd_start, "detector": DETECTOR,
                                    "kind": "unclear", "reliability": 0.9, "snr": 30.0, "mag": 17.0, "length": 40.0,
                                    "rate": 1.3, "position_angle_deg": 3.0, "is_end_1_seen": True,
                                    "is_end_2_seen": True, "ra_1": 0.0, "dec_1": 20.0, "ra_2": 0.01, "dec_2": 20.0}]},
        },
        "association": {"n_alerts": 1 + (marks is not None), "n_new_objects": 1, "not_alerted": {}},
        "precovery": {"n_forced": 3},
    }  # fmt: skip
    for kind, found in metrics.items():
        others = _all_visits(repo)
        job = repo.ledger.submit(
            kind, {"visit": visit, "kind": kind, "founded_on": others}, exposure_id=visit, detector=DETECTOR,
            day_obs=info.day_obs, inputs={"others": others},
        )  # fmt: skip
        repo.ledger.start(job)
        repo.ledger.finish(job, found)
    waiting = repo.ledger.submit("reference", {"field": 7, "detector": DETECTOR, "band": "g", "epochs": [visit]},
                                 day_obs=info.day_obs)  # fmt: skip
    repo.ledger.start(waiting)
    repo.ledger.hold(waiting, f"waits for visit {visit} of the {program.name.lower()} program")
    assert repo.ledger.job(waiting).state is JobState.HELD
    repo.ledger.event("taken", str(visit), info.object_name)
    numbers = np.arange(2) + 1_000_000 * record.pid + 900_000
    rows = _rows(DIA_SOURCE, {"dia_source_id": numbers, "visit": np.full(2, visit),
                              "detector": np.full(2, DETECTOR), "reliability": np.array([0.4, 0.6]),
                              "psf_flux": np.full(2, marks.flux if marks else 5e4)})  # fmt: skip
    data_id = DataId(visit=visit, detector=DETECTOR)
    repo.put("dia_source", data_id, rows)
    stamps = np.full((2, 3, 63, 63), marks.pixel if marks else 1.0, np.float32)
    repo.put("candidate_cutouts", data_id, CandidateCutouts(rows["dia_source_id"], stamps))


def _all_visits(repo: SurveyRepo) -> list[int]:
    return [row.id for row in repo.ledger.exposures()]


@contextmanager
def served(app: Starlette) -> Iterator[httpx.Client]:
    """Serve an application on loopback, and return a client of it."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", follow_redirects=True) as client:
        yield client
    server.should_exit = True
    thread.join()
