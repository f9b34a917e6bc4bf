"""What an operator would do, told instead of done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from gueststar.cameras.translate import translate
from gueststar.core.errors import GueststarError
from gueststar.formats.raw import read_headers
from gueststar.operations.landing.journal import ReceiptJournal
from gueststar.operations.landing.place import PlaceAway, WatchedPlace
from gueststar.operations.operator.daemon import Operator
from gueststar.operations.operator.night_work import NightWork
from gueststar.operations.operator.start import OperateOptions, check_places, clock_of, load_rules_of, parts_of
from gueststar.operations.rules.contract import Decision, Priority
from gueststar.operations.rules.facts import ExposureFactsSource, SurveyFactsSource
from gueststar.operations.rules.record import last_fired
from gueststar.pipelines.engine.inline import InlineEngine
from gueststar.store.ledger import ExposureRow, ExposureState
from gueststar.store.operation_settings import LandingPlace
from gueststar.store.repo import SurveyRepo


def dry_run_lines(root: Path, options: OperateOptions, *, level: str) -> Iterator[str]:
    """Say what the rules would do with what lies in the landing places (``rules``), or take it in and plan (``plan``).

    Nothing is run in either case; ``rules`` changes nothing at all.
    """
    with SurveyRepo.open(root) as repo:
        check_places(repo)
        yield from _by_rules(repo, options) if level == "rules" else _planned(repo, options)


def _by_rules(repo: SurveyRepo, options: OperateOptions) -> Iterator[str]:
    rules, now = load_rules_of(repo), clock_of(options).now()
    facts = ExposureFactsSource(repo)
    for place in repo.settings.operation.landing:
        yield f"landing place {place.path} ({place.holds})"
        for path in _files_of(repo, place):
            try:
                row = _as_received(repo, path, now)
            except GueststarError as problem:
                yield f"  {path.name}: refused: {problem}"
                continue
            if row.info.observation_type != "science":
                yield f"  {path.name}: {row.info.observation_type} frame of {row.info.day_obs}"
                continue
            yield f"  {path.name}: exposure {row.id}: {_words(rules.decide(facts.facts(row, now=now)))}"
    firings = rules.due(SurveyFactsSource(repo).facts(now=now), last_fired(repo.ledger))
    for firing in firings:
        names = ", ".join(name for name, _ in firing.actions)
        yield f"rule {firing.rule!r} is due for night {firing.night} ({firing.why}): {names}"
    if not firings:
        yield "no rule of the clock is due"


def _files_of(repo: SurveyRepo, place: LandingPlace) -> list[Path]:
    journal = ReceiptJournal(repo.root)
    calm = place.model_copy(update={"stable_s": 0.0})
    try:
        found = WatchedPlace(calm, is_known=journal.is_taken, monotonic=time.monotonic).scan()
    except PlaceAway:
        return []
    return [file.path for file in found]


def _as_received(repo: SurveyRepo, path: Path, now: float) -> ExposureRow:
    read = translate(repo.camera, read_headers(path))
    return ExposureRow(read.info, ExposureState.RECEIVED, "", tuple(read.detector_ids), now)


def _words(decision: Decision) -> str:
    why = f" ({decision.why})" if decision.why else ""
    return f"{decision.recipe} by rule {decision.rule!r}, {decision.priority.name.lower()}{why}"


def _planned(repo: SurveyRepo, options: OperateOptions) -> Iterator[str]:
    with repo.only_writer("operates"):
        operator = Operator(repo, parts_of(repo, InlineEngine(), clock_of(options)))
        operator.standing.mode = "dry"
        operator.start()
        intakes = operator.parts.intakes
        while not all(intake.is_read for intake in intakes) or operator.take_files():
            time.sleep(0.05)
        for intake in intakes:
            intake.stop()
        yield from _would_run(operator.work)


def _would_run(work: NightWork) -> Iterator[str]:
    work.planner.look_again()
    while (unit := work.queue.take(now=time.monotonic())) is not None:
        call = work.plan(unit)
        yield f"{Priority(unit.priority).name.lower()}: {unit.words()}: " + ("to be run" if call else "held")
    for row in work.undecided.values():
        yield f"exposure {row.id}: when the calibration frames of {row.info.day_obs} are made into products"
