"""An empty file that landed is refused after a while, told of in the account, and taken again when it grows."""

import time
from pathlib import Path

from gueststar.core.times import unix
from gueststar.operations.operator.facts import night_of
from gueststar.operations.operator.intake import REFUSED, Intake
from gueststar.operations.report.night_report import make_report
from gueststar.store.ledger import FileStatus
from gueststar.store.repo import SurveyRepo

from ._rehearsal import CAMERA, EVENING, ToldEngine, make_repo, operator_of

QUICK = {"scan_s": 0.1, "stable_s": 0.05, "empty_s": 0.3}


def reasons(repo: SurveyRepo) -> list[str]:
    return [row.reason for row in repo.ledger.files(status=FileStatus.REFUSED)]


def test_it_is_refused_accounted_for_and_taken_again_when_it_grows(tmp_path: Path) -> None:
    (landing := tmp_path / "landing").mkdir()
    with make_repo(tmp_path / "survey", landing=[{"path": str(landing), **QUICK}]) as repo:
        intake = Intake(repo.settings.operation.landing[0], CAMERA, prompt_s=1800.0)
        operator = operator_of(repo, ToldEngine(), intakes=(intake,))
        operator.start()

        def work_until(n_refused: int) -> None:
            end = time.monotonic() + 10.0
            while len(reasons(repo)) < n_refused and time.monotonic() < end:
                operator.guarded_turn()
                time.sleep(0.02)

        try:
            (landing / "a.fits").touch()
            time.sleep(0.15)
            operator.guarded_turn()
            assert reasons(repo) == []  # it may still be written
            work_until(1)
            assert reasons(repo) == ["is empty (0 bytes); fetch it again"]
            assert [event.subject for event in repo.ledger.events(what=REFUSED)] == ["a.fits"]
            assert len(list((repo.root / "refused").glob("*-a.fits"))) == 1
            night = night_of(unix(EVENING + 0.05), CAMERA)
            ((path, reason),) = make_report(repo, night).account.refused  # nothing else came in this night
            assert (Path(path).name, reason[:8]) == ("a.fits", "is empty")
            (landing / "a.fits").write_bytes(b"no pixels")
            work_until(2)
            assert len(reasons(repo)) == 2
            assert "empty" not in reasons(repo)[1]
        finally:
            operator.close(patience_s=1.0)
