"""`operate`: open the repository, start the workers, run the operator until it is told to stop."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import tenacity

from gueststar.core.clock import Clock, RehearsalClock, SystemClock
from gueststar.core.errors import ConfigError, ServiceDown
from gueststar.operations.actions.catalog import ACTIONS
from gueststar.operations.operator.daemon import Operator
from gueststar.operations.operator.intake import Intake
from gueststar.operations.operator.parts import Parts
from gueststar.operations.rules.book import RuleBook
from gueststar.operations.rules.load import load_rules
from gueststar.operations.watch.logs import start_logging
from gueststar.operations.watch.look import Look
from gueststar.operations.watch.systemd import notify
from gueststar.pipelines.engine.contract import Engine
from gueststar.pipelines.engine.dask_engine import make_engine
from gueststar.pipelines.engine.inline import InlineEngine
from gueststar.store.operation_settings import ClusterSettings
from gueststar.store.repo import SurveyRepo

LOG = logging.getLogger(__name__)

PATIENCE_S = 3600.0
"""How long a start waits for its database."""


@dataclass(frozen=True)
class OperateOptions:
    """How an operator is run."""

    n_workers: int | None = None
    """Worker processes; 0: none, units run in the operator's own process; None: as survey.yaml says."""
    cluster: str | None = None
    """Kind of cluster; None: as survey.yaml says."""
    until_idle: bool = False
    """End when nothing is left to do."""
    started_at: float | None = None
    """Unix time at which a rehearsal begins; None: now."""
    rate: float = 1.0
    """How fast a rehearsal's clock runs."""


def operate(root: Path, options: OperateOptions, *, tell: Callable[[str], None] = lambda _: None) -> bool:
    """Operate the survey at ``root`` until the process is told to stop, or nothing is left.

    Returns whether no unit of work is left that failed as often as it may be tried.

    Raises TransientError where another process operates or processes it, ConfigError where settings or rules are
    wrong, ServiceDown where its database stays away.
    """
    repo = _opened(root, tell)
    with repo, repo.only_writer("operates"):
        check_places(repo)
        load_rules_of(repo)  # wrong rules are told before workers are started
        start_logging(repo.root)
        engine = engine_of(repo, options)
        try:
            operator = Operator(repo, parts_of(repo, engine, clock_of(options)))
            with _signals(operator):
                operator.start(is_counted=isinstance(engine, InlineEngine))
                notify("READY=1")
                try:
                    operator.run(until_idle=options.until_idle)
                    return not operator.has_quarantined
                finally:
                    operator.close()
        finally:
            engine.close()


def unix_time(text: str) -> float:
    """Return an ISO-8601 time (UTC unless it says otherwise) as Unix time; ConfigError if it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text!r} is not a time such as 2026-01-01T02:00:00") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def clock_of(options: OperateOptions) -> Clock:
    """Return the clock that the options tell."""
    if options.started_at is None and options.rate == 1.0:
        return SystemClock()
    start = SystemClock().now() if options.started_at is None else options.started_at
    return RehearsalClock(start=start, rate=options.rate)


def parts_of(repo: SurveyRepo, engine: Engine, clock: Clock) -> Parts:
    """Return what an operator of a repository works with."""
    look = Look(repo.root, clock=clock)
    return Parts(
        engine=engine, clock=clock, load_rules=load_rules_of, actions=ACTIONS, intakes=intakes_of(repo),
        notify=notify, watch=lambda _: look.turn(),
    )  # fmt: skip


def load_rules_of(repo: SurveyRepo) -> RuleBook:
    """Return a repository's rules."""
    return load_rules(repo.root, repo.settings.operation)


def intakes_of(repo: SurveyRepo) -> tuple[Intake, ...]:
    """Return the landing places of a repository."""
    operation = repo.settings.operation
    return tuple(
        Intake(
            place, repo.camera, prompt_s=operation.queue.prompt_s, backlog_share=operation.queue.backlog_share
        )
        for place in operation.landing
    )  # fmt: skip


def engine_of(repo: SurveyRepo, options: OperateOptions) -> Engine:
    """Return where a repository's units run."""
    settings = repo.settings.operation.cluster
    if options.n_workers == 0:
        return InlineEngine()
    changes = {"kind": options.cluster, "workers": options.n_workers}
    values = settings.model_dump() | {name: value for name, value in changes.items() if value is not None}
    return make_engine(ClusterSettings(**values), scratch=str(repo.root / "scratch"))


def check_places(repo: SurveyRepo) -> None:
    """Raise ConfigError for landing places that cannot work."""
    for place in repo.settings.operation.landing:
        if not place.path.is_absolute():
            raise ConfigError(f"survey.yaml: operation.landing: {place.path} is not an absolute path")
        if place.after == "remove" and place.transfer == "direct":
            raise ConfigError(
                f"survey.yaml: operation.landing: files of {place.path} are left where they are (transfer: direct) "
                "and cannot be removed: say transfer: copy, or after: leave"
            )
        if place.path.resolve().is_relative_to(repo.root.resolve() / "products"):
            raise ConfigError(f"survey.yaml: operation.landing: {place.path} lies among the repository's products")


def _opened(root: Path, tell: Callable[[str], None]) -> SurveyRepo:
    """Open a repository, waiting for its database; ServiceDown when that was in vain."""

    def before(state: tenacity.RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            tell(f"{state.outcome.exception()}; waiting for it")

    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(ServiceDown), wait=tenacity.wait_exponential(multiplier=0.5, max=30.0),
        stop=tenacity.stop_after_delay(PATIENCE_S), after=before, reraise=True,
    )  # fmt: skip
    return attempts(SurveyRepo.open, root)


@contextmanager
def _signals(operator: Operator) -> Iterator[None]:
    """Let SIGTERM and SIGINT stop the operator, and SIGHUP make it read its settings anew."""

    def stop(*_: object) -> None:
        operator.stop()

    def read_anew(*_: object) -> None:
        operator.is_to_reload_settings = True
        operator.wake.set()

    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: read_anew}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
