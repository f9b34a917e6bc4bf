"""A night whose broker is away, whose files come twice and late: each alert leaves once, and the report tells it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from astropy.io import fits

from tests.kafka_server import running_broker

from ._survey import copied_survey, gueststar

pytestmark = pytest.mark.slow


def test_a_broker_that_is_away_all_night_and_files_that_come_twice_and_late(
    small_sky: Path, small_first_night: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gueststar.stream.topics.TIMEOUT_S", 2.0)
    root, sky, more = tmp_path / "survey", small_sky, tmp_path / "more"
    science = sorted(sky.glob("raw/*/sci_*"))
    late = science[-3]  # public, and the first of the second night
    copied_survey(small_first_night, root)
    second = max(sky.glob("raw/*")).glob("*")
    gueststar("ingest", root, *(path for path in sorted(second) if path != late), "--transfer", "link")
    night = int(gueststar("night", "list", root).split()[-3])

    def report() -> str:
        return gueststar("night", "report", root, "--night", night)

    with running_broker(root) as broker:
        broker.stop()
        gueststar("process", root)
        told = report()
        assert "waiting: topic ztf_" in told
        assert "the alert log keeps everything" in told
        assert " waiting" in told
        assert " sent" not in told
        gueststar("alerts", "check", root, "--night", night, status=3)

        more.mkdir()
        same, renamed, repacked = science[-1], more / "again.fits", more / "repacked.fits"
        shutil.copyfile(same, renamed)
        with fits.open(same) as file:
            file[0].header["COMMENT"] = "written again by somebody"
            file.writeto(repacked)
        said = gueststar("ingest", root, renamed, repacked)
        assert "2 already" in said or "already" in said
        broker.start()
        gueststar("process", root)
        told = report()
        assert "2 files came again, their pixels were there: nothing was made of them twice" in told
        assert " waiting" not in told
        gueststar("alerts", "check", root, "--night", night)
        before = len(gueststar("alerts", "list", root, "--program", "all").splitlines())

        gueststar("ingest", root, late)
        gueststar("process", root)
        told = report()
        assert "1 detector images came late, after later ones of the same sky" in told
        assert len(gueststar("alerts", "list", root, "--program", "all").splitlines()) > before
        gueststar("alerts", "check", root, "--night", night)
        assert gueststar("alerts", "publish", root).strip() == "nothing to send"

        candid = gueststar("alerts", "list", root, "--night", night).split()[0]
        gueststar("alerts", "retract", root, candid, "--reason", "a ghost")
        assert "retracted: 1 x a ghost (readers are not told yet)" in report()
        gueststar("alerts", "publish", root)
        assert "retracted: 1 x a ghost\n" in report() + "\n"
