"""What rules cost: the sun, decisions, rules that are due, and the facts that they are told, on a ledger of 100 nights.

Run: python benchmarks/rules.py [--nights N] [--exposures N]
The ledger has one calibrated image an exposure, a decision for each in the diary, and firings of the shipped rules.
Milliseconds of CPU on one core.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gueststar.cameras.load import load_camera
from gueststar.operations.rules.facts import ExposureFactsSource, SurveyFactsSource
from gueststar.operations.rules.good_epochs import AT_ONCE
from gueststar.operations.rules.load import load_rules
from gueststar.operations.rules.record import last_fired, write_rules
from gueststar.operations.rules.sun import NightTimes, night_after, noon_before, sun_altitude_deg
from gueststar.store.repo import SurveyRepo
from gueststar.store.tables import EVENTS, EXPOSURES, JOBS

FIRST_NIGHT = 20260101
N_FIELDS = 1500


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--nights", type=int, default=100)
    words.add_argument("--exposures", type=int, default=700)
    given = words.parse_args()
    camera = load_camera("ztf")
    with tempfile.TemporaryDirectory() as folder, SurveyRepo.create(Path(folder) / "survey", camera) as repo:
        now = fill(repo, given.nights, given.exposures)
        print(f"{given.nights} nights of {given.exposures} exposures")
        told("altitude of the sun", lambda: sun_altitude_deg(camera.site, now), n=200)
        told(
            "begin and end of a night", lambda: NightTimes(camera.site).edge(20260110, "ends", altitude_deg=-12.0), n=20
        )
        book = load_rules(repo.root, repo.settings.operation)
        write_rules(repo.ledger, book, now=now - 86400.0)
        told("reading the firings, at a start", lambda: last_fired(repo.ledger), n=3)
        fired, survey = last_fired(repo.ledger), SurveyFactsSource(repo)
        told(f"facts of the survey, {AT_ONCE} fields anew", lambda: survey.facts(now=now), n=10)
        facts = survey.facts(now=now)
        told(f"which of {len(book.for_the_clock)} rules are due", lambda: book.due(facts, fired), n=50)
        row = repo.ledger.exposures(day_obs=night_after(FIRST_NIGHT, given.nights - 1))[-1]
        exposures = ExposureFactsSource(repo)
        told("facts of an exposure, first time", lambda: exposures.facts(row, now=now), n=1)
        told("facts of an exposure, again", lambda: exposures.facts(row, now=now), n=100)
        asked = exposures.facts(row, now=now)
        told("the rule of an exposure", lambda: book.decide(asked), n=200)


def told(what: str, work: Callable[[], object], *, n: int) -> None:
    """Do something several times and print what once costs."""
    begin = time.process_time()
    for _ in range(n):
        work()
    print(f"{what:36s} {(time.process_time() - begin) / n * 1e3:9.3f} ms")


def fill(repo: SurveyRepo, n_nights: int, n_exposures: int) -> float:
    """Write nights into the ledger; return the Unix time at the end of the last one."""
    end, serial = time.time(), 0
    for number in range(n_nights):
        night = night_after(FIRST_NIGHT, number)
        noon = noon_before(repo.camera.site, night)
        finished = end - (n_nights - number) * 86400.0  # the ledger's times are the machine's
        exposures, jobs, events = [], [], []
        for k in range(n_exposures):
            serial, unix = serial + 1, noon + 30000.0 + 45.0 * k
            exposures.append(exposure_row(serial, night, unix))
            jobs.append(job_row(serial, night, finished + 45.0 * k))
            data = {"rule": "tonight", "recipe": "alerts", "at": unix}
            events.append({"time": unix, "what": "decision", "subject": str(serial), "text": "alerts", "data": data})
        for rule in range(25):
            data = {"night": night, "state": "fired", "at": noon + 70000.0}
            events.append({"time": noon, "what": "rule", "subject": f"rule {rule}", "text": "", "data": data})
        with repo.ledger.writing() as connection:
            connection.execute(EXPOSURES.insert(), exposures)
            connection.execute(JOBS.insert(), jobs)
            connection.execute(EVENTS.insert(), events)
    return noon + 75000.0


def exposure_row(serial: int, night: int, unix: float) -> dict[str, object]:
    return {
        "id": serial, "camera": "ztf", "observation_type": "science", "mjd_start": unix / 86400.0 + 40587.0,
        "exposure_s": 30.0, "day_obs": night, "program": 1, "physical_filter": "ZTF_r", "band": "r", "ra": 150.0,
        "dec": 2.0, "rotation_deg": 0.0, "field": 1 + serial % N_FIELDS, "object_name": "", "state": "processed",
        "reason": "", "received": unix + 60.0, "principal_investigator": "", "is_target_of_opportunity": False,
    }  # fmt: skip


def job_row(serial: int, night: int, finished: float) -> dict[str, object]:
    metrics = {
        "fwhm_arcsec": 2.0, "limiting_mag": 20.5, "zero_point": 26.0, "astrometric_rms_mas": 60.0, "sky_electrons": 3e2,
    }  # fmt: skip
    return {
        "id": serial, "kind": "science", "key": {"exposure": serial}, "exposure_id": serial, "detector": 0,
        "day_obs": night, "state": "done", "attempts": 1, "metrics": metrics, "submitted": finished - 9.0,
        "started": finished - 8.0, "finished": finished,
    }  # fmt: skip


if __name__ == "__main__":
    main()
