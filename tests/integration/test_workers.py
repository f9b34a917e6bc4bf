"""Units of work on worker processes: each gets an outcome, whatever becomes of its worker."""

import time
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import pytest

from gueststar.core.errors import ConfigError
from gueststar.pipelines.engine.contract import Call
from gueststar.pipelines.engine.dask_engine import DaskEngine
from gueststar.pipelines.engine.on_worker import NICENESS
from gueststar.pipelines.engine.outcome import Outcome
from gueststar.store.operation_settings import ClusterSettings
from tests.integration import engine_units as units

LIMIT_S = 3.0


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskEngine]:
    cloudpickle.register_pickle_by_value(units)  # workers need not find the tests
    settings = ClusterSettings(workers=2, memory_gb=0.5, unit_limit_s=LIMIT_S)
    with DaskEngine(
        settings, scratch=str(tmp_path_factory.mktemp("scratch")), modules=("gueststar.pipelines.engine.outcome",)
    ) as engine:
        yield engine


def outcomes(engine: DaskEngine, *calls: Call) -> dict[int, Outcome]:
    return {outcome.job_id: outcome for outcome in engine.run(calls)}


def collect_for_a_while(engine: DaskEngine) -> None:
    for _ in range(20):
        engine.collect(1.0)


def until_complete(engine: DaskEngine) -> None:
    """Wait until both workers are there: those that died are replaced."""
    deadline = time.monotonic() + 60
    while engine.n_free < 4 and time.monotonic() < deadline:
        engine.collect(0.2)
    assert engine.n_free == 4


def test_every_call_has_one_outcome(engine: DaskEngine) -> None:
    found = list(engine.run(Call(n, units.succeed, (n, 10 * n)) for n in range(20)))
    assert sorted(outcome.job_id for outcome in found) == list(range(20))
    assert all(outcome.result.metrics["value"] == 10 * outcome.job_id for outcome in found)
    assert engine.in_hand == frozenset()


def test_no_more_is_taken_than_runs_and_follows_at_once(engine: DaskEngine) -> None:
    until_complete(engine)
    for n in range(4):
        engine.submit(Call(n, units.take_time, (n, 0.2)))
    assert engine.n_free == 0
    assert engine.in_hand == {0, 1, 2, 3}
    while engine.in_hand:
        engine.collect(1.0)
    assert engine.n_free == 4


def test_what_is_wanted_first_overtakes_what_waits(engine: DaskEngine) -> None:
    until_complete(engine)
    for n in (0, 1):
        engine.submit(Call(n, units.take_time, (n, 2.0), priority=30))
    deadline = time.monotonic() + 10
    while {worker.job for worker in engine.workers()} != {0, 1} and time.monotonic() < deadline:
        time.sleep(0.02)
    for n, priority in ((2, 30), (3, 30), (4, 10), (5, 10)):
        engine.submit(Call(n, units.take_time, (n, 0.5), priority=priority))
    ended: list[int] = []
    while engine.in_hand:
        ended += [outcome.job_id for outcome in engine.collect(0.1)]
    assert [set(ended[k : k + 2]) for k in (0, 2, 4)] == [{0, 1}, {4, 5}, {2, 3}]


def test_workers_give_way_to_who_hands_out_the_work(engine: DaskEngine) -> None:
    until_complete(engine)
    for outcome in outcomes(engine, *(Call(n, units.niceness, (n,)) for n in range(4))).values():
        assert outcome.result.metrics["niceness"] == NICENESS


def test_workers_say_what_they_do(engine: DaskEngine) -> None:
    engine.submit(Call(7, units.take_time, (7, 0.5), what="difference of exposure 1 detector 2"))
    time.sleep(0.2)
    busy = [worker for worker in engine.workers() if worker.job is not None]
    assert [worker.what for worker in busy] == ["difference of exposure 1 detector 2"]
    assert busy[0].pid is not None
    assert abs((busy[0].since or 0) - time.time()) < 5
    while engine.in_hand:
        engine.collect(1.0)


def test_a_worker_has_one_core(engine: DaskEngine) -> None:
    assert outcomes(engine, Call(1, units.threads, (1,)))[1].result.metrics == {"threads": "1"}


def test_a_worker_that_dies_takes_only_its_own_unit_with_it(engine: DaskEngine) -> None:
    calls = [Call(0, units.kill_own_worker, (0,)), *(Call(n, units.take_time, (n, 0.05)) for n in range(1, 12))]
    found = outcomes(engine, *calls)
    assert found[0].state == "failed"
    assert found[0].is_retryable
    assert "the worker process died" in found[0].reason
    assert all(found[n].state == "done" for n in range(1, 12))
    until_complete(engine)


@pytest.mark.parametrize("hang", [units.never_return, units.stop_own_worker])
def test_a_hung_unit_comes_back_as_failed_and_its_worker_is_replaced(engine: DaskEngine, hang: object) -> None:
    found = outcomes(engine, Call(1, hang, (1,)), *(Call(n, units.succeed, (n,)) for n in range(2, 8)))  # type: ignore[arg-type]
    assert found[1].state == "failed"
    assert found[1].error_kind == "TransientError"
    assert "longer than 3 s (operation.cluster.unit_limit_s)" in found[1].reason
    assert all(found[n].state == "done" for n in range(2, 8))


def test_a_greedy_unit_has_its_worker_ended_and_the_reason_says_so(engine: DaskEngine) -> None:
    found = outcomes(engine, Call(1, units.take_memory, (1, 0.6)), Call(2, units.succeed, (2,)))
    assert found[1].state == "failed"
    assert found[1].is_retryable
    assert "GB of memory, more than a worker has" in found[1].reason
    assert found[2].state == "done"


def test_what_concerns_more_than_a_unit_is_raised_and_other_outcomes_are_kept(engine: DaskEngine) -> None:
    engine.submit(Call(1, units.ask_a_person, (1,)))
    engine.submit(Call(2, units.take_time, (2, 0.1)))
    with pytest.raises(ConfigError, match="a person must act"):
        collect_for_a_while(engine)
    while engine.in_hand:
        assert [outcome.job_id for outcome in engine.collect(1.0)] in ([], [2])


def test_a_bug_is_the_units_own(engine: DaskEngine) -> None:
    assert outcomes(engine, Call(1, units.be_wrong, (1,)))[1].error_kind == "Bug"


def test_every_worker_is_warmed(engine: DaskEngine, tmp_path: Path) -> None:
    until_complete(engine)
    engine.warm(units.leave_mark, tmp_path)
    deadline = time.monotonic() + 10
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert {path.name for path in tmp_path.iterdir()} == {str(worker.pid) for worker in engine.workers()}
