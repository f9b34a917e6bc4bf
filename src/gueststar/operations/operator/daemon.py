"""The operator: a loop of short steps that runs a survey by itself.

Take in what landed, decide by rules, plan, hand to the workers by priority, settle what comes back, associate in the
order of the sky, publish, fire the rules that are due, tell how it stands. Each step is bounded, so that none starves
another, and each can be broken off at any moment: the ledger knows what is done.

What belongs to one step lies in a room of its own beside this one: `clock_rules`, `past_nights`, `hold_ups`,
`recovery`, `surroundings`, `publishing`, `flight`; `standing` is what they share.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from gueststar.core.errors import GueststarError, ServiceDown
from gueststar.operations.landing.journal import ReceiptJournal
from gueststar.operations.operator.beat import Beat
from gueststar.operations.operator.clock_rules import ClockRules
from gueststar.operations.operator.flight import Flight
from gueststar.operations.operator.hold_ups import HoldUps
from gueststar.operations.operator.intake import Intake
from gueststar.operations.operator.landed import Landed
from gueststar.operations.operator.night_work import NightWork
from gueststar.operations.operator.parts import Parts, settings_of
from gueststar.operations.operator.planning import Planning
from gueststar.operations.operator.publishing import Publishing
from gueststar.operations.operator.queue import Unit
from gueststar.operations.operator.recovery import Recovery
from gueststar.operations.operator.standing import Standing
from gueststar.operations.operator.surroundings import Surroundings
from gueststar.operations.operator.trouble import is_the_worlds
from gueststar.operations.rules.record import OPERATOR, STARTED, write_rules
from gueststar.store.ledger import JobState
from gueststar.store.repo import SurveyRepo

LOG = logging.getLogger(__name__)

_REST_S = 2.0
"""Longest rest of an operator that has nothing to do: what lands wakes it. Its picture is no older than that."""
_STEP_S = 0.4
"""Files are taken in, and images associated, for so long before other work has its turn; one at least."""
_BUSY_REST_S = 0.2
"""Longest rest while workers are busy: what lands is seen that fast."""


class Operator:
    """Runs one survey. `turn` is one round of steps; `run` goes round until it is stopped."""

    def __init__(self, repo: SurveyRepo, parts: Parts) -> None:
        self.parts, self.engine = parts, parts.engine
        self.stopping, self.wake = threading.Event(), threading.Event()
        self.is_to_reload_settings = self._is_hurried = False
        self.started = time.time()
        self.journal = ReceiptJournal(repo.root)
        self.standing = Standing(repo, parts.load_rules(repo), clock=parts.clock, open_repo=parts.open_repo)
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="action")
        planning = Planning(self.standing.open_again, ended=self.wake.set)
        rules = self.standing.rules
        self.work = NightWork(repo, settings_of(repo), rules, clock=parts.clock, planning=planning)
        self.clock_rules = ClockRules(self.standing, self.work, parts, self._pool)
        self.firings, self.nights = self.clock_rules.firings, self.clock_rules.nights
        alarming = self.standing.alarming
        self.publishing = Publishing(self._pool, self.standing.open_again, alarming, clock=parts.clock)
        self.flight = Flight(self.engine, alarming)
        self.hold_ups = HoldUps(self.standing)
        self.surroundings = Surroundings(self.standing, self.work, parts)
        self.recovery = Recovery(self)
        self.beat = Beat(self)

    # The loop

    def start(self, *, is_counted: bool = False) -> None:
        """Find again what an earlier operator left behind, and begin to watch.

        ``is_counted``: units that were running may have caused its end (they ran in its process).
        """
        self.repo.sweep_staging()
        write_rules(self.repo.ledger, self.standing.rules, now=self.standing.clock.now())
        n_lost = self.work.reload(running=(), is_counted=is_counted)
        self.firings.reload(self.repo.ledger)
        self.nights.find_open()
        text = f"process {os.getpid()}" + (f"; {n_lost} jobs of an interrupted run go on" if n_lost else "")
        self.repo.ledger.event(OPERATOR, STARTED, text, at=self.standing.clock.now())
        self.standing.say(f"started, {text}")
        for intake in self.parts.intakes:
            intake.start(self.journal, self.standing.clock, self.wake.set)
        gc.collect()
        gc.freeze()  # what is loaded is no garbage: looking through it takes a fifth of a second, about once a minute

    def run(self, *, until_idle: bool = False) -> None:
        """Work until `stop` is called, or (``until_idle``) nothing is left to do."""
        while not self.stopping.is_set():
            is_busy = self.guarded_turn()
            if until_idle and not is_busy and self.is_idle and self._is_settled_down():
                return
            if not is_busy:
                self._rest()

    def stop(self) -> None:
        """End after the present step; asked twice, without waiting for what runs. Signal handlers call this."""
        self._is_hurried = self.stopping.is_set()
        self.stopping.set()
        self.wake.set()

    def close(self, *, patience_s: float = 60.0) -> None:
        """Let what runs end, for a bounded time, write it down and leave."""
        self.standing.mode = "stopping"
        for intake in self.parts.intakes:
            intake.stop()
        self._await_units(patience_s)
        self.work.planning.close()
        self._pool.shutdown(wait=self.publishing.is_sending, cancel_futures=True)
        self.surroundings.close(patience_s=10.0)
        gc.unfreeze()  # modules that count their references would complain
        try:
            self.work.ledger.reset_running(is_counted=False)
            self.repo.ledger.event("operator", "stopped", f"process {os.getpid()}")
        except (GueststarError, OSError) as problem:
            LOG.warning("%s", problem)
        self.beat.write(is_forced=True)

    def _await_units(self, patience_s: float) -> None:
        end = time.monotonic() + patience_s
        while self.flight.flying and time.monotonic() < end and not self._is_hurried:
            try:
                self.flight.collect(timeout_s=0.5)
                self.settle()
            except (GueststarError, OSError) as problem:
                LOG.warning("left without writing down what ran: %s", problem)
                return
            self.beat.write()

    def guarded_turn(self) -> bool:
        """Go round once; where the world fails, wait until it is well and find everything again."""
        try:
            return self.turn()
        except (ServiceDown, OSError) as problem:
            if not is_the_worlds(problem, self.repo.root):
                raise
            self.recovery.wait_out(problem)
            return True

    def turn(self) -> bool:
        """Go round once; return whether anything was done."""
        self.beat.write()
        if self.is_to_reload_settings:
            self.is_to_reload_settings = False
            self.recovery.reload_settings()
        is_held_up = self.hold_ups.is_held_up()
        is_busy = self.flight.collect(timeout_s=0.0)
        self.settle()
        if not is_held_up:
            is_busy |= self._work()
        self._publish()
        self.clock_rules.note_work()
        self.surroundings.look()
        return is_busy

    def _work(self) -> bool:
        """Do what is not done while something holds the operator up."""
        is_busy = self._dispatch()
        is_busy |= self.take_files()
        landed = self.parts.landed()
        is_busy |= self.work.make_calibrations(landed)
        self._series_ended()
        is_busy |= self._dispatch()
        is_busy |= self._associate(landed)
        self.clock_rules.ask()
        is_busy |= self.clock_rules.advance(time.monotonic())
        if not self.n_landed:
            self.nights.close_next(self.parts.actions.keys())
        return is_busy

    def _rest(self) -> None:
        if self.flight.flying:
            self.flight.collect(timeout_s=_BUSY_REST_S)
            return
        parts = (self.work.queue, self.work.order, self.work.sets)
        dues = [due for due in (part.next_due() for part in parts) if due is not None]
        wait = min([_REST_S, *(max(0.02, due - time.monotonic()) for due in dues)])
        self.wake.wait(_BUSY_REST_S if self.publishing.is_sending or self.firings.active else wait)
        self.wake.clear()

    # What there is

    @property
    def repo(self) -> SurveyRepo:
        """The repository as it is open now."""
        return self.standing.repo

    @property
    def n_landed(self) -> int:
        """Files that are there, whole, and not taken in yet."""
        return self.parts.n_landed

    @property
    def running(self) -> Mapping[int, Unit]:
        """Jobs that workers have."""
        return self.flight.flying

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, runs or is arriving."""
        return not (
            not self.flight.is_empty or self.n_landed or len(self.work.queue) or len(self.work.order)
            or len(self.work.sets) or self.work.series or self.firings.n_at_work or self.publishing.is_sending
            or self.work.has_new_alerts or any(intake.n_arriving for intake in self.parts.intakes)
        )  # fmt: skip

    def _is_settled_down(self) -> bool:
        """Whether the landing places were read through, no night is open, and nobody holds the operator up."""
        is_read = all(intake.is_read for intake in self.parts.intakes)
        return is_read and self.standing.mode == "running" and not self.nights.to_close()

    @property
    def has_quarantined(self) -> bool:
        """Whether units failed as often as they may be tried."""
        return any(n for (_, state), n in self.repo.ledger.job_counts().items() if state is JobState.QUARANTINED)

    # Steps

    def take_files(self) -> bool:
        """Take in some of the files that landed: of a backlog one, while there is work that comes first."""
        is_busy, end = False, time.monotonic() + _STEP_S
        for intake in self.parts.intakes:
            self._place_answers(intake)
            for item in intake.next_files(self.repo.settings.operation.queue.files_at_once):
                rows = intake.take(self.repo, item.file)
                for row in rows:
                    self.work.take(row)
                    self.surroundings.last_received = row
                    self.beat.last_exposure = row.id
                intake.taken(item.file)
                is_busy = True
                self.beat.write()
                if time.monotonic() > end or (item.is_late and self.work.has_prompt_work):
                    break
        return is_busy

    def _place_answers(self, intake: Intake) -> None:
        alarming, place = self.standing.alarming, str(intake.settings.path)
        if intake.trouble:
            alarming.wrong("landing_away", place, intake.trouble, "critical")
        else:
            alarming.right("landing_away", place)

    def _dispatch(self) -> bool:
        """Begin as many units as workers are free."""
        is_busy = False
        while self.engine.n_free > 0 and (unit := self.work.queue.take(now=time.monotonic())) is not None:
            is_busy = True
            call = self.work.plan(unit)
            if call is not None and self.repo.ledger.start(call.job_id):
                self.flight.begin(unit, call)
        return is_busy

    def _associate(self, landed: Landed) -> bool:
        """Associate some of the images whose turn it is."""
        is_busy, end = False, time.monotonic() + _STEP_S
        while time.monotonic() < end and self.work.associate_next(landed):
            is_busy = True
        return is_busy

    def settle(self) -> None:
        """Write down what ended; where the world was in a unit's way, look at the disk at once."""
        if self.flight.settle(self.work):
            self.standing.hurry("disk")

    def _series_ended(self) -> None:
        for series in self.work.advance_series():
            self.standing.say(series.line())

    def _publish(self) -> None:
        self.work.has_new_alerts = self.publishing.turn(self.repo, has_new_alerts=self.work.has_new_alerts)
