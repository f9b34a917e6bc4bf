"""An engine that is opened by the first call."""

from __future__ import annotations

import pytest

from gueststar.core.errors import ConfigError
from gueststar.pipelines.engine.contract import Call
from gueststar.pipelines.engine.inline import InlineEngine
from gueststar.pipelines.engine.on_demand import OnDemandEngine
from gueststar.pipelines.engine.outcome import Outcome


def succeed(job_id: int) -> Outcome:
    return Outcome(job_id, "done")


class Opened:
    """Makes engines and remembers them."""

    def __init__(self) -> None:
        self.engines: list[InlineEngine] = []

    def __call__(self) -> InlineEngine:
        self.engines.append(InlineEngine())
        return self.engines[-1]


def test_nothing_is_opened_where_there_is_nothing_to_do() -> None:
    opened = Opened()
    with OnDemandEngine(opened) as engine:
        assert list(engine.run(())) == []
        assert (engine.in_hand, engine.workers(), engine.collect(60.0)) == (frozenset(), (), [])
        engine.warm(pytest.fail, "no worker is there to do it")
    assert opened.engines == []


def test_all_calls_run_on_one_engine_which_is_closed_at_the_end() -> None:
    opened = Opened()
    with OnDemandEngine(opened) as engine:
        for numbers in ((1, 2, 3), (), (4, 5)):
            outcomes = engine.run(Call(n, succeed, (n,)) for n in numbers)
            assert [outcome.job_id for outcome in outcomes] == list(numbers)
        assert engine.workers() == opened.engines[0].workers()
        engine.submit(Call(6, succeed, (6,)))
        assert engine.in_hand == {6}
    assert len(opened.engines) == 1
    assert opened.engines[0].in_hand == frozenset()


def test_what_opening_raises_reaches_who_has_work() -> None:
    def refuse() -> InlineEngine:
        raise ConfigError("no sbatch on this machine")

    with OnDemandEngine(refuse) as engine, pytest.raises(ConfigError, match="sbatch"):
        list(engine.run([Call(1, succeed, (1,))]))
