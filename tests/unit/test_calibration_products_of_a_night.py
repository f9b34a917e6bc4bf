"""The night's account of its calibration products: made, refused, held, or no cause for one."""

from types import SimpleNamespace

from gueststar.operations.report.calibration_products import made_products
from gueststar.store.ledger import JobState


def job(number, kind, detector, state=JobState.DONE, *, glass=None, stage="calibration", reason="", **metrics):
    key = {"kind": kind, "detector": detector, "filter": glass}
    return SimpleNamespace(id=number, kind=stage, key=key, state=state, reason=reason, metrics=metrics)


def test_every_detector_is_counted_once_with_the_reason_of_the_first_that_is_missing():
    jobs = [
        job(1, "flat", 0, glass="r"),
        job(2, "flat", 1, JobState.FAILED, glass="r", reason="flat of detector 1: structure differs"),
        job(3, "bias", 0, JobState.HELD, reason="2 bias frames, 3 are needed"),
        job(4, "bias", 0),  # more frames came
        job(5, "fringe", 0, glass="i", stage="learning", nothing_made="no fringes are seen"),
        job(6, "science", 0, stage="science"),
    ]
    bias, flat, fringe = made_products(jobs)
    assert bias.line() == "bias: made 1"
    assert flat.line() == "flat in r: made 1, refused 1 (flat of detector 1: structure differs)"
    assert fringe.line() == "fringe in i: nothing made 1 (no fringes are seen)"
