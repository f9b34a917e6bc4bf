"""A ledger as a reader sees it is the ledger of a survey that never took what he may not see."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gueststar.model.exposure import ExposureInfo
from gueststar.model.readers import Reader, Sight
from gueststar.model.rights import Program, Releases, RightsPolicy
from gueststar.store.ledger import FileStatus, Ledger
from gueststar.store.sql import sqlite_url
from gueststar.store.visible import VisibleLedger

DAY_ZERO, MJD_ZERO, NOW = 20251121, 61000.0, 61030.0

exposures = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from(list(Program)), st.integers(0, 2), st.booleans()), max_size=10
)
"""Night, program, pointing, and whether work on it failed."""
policies = st.builds(
    lambda nights, is_shared: RightsPolicy(
        Releases({program: ((DAY_ZERO + night, NOW),) for program, night in nights.items()}), is_shared
    ),
    st.dictionaries(st.sampled_from([Program.PARTNERSHIP, Program.PRIVATE]), st.integers(0, 9)),
    st.booleans(),
)
readers = st.sets(st.sampled_from([Program.PARTNERSHIP, Program.PRIVATE])).map(Reader.of_programs)


def info_of(serial: int, night: int, program: Program, pointing: int) -> ExposureInfo:
    return ExposureInfo(
        "simcam", "science", MJD_ZERO + night + 0.01 * serial, 30.0, DAY_ZERO + night, program, "sim_g", "g",
        10.0 + pointing, 20.0, object_name=f"target of {program.name}",
    )  # fmt: skip


def fill(ledger: Ledger, taken: list[tuple[int, tuple[int, Program, int, bool]]]) -> None:
    visits: list[int] = []
    for serial, (night, program, pointing, is_failed) in taken:
        info = info_of(serial, night, program, pointing)
        field = ledger.assign_field(ra=10.0 + pointing, dec=20.0, tolerance_deg=0.05)
        visit = ledger.add_exposure(ExposureInfo(**{**info.to_dict(), "program": program, "field": field.id}),
                                    detectors={0: f"{serial}"})  # fmt: skip
        visits.append(visit)
        ledger.record_file(f"/data/{serial}.fits", f"{serial:064d}", FileStatus.INGESTED, exposure_id=visit)
        for kind in ("science", "difference", "association", "precovery"):
            job = ledger.submit(kind, {"visit": visit, "after": visits}, exposure_id=visit, detector=0,
                                day_obs=info.day_obs, inputs={"epochs": visits})  # fmt: skip
            ledger.start(job)
            if is_failed and kind != "science":
                ledger.hold(job, f"waits for visit {visits[0]}")
            else:
                ledger.finish(job, {"zero_point": 26.0 + serial, "n_new_objects": len(visits), "cpu_s": len(visits)})
        reference = ledger.submit("reference", {"epochs": visits}, day_obs=info.day_obs)
        ledger.hold(reference, f"{len(visits)} of 5 epochs")
        ledger.event("taken", str(visit), f"{len(visits)} exposures")


def told(ledger: Ledger, asked: list[int]) -> dict[str, Any]:
    """Return everything that can be asked, without the numbers of rows, which no way out gives."""
    jobs = [(job.exposure_id, job.kind, job.state, job.reason, sorted(job.metrics.items()), job.key, job.inputs,
             job.cpu_s, job.finished, job.attempts) for job in ledger.jobs()]  # fmt: skip
    return {
        "exposures": ledger.exposures(), "one by one": [ledger.exposure(visit) for visit in asked],
        "fields": ledger.fields(), "jobs": jobs, "counts": ledger.job_counts(), "events": ledger.events(),
        "files": [(file.path, file.exposure_id, file.received) for file in ledger.files()],
        "zero points": ledger.measurements("science", "zero_point", before=DAY_ZERO + 99, n_nights=99),
        "new objects": ledger.measurements("association", "n_new_objects", before=DAY_ZERO + 99, n_nights=99),
        "checksums": [ledger.pixel_checksums(visit) for visit in asked],
    }  # fmt: skip


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(taken=exposures, policy=policies, reader=readers)
def test_what_a_reader_may_not_see_leaves_no_trace_in_the_ledger(
    taken: list[tuple[int, Program, int, bool]], policy: RightsPolicy, reader: Reader
) -> None:
    sight, numbered = Sight(reader, policy, NOW), list(enumerate(taken))
    seen = [item for item in numbered if sight.may_see(item[1][1], day_obs=DAY_ZERO + item[1][0])]
    asked = [info_of(serial, night, program, place).exposure_id for serial, (night, program, place, _) in numbered]
    answers = []
    with tempfile.TemporaryDirectory() as folder:
        for name, some in (("whole", numbered), ("without", seen)):
            url = sqlite_url(Path(folder) / f"{name}.sqlite3")
            whole, visible = Ledger(url), VisibleLedger(url, sight)
            fill(whole, some)
            answers.append(told(visible, asked))
            whole.close()
            visible.close()
    assert answers[0] == answers[1]
    assert len(answers[0]["exposures"]) == len(seen)
