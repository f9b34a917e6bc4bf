"""The operator brings every exposure to its end, in the right order, and forgets nothing when it is killed."""

import errno
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gueststar.core.errors import ConfigError, ServiceDown
from gueststar.operations.operator.control import give_signal, pause, resume
from gueststar.operations.operator.trouble import is_the_worlds, trouble_with_volume
from gueststar.pipelines.engine.contract import Call
from gueststar.pipelines.engine.outcome import Outcome
from gueststar.store.ledger import ExposureState, JobState
from gueststar.store.operator_state import read_operator_state
from gueststar.store.repo import SurveyRepo

from ._rehearsal import EVENING, ToldEngine, go_round, info, make_repo, operator_of, receive

FAST = {"patience_s": 0.0, "calibrations_quiet_s": 0.0}


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[SurveyRepo]:
    with make_repo(tmp_path / "survey", queue=FAST) as made:
        yield made


def fates(repo: SurveyRepo) -> dict[int, str]:
    return {row.id: row.state.value for row in repo.ledger.exposures()}


def test_exposures_without_a_reference_become_images_and_the_account_says_why(repo: SurveyRepo) -> None:
    numbers = [receive(repo, info(k), detectors=(0, 1)) for k in range(3)]
    engine = ToldEngine()
    operator = operator_of(repo, engine)
    operator.start()
    go_round(operator)
    assert set(fates(repo).values()) == {"processed"}
    assert len([what for what in engine.begun if what.startswith("science")]) == 6
    (row,) = [row for row in repo.ledger.exposures() if row.id == numbers[0]]
    assert "images only: no reference" in row.reason
    assert repo.ledger.balance(info(0).day_obs).is_balanced
    (decision,) = repo.ledger.events(what="decision", subject=str(numbers[0]))
    assert decision.data["recipe"] == "images"


def test_tonight_goes_before_an_earlier_night_which_gets_its_share(repo: SurveyRepo) -> None:
    old = [receive(repo, info(k)) for k in range(4)]
    new = [receive(repo, info(k, night=1)) for k in range(6)]
    engine = ToldEngine(n_workers=1)
    operator = operator_of(repo, engine, at=EVENING + 1.05)
    operator.start()
    go_round(operator)
    order = [int(what.split()[3]) for what in engine.begun if what.startswith("science")]
    assert order[:4] == [*new[:3], old[0]]
    assert order[4:8] == [*new[3:], old[1]]
    assert sorted(order) == sorted(old + new)


def test_a_unit_that_fails_is_tried_again_and_then_set_aside(repo: SurveyRepo) -> None:
    number = receive(repo, info(0))
    copied = (Path(__file__).parents[3] / "src/gueststar/operations/rules/default.yaml").read_text()
    (repo.root / "rules.yaml").write_text(copied.replace("backoff: 10 s", "backoff: 0 s"))
    engine = ToldEngine(lambda call: Outcome(call.job_id, "failed", reason="no luck", error_kind="Bug", trace="here"))
    operator = operator_of(repo, engine)
    operator.start()
    for _ in range(20):
        go_round(operator)
        time.sleep(0.01)
    (job,) = repo.ledger.jobs(kind="science", exposure_id=number)
    assert job.state is JobState.QUARANTINED
    assert job.attempts == 3
    assert job.traceback == "here"
    assert len(engine.begun) == 3
    assert fates(repo) == {number: "failed"}
    assert operator.has_quarantined


def test_failed_pixels_are_not_tried_again(repo: SurveyRepo) -> None:
    number = receive(repo, info(0))
    engine = ToldEngine(lambda call: Outcome(call.job_id, "failed", reason="no stars", error_kind="DataError"))
    operator = operator_of(repo, engine)
    operator.start()
    go_round(operator)
    assert len(engine.begun) == 1
    assert fates(repo) == {number: "failed"}


def test_a_retry_waits_for_its_backoff(repo: SurveyRepo) -> None:
    receive(repo, info(0))
    engine = ToldEngine(lambda call: Outcome(call.job_id, "failed", reason="slow", error_kind="TransientError"))
    operator = operator_of(repo, engine)
    operator.start()
    go_round(operator)
    assert len(engine.begun) == 1
    assert len(operator.work.queue) == 1
    due = operator.work.queue.next_due()
    assert due is not None
    assert 8.0 < due - time.monotonic() < 10.1


def test_what_a_killed_operator_left_goes_on_and_does_not_count_as_an_attempt(repo: SurveyRepo) -> None:
    numbers = [receive(repo, info(k)) for k in range(5)]
    first = operator_of(repo, ToldEngine(n_workers=2))
    first.start()
    first.turn()  # two are with the workers now; then it is killed
    assert len(repo.ledger.jobs(state=JobState.RUNNING)) == 2
    again = operator_of(repo, ToldEngine())
    again.start()
    go_round(again)
    assert fates(repo) == dict.fromkeys(numbers, "processed")
    assert {job.attempts for job in repo.ledger.jobs(kind="science")} == {1}
    last = operator_of(repo, engine := ToldEngine())
    last.start()
    go_round(last)
    assert engine.begun == []


def test_a_full_disk_costs_no_attempt(repo: SurveyRepo) -> None:
    number = receive(repo, info(0))
    ends = iter(["VolumeError"] * 5)

    def end(call: Call) -> Outcome:
        kind = next(ends, None)
        return (
            Outcome(call.job_id, "failed", reason="no space", error_kind=kind) if kind else Outcome(call.job_id, "done")
        )

    operator = operator_of(repo, ToldEngine(end))
    operator.start()
    go_round(operator)
    (job,) = repo.ledger.jobs(kind="science", exposure_id=number)
    assert job.state is JobState.DONE
    assert job.attempts == 1


def test_below_the_reserve_nothing_is_begun_until_there_is_room(tmp_path: Path) -> None:
    with make_repo(tmp_path / "survey", queue=FAST, disks={"reserve_gb": 1e6}) as repo:
        receive(repo, info(0))
        operator = operator_of(repo, engine := ToldEngine())
        operator.start()
        for _ in range(3):
            operator.guarded_turn()
        assert operator.standing.mode == "waiting"
        assert engine.begun == []
        operator.repo.settings = repo.settings.model_copy(
            update={
                "operation": repo.settings.operation.model_copy(update={"disks": type(repo.settings.operation.disks)()})
            }
        )
        operator.standing.hurry()
        go_round(operator)
        assert operator.standing.mode == "running"
        assert set(fates(repo).values()) == {"processed"}


def test_a_paused_operator_begins_nothing(repo: SurveyRepo) -> None:
    receive(repo, info(0))
    pause(repo.root, "new mirror")
    operator = operator_of(repo, engine := ToldEngine())
    operator.start()
    operator.guarded_turn()
    assert (operator.standing.mode, operator.standing.why) == ("paused", "new mirror")
    assert engine.begun == []
    resume(repo.root)
    operator.standing.hurry()
    go_round(operator)
    assert len(engine.begun) > 0
    assert [event.subject for event in repo.ledger.events(what="operator")][:3] == ["started", "paused", "resumed"]


def test_science_waits_for_the_calibrations_of_its_night(repo: SurveyRepo) -> None:
    for k in range(4):
        receive(repo, info(k, kind="bias"))
    number = receive(repo, info(10))
    engine = ToldEngine(n_workers=1)
    operator = operator_of(repo, engine)
    operator.start()
    go_round(operator)
    assert engine.begun[0].startswith("calibrations of 20230224")
    # Nothing was made of the frames here, so that the exposure is kept and that is all.
    (row,) = repo.ledger.exposures(observation_type="science")
    assert row.id == number
    assert row.state is ExposureState.HELD
    assert row.reason.startswith("archive only: no reference")
    assert "no calibrations" in row.reason


def test_the_database_may_go_away_in_the_middle_of_anything(repo: SurveyRepo) -> None:
    numbers = [receive(repo, info(k)) for k in range(6)]
    operator = operator_of(repo, ToldEngine())
    operator.start()
    fails = iter([0, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 1] + [0] * 1000)

    class Flaky:
        """A ledger whose server is away now and then, before or after it did what it was asked."""

        def __init__(self, ledger) -> None:
            self._ledger = ledger

        def __getattr__(self, name: str):
            found = getattr(self._ledger, name)
            if name not in ("start", "finish", "submit", "settle_exposure", "hold"):
                return found

            def ask(*args, **kwargs):
                if next(fails):
                    raise ServiceDown("the database does not work now: connection refused")
                answer = found(*args, **kwargs)
                if next(fails):
                    raise ServiceDown("the database does not work now: connection lost")
                return answer

            return ask

    operator.work.ledger = operator.repo.ledger = operator.work.planner.ledger = Flaky(operator.repo.ledger)  # type: ignore[assignment]
    operator.work.settling.repo.ledger = operator.repo.ledger
    for _ in range(300):
        operator.guarded_turn()
        if set(fates(operator.repo).values()) == {"processed"}:
            break
    assert fates(operator.repo) == dict.fromkeys(numbers, "processed")
    assert {job.attempts for job in operator.repo.ledger.jobs(kind="science")} == {1}
    operator.repo.close()


def test_signals_of_the_observatory_are_answered_once(repo: SurveyRepo) -> None:
    operator = operator_of(repo, ToldEngine())
    operator.start()
    give_signal(repo.root, "night_begins", "dome open")
    operator.guarded_turn()
    (event,) = repo.ledger.events(what="signal")
    assert (event.subject, event.text) == ("night_begins", "dome open")
    assert not (repo.root / "operator/signals/night_begins").exists()


def test_what_a_person_must_mend_holds_the_unit_and_stops_nothing_else(repo: SurveyRepo) -> None:
    numbers = [receive(repo, info(k)) for k in range(2)]

    class Picky(ToldEngine):
        def collect(self, timeout_s: float = 0.0) -> list[Outcome]:
            if self.calls and str(numbers[0]) in self.calls[0].what:
                problem = ConfigError("parameters: psf.size is no parameter")
                problem.job_id = self.calls.pop(0).job_id  # type: ignore[attr-defined]
                raise problem
            return super().collect(timeout_s)

    operator = operator_of(repo, Picky())
    operator.start()
    go_round(operator)
    assert fates(repo) == {numbers[0]: "held", numbers[1]: "processed"}


def test_an_exposure_that_nobody_foresaw_is_held_with_its_traceback(repo: SurveyRepo) -> None:
    number, other = receive(repo, info(0)), receive(repo, info(1))
    operator = operator_of(repo, ToldEngine())
    facts = operator.work.facts.facts

    def break_once(row, **more):
        if row.id == number:
            raise ZeroDivisionError("a bug")
        return facts(row, **more)

    operator.work.facts.facts = break_once  # type: ignore[method-assign]
    operator.start()
    go_round(operator)
    assert fates(repo) == {number: "held", other: "processed"}
    (event,) = repo.ledger.events(what="bug")
    assert "ZeroDivisionError" in event.text


def test_the_picture_tells_what_waits_and_runs(repo: SurveyRepo) -> None:
    for k in range(5):
        receive(repo, info(k))
    operator = operator_of(repo, ToldEngine(n_workers=2))
    operator.start()
    operator.turn()
    operator.beat.write(is_forced=True)
    state = read_operator_state(repo.root)
    assert state is not None
    assert state.running == 2
    assert state.queued == {"tonight": 3}
    assert state.mode == "running"
    assert json.loads((repo.root / "operator/state.json").read_text())["night"] == 20230224


def test_errors_of_the_world_are_told_from_bugs(tmp_path: Path) -> None:
    (tmp_path / "survey.yaml").touch()
    assert is_the_worlds(OSError(errno.ENOSPC, "full"), tmp_path)
    assert is_the_worlds(OSError(errno.ESTALE, "stale"), tmp_path)
    assert is_the_worlds(ServiceDown("away"), tmp_path)
    assert not is_the_worlds(FileNotFoundError(errno.ENOENT, "no such file"), tmp_path)
    assert is_the_worlds(FileNotFoundError(errno.ENOENT, "no such file"), tmp_path / "gone")
    assert not is_the_worlds(ZeroDivisionError(), tmp_path)
    assert "gone" in trouble_with_volume(tmp_path / "gone", reserve_gb=0.0)
    assert "cannot be written" in trouble_with_volume(tmp_path, reserve_gb=0.0)  # no staging folder
    (tmp_path / "staging").mkdir()
    assert trouble_with_volume(tmp_path, reserve_gb=0.0) == ""
