"""The operator: a loop of short steps that runs a survey by itself.

Take in what landed, decide by rules, plan, hand to the workers by priority, settle what comes back, associate in the
order of the sky, publish, fire the rules that are due, tell how it stands. Each step is bounded, so that none starves
another, and each can be broken off at any moment: the ledger knows what is done.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from gueststar.core.clock import Clock
from gueststar.core.errors import ConfigError, GueststarError, ServiceDown
from gueststar.operations.actions.contract import Action, ActionResult
from gueststar.operations.landing.journal import ReceiptJournal
from gueststar.operations.operator.alarming import Alarming
from gueststar.operations.operator.beat import Beat
from gueststar.operations.operator.control import paused_because, signal_answered, signals_given
from gueststar.operations.operator.facts import night_of
from gueststar.operations.operator.firings import ActiveFiring, Firings, InThread, RunningAction
from gueststar.operations.operator.flight import Flight
from gueststar.operations.operator.intake import Intake
from gueststar.operations.operator.night_work import NightWork
from gueststar.operations.operator.pipeline_actions import (
    END_OF_NIGHT,
    Calibrate,
    WaitFor,
    link_movers,
    publish_alerts,
    series_action,
)
from gueststar.operations.operator.planning import Planning
from gueststar.operations.operator.prewarming import Prewarming
from gueststar.operations.operator.publishing import Publishing
from gueststar.operations.operator.queue import Unit
from gueststar.operations.operator.steadiness import Steadiness
from gueststar.operations.operator.trouble import (
    FIRST_WAIT_S,
    LONGEST_WAIT_S,
    is_the_worlds,
    trouble_with,
    trouble_with_volume,
)
from gueststar.operations.rules.book import RuleBook
from gueststar.operations.rules.contract import Firing
from gueststar.operations.rules.facts import SurveyFactsSource
from gueststar.operations.rules.record import SIGNAL, signal_times, write_rules
from gueststar.pipelines.engine.contract import Engine
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.store.ledger import ExposureRow, JobState
from gueststar.store.repo import SurveyRepo

LOG = logging.getLogger(__name__)

CLOSING = "nights that are over"
"""Name under which the operator itself lets follow what follows a night, where images of it come later."""
CLOSE = "close"
_CLOSES = frozenset({"references", "precover"})
"""A firing with these actions closes its night."""
ALARMS_EVERY_S = 30.0
"""How the survey fares is judged, and alarms are sent, this often."""
ALARMS_AT_REST_S = 60.0
"""The same while nothing is worked on."""
PREWARM_EVERY_S = 15.0
"""The next pointing is looked for this often after exposures came."""
STEPPED_FOR_S = 900.0
"""A step of the machine's clock stays an alarm for so long."""
RULES_EVERY_S = 5.0
"""Rules that follow the clock are asked this often while exposures are worked on."""
RULES_AT_REST_S = 15.0
"""The same while nothing is."""
LOOK_EVERY_S = 60.0
"""The ledger is looked through this often for exposures that somebody else took in."""
CHECK_EVERY_S = 2.0
"""The disk below the repository is looked at this often while there is work."""
BEAT_S = 1.0
"""The picture of the moment is written this often; the loop rests no longer than this."""
_BUSY_REST_S = 0.2
"""Longest rest while workers are busy: what lands is seen that fast."""
Mode = Literal["running", "paused", "waiting", "stopping", "dry"]


@dataclass(frozen=True)
class Parts:
    """What an operator works with."""

    engine: Engine
    clock: Clock
    load_rules: Callable[[SurveyRepo], RuleBook]
    actions: Mapping[str, Action]
    intakes: tuple[Intake, ...] = ()
    open_repo: Callable[[SurveyRepo], SurveyRepo] = lambda repo: SurveyRepo.open(repo.root)
    notify: Callable[[str], object] = lambda _: None
    """Tells the service manager how it stands."""
    watch: Callable[[SurveyRepo], object] = lambda _: None
    """Judges how the survey fares and sends alarms; called every so often, in a thread."""


class Operator:
    """Runs one survey. `turn` is one round of steps; `run` goes round until it is stopped."""

    def __init__(self, repo: SurveyRepo, parts: Parts) -> None:
        self.repo, self.parts = repo, parts
        self.clock, self.engine = parts.clock, parts.engine
        self.rules = parts.load_rules(repo)
        self.stopping, self.wake = threading.Event(), threading.Event()
        self.is_to_reload_settings = self._is_hurried = False
        self.mode: Mode = "running"
        self.why = ""
        self.started = time.time()
        self.recent: deque[str] = deque(maxlen=30)
        self.journal = ReceiptJournal(repo.root)
        self.alarming = Alarming(repo, clock=self.clock)
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="action")
        self.publishing = Publishing(self._pool, self._open_again, self.alarming, clock=self.clock)
        self.flight = Flight(self.engine, self.alarming)
        self._due: dict[str, float] = {}
        self._idle_since = self.clock.now()
        self._watching: threading.Thread | None = None
        self.prewarming = Prewarming(repo, self.engine, clock=self.clock)
        self._last_received: ExposureRow | None = None
        self._steadiness = Steadiness(self.clock)
        planning = Planning(self._open_again, ended=self.wake.set)
        self.work = NightWork(repo, settings_of(repo), self.rules, clock=self.clock, planning=planning)
        self.survey_facts = SurveyFactsSource(repo)
        self.firings = Firings(self._begin_action, clock=self.clock)
        self.beat = Beat(self)

    # The loop

    def start(self, *, is_counted: bool = False) -> None:
        """Find again what an earlier operator left behind, and begin to watch.

        ``is_counted``: units that were running may have caused its end (they ran in its process).
        """
        self.repo.sweep_staging()
        write_rules(self.repo.ledger, self.rules, now=self.clock.now())
        n_lost = self.work.reload(running=(), is_counted=is_counted)
        self.firings.reload(self.repo.ledger)
        self._find_open_nights()
        text = f"process {os.getpid()}" + (f"; {n_lost} jobs of an interrupted run go on" if n_lost else "")
        self.repo.ledger.event("operator", "started", text)
        self._say(f"started, {text}")
        for intake in self.parts.intakes:
            intake.start(self.journal, self.clock, self.wake.set)

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
        self.mode = "stopping"
        for intake in self.parts.intakes:
            intake.stop()
        end = time.monotonic() + patience_s
        while self.flight.flying and time.monotonic() < end and not self._is_hurried:
            try:
                self.flight.collect(timeout_s=0.5)
                self._settle()
            except (GueststarError, OSError) as problem:
                LOG.warning("left without writing down what ran: %s", problem)
                break
            self.beat.write()
        self.work.planning.close()
        self._pool.shutdown(wait=self.publishing.is_sending, cancel_futures=True)
        if self._watching is not None:
            self._watching.join(timeout=10.0)
        gc.unfreeze()  # association froze what was loaded: modules that count their references would complain
        try:
            self.work.ledger.reset_running(is_counted=False)
            self.repo.ledger.event("operator", "stopped", f"process {os.getpid()}")
        except (GueststarError, OSError) as problem:
            LOG.warning("%s", problem)
        self.beat.write(is_forced=True)

    def guarded_turn(self) -> bool:
        """Go round once; where the world fails, wait until it is well and find everything again."""
        try:
            return self.turn()
        except (ServiceDown, OSError) as problem:
            if not is_the_worlds(problem, self.repo.root):
                raise
            self._wait_out(str(problem), is_database=isinstance(problem, ServiceDown))
            return True

    def turn(self) -> bool:
        """Go round once; return whether anything was done."""
        self.beat.write()
        if self.is_to_reload_settings:
            self.reload_settings()
        is_held_up = self._is_paused() or self._has_no_room()
        is_busy = self.flight.collect(timeout_s=0.0)
        self._settle()
        if not is_held_up:
            is_busy |= self.take_files()
            is_busy |= self.work.make_calibrations(is_more_coming=self.n_landed > 0)
            self._series_ended()
            is_busy |= self._dispatch()
            is_busy |= self.work.associate_next(is_more_coming=self.n_landed > 0)
            self._ask_rules()
            is_busy |= self._advance_firings()
            self._close_nights()
        self._publish()
        self._look_around()
        return is_busy

    def _rest(self) -> None:
        if self.flight.flying:
            self.flight.collect(timeout_s=_BUSY_REST_S)
            return
        parts = (self.work.queue, self.work.order, self.work.sets)
        dues = [due for due in (part.next_due() for part in parts) if due is not None]
        wait = min([BEAT_S, *(max(0.02, due - time.monotonic()) for due in dues)])
        self.wake.wait(_BUSY_REST_S if self.publishing.is_sending or self.firings.active else wait)
        self.wake.clear()

    # What there is

    @property
    def n_landed(self) -> int:
        """Files that are there, whole, and not taken in yet."""
        return sum(intake.n_waiting for intake in self.parts.intakes)

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
        return is_read and self.mode == "running" and not self._nights_to_close()

    @property
    def has_quarantined(self) -> bool:
        """Whether units failed as often as they may be tried."""
        return any(n for (_, state), n in self.repo.ledger.job_counts().items() if state is JobState.QUARANTINED)

    # Steps

    def take_files(self) -> bool:
        """Take in some of the files that landed."""
        is_busy = False
        for intake in self.parts.intakes:
            self._place_answers(intake)
            for file in intake.next_files(self.repo.settings.operation.queue.files_at_once):
                rows = intake.take(self.repo, file)
                for row in rows:
                    self.work.take(row)
                    self._last_received = row
                    self.beat.last_exposure = row.id
                intake.taken(file)
                is_busy = True
                self.beat.write()
        return is_busy

    def _place_answers(self, intake: Intake) -> None:
        if intake.trouble:
            self.alarming.wrong("landing_away", str(intake.settings.path), intake.trouble, "critical")
        else:
            self.alarming.right("landing_away", str(intake.settings.path))

    def _dispatch(self) -> bool:
        """Begin as many units as workers are free."""
        is_busy = False
        while self.engine.n_free > 0 and (unit := self.work.queue.take(now=time.monotonic())) is not None:
            is_busy = True
            call = self.work.plan(unit)
            if call is not None and self.repo.ledger.start(call.job_id):
                self.flight.begin(unit, call)
        return is_busy

    def _settle(self) -> None:
        """Write down what ended; where the world was in a unit's way, look at the disk at once."""
        if self.flight.settle(self.work):
            self._due["disk"] = 0.0

    def _series_ended(self) -> None:
        for series in self.work.advance_series():
            self._say(series.line())

    def _publish(self) -> None:
        self.work.has_new_alerts = self.publishing.turn(self.repo, has_new_alerts=self.work.has_new_alerts)

    # Rules that follow the clock

    def _is_due(self, what: str, every_s: float) -> bool:
        now = time.monotonic()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + every_s
        return True

    def _ask_rules(self) -> None:
        signals = signals_given(self.repo.root) if self._is_due("signals", BEAT_S) else {}
        if not signals and not self._is_due("rules", RULES_EVERY_S if self.work.hands else RULES_AT_REST_S):
            return
        now = self.clock.now()
        for name, text in signals.items():
            self.repo.ledger.event(SIGNAL, name, text, at=now)
            self._say(f"signal {name}")
        is_idle = not (self.work.hands or self.work.undecided or self.n_landed or self.firings.n_at_work)
        facts = self.survey_facts.facts(
            now=now, signals=frozenset(signals), is_idle=is_idle, idle_since=self._idle_since
        )
        for firing in self.rules.due(facts, self.firings.last_fired):
            self.firings.fire(firing)
            self._say(f"rule {firing.rule}: {', '.join(name for name, _ in firing.actions)}")
        if "night_begins" in signals:
            self.work.sets.ask(night_of(self.clock.now(), self.repo.camera))
        for name in signals:
            signal_answered(self.repo.root, name)

    def _begin_action(self, name: str, firing: Firing, arguments: Mapping[str, Any]) -> RunningAction:
        since = self.firings.last_fired.get(firing.rule, time.time())
        if name == CLOSE:
            return _Closing(self, firing.night)
        found = series_action(
            name, self.work, firing.night, arguments, priority=int(firing.priority), since=since,
            is_night_over=lambda: self.is_night_over(firing.night),
        )  # fmt: skip
        if found is not None:
            return found
        if name == "calibrate":
            return Calibrate(self.work, firing.night)
        if name == "publish":
            return self._in_thread(publish_alerts, firing, arguments)
        if name == "movers":
            return WaitFor(self.work, firing.night, lambda: self._in_thread(link_movers, firing, arguments))
        if name in self.parts.actions:
            return self._in_thread(self.parts.actions[name], firing, arguments)
        raise ConfigError(f"{name!r} is no action: gueststar rules check {self.repo.root}")

    def _in_thread(self, action: Action, firing: Firing, arguments: Mapping[str, Any]) -> InThread:
        return InThread(self._pool, action, self._open_again, **self._context(firing, arguments))

    def _open_again(self) -> SurveyRepo:
        return self.parts.open_repo(self.repo)

    def _context(self, firing: Firing, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return {"night": firing.night, "now": self.clock.now(), "arguments": arguments}

    def _advance_firings(self) -> bool:
        ended = self.firings.advance(now=time.monotonic())
        for active, name, result in ended:
            self._say(f"{name}: {result.text}")
            self._action_ended(active, name, result)
            ran = {action for action, _ in active.firing.actions}
            is_closing = ran >= _CLOSES and CLOSE not in ran
            if active.is_over and is_closing and not self.work.has_work_of(active.firing.night):
                _Closing(self, active.firing.night).result()
        return bool(ended)

    def _action_ended(self, active: ActiveFiring, name: str, result: ActionResult) -> None:
        for condition in result.conditions:
            if condition.is_wrong:
                self.alarming.wrong(condition.kind, condition.subject, condition.text, condition.severity)
            else:
                self.alarming.settle(condition.kind, condition.subject)
        if result.state == "failed":
            text = f"{name} of rule {active.firing.rule} failed: {result.text}"
            self.alarming.wrong("action_failed", name, text, "warning")
        else:
            self.alarming.right("action_failed", name)
        if name == "update_ephemerides" and result.state == "done":
            self.work.forget_orbits()

    # Nights that are over

    def _find_open_nights(self) -> None:
        """Note the nights of which images were associated since they were closed: a killed operator left them."""
        closed: dict[int, float] = {}
        for what in ("closed", "processed"):
            for event in self.repo.ledger.events(what=what):
                closed[int(event.subject)] = max(closed.get(int(event.subject), 0.0), event.time)
        for night, finished in self.repo.ledger.last_finished("science").items():
            if finished > closed.get(night, 0.0):
                self.work.changed[night] += 1

    def is_night_over(self, night: int) -> bool:
        """Return whether a night has ended, by the date, the sun or the observatory's signal."""
        now = self.clock.now()
        if night != night_of(now, self.repo.camera):
            return True
        almanac = self.rules.almanac
        if almanac.night.by != "signal":
            end = almanac.nights.edge(night, "ends", altitude_deg=almanac.night.sun_altitude)
            if end is not None and now >= end:
                return True
        came = signal_times(self.repo.ledger).get("night_ends") if almanac.night.by != "sun" else None
        return came is not None and almanac.nights.night_of(came) == night

    def _nights_to_close(self) -> list[int]:
        tonight = night_of(self.clock.now(), self.repo.camera)
        return [night for night, n in self.work.changed.items() if n and night != tonight]

    def _close_nights(self) -> None:
        """Let what follows a night follow, where images of a night that is over have come since."""
        if self.n_landed or any(active.firing.rule == CLOSING for active in self.firings.active):
            return
        for night in sorted(self._nights_to_close()):
            if not self.work.has_work_of(night):
                n = self.work.changed[night]
                names = [*END_OF_NIGHT, *(name for name in ("night_report",) if name in self.parts.actions)]
                actions: list[tuple[str, Mapping[str, Any]]] = [(name, {}) for name in [*names, CLOSE]]
                why = f"{n} detector images of a night that is over have come to their end"
                self.firings.fire(Firing(CLOSING, actions, night, why=why))
                return

    # What holds it up

    def _reason_to_pause(self) -> str | None:
        downtime = self.rules.maintenance_at(self.clock.now())
        return paused_because(self.repo.root) if downtime is None else f"planned downtime: {downtime.reason}"

    def _is_paused(self) -> bool:
        if self._is_due("paused", BEAT_S):
            reason = self._reason_to_pause()
            if reason is not None and self.mode != "paused":
                self.repo.ledger.event("operator", "paused", reason)
                self._say(f"paused: {reason}")
            if reason is None and self.mode == "paused":
                self.repo.ledger.event("operator", "resumed", self.why)
                self._say("resumed")
            if reason is not None or self.mode == "paused":
                self.mode, self.why = ("running", "") if reason is None else ("paused", reason)
        return self.mode == "paused"

    def _has_no_room(self) -> bool:
        """Whether nothing may be begun because the disk is (nearly) full or cannot be written."""
        if self._is_due("disk", CHECK_EVERY_S):
            trouble = trouble_with_volume(self.repo.root, reserve_gb=self.repo.settings.operation.disks.reserve_gb)
            if trouble and self.mode == "running":
                self.mode, self.why = "waiting", trouble
                self._say(f"waiting: {trouble}")
                self.alarming.wrong("disk_full", str(self.repo.root), trouble, "critical")
            elif not trouble and self.mode == "waiting":
                self.mode, self.why = "running", ""
                self._say("going on: there is room again")
                self.alarming.right("disk_full", str(self.repo.root))
        return self.mode == "waiting"

    def _wait_out(self, problem: str, *, is_database: bool) -> None:
        """Wait until the repository and its database can be used, then find everything again."""
        kind = "database_away" if is_database else "repository_away"
        self.mode, self.why, wait = "waiting", problem, FIRST_WAIT_S
        self._say(f"waiting: {problem}")
        reserve_gb = self.repo.settings.operation.disks.reserve_gb
        while not self.stopping.is_set():
            self.alarming.wrong(kind, str(self.repo.root), problem, "critical")
            self.beat.write()
            self.stopping.wait(min(wait, BEAT_S))
            if not self._is_due("knock", wait):
                continue
            wait = min(1.5 * wait, LONGEST_WAIT_S)
            try:
                self.flight.collect(timeout_s=0.0)
                if trouble := trouble_with(self.repo, reserve_gb=reserve_gb):
                    self.why = trouble
                    continue
                self._go_on()
            except (ServiceDown, OSError) as again:
                self.why = str(again)
            else:
                self.alarming.right(kind, str(self.repo.root))
                return

    def _go_on(self) -> None:
        """Open the repository anew and find again what there is to do; what workers have goes on."""
        fresh = SurveyRepo.open(self.repo.root)
        before, self.repo, self.alarming.repo, self.prewarming.repo = self.repo, fresh, fresh, fresh
        before.close()
        self.work.use(fresh, settings_of(fresh))
        self.survey_facts = SurveyFactsSource(fresh)
        self.work.ledger.reset_running(is_counted=False, but=self.flight.jobs)
        self._settle()
        self.work.reload(running=self.flight.flying, is_counted=False)
        self.work.has_new_alerts = True
        self.firings.reload(fresh.ledger)
        self._find_open_nights()
        self.mode, self.why = "running", ""
        self._say("going on")

    def reload_settings(self) -> None:
        """Read survey.yaml and the rules anew; where one is wrong, go on with the last good ones."""
        self.is_to_reload_settings = False
        try:
            fresh = SurveyRepo.open(self.repo.root)
            self.rules = self.parts.load_rules(fresh)
            settings_of(fresh)
        except ConfigError as problem:
            self.alarming.wrong("rules_invalid", str(self.repo.root), str(problem), "critical")
            return
        fresh.close()
        self.alarming.right("rules_invalid", str(self.repo.root))
        write_rules(self.repo.ledger, self.rules, now=self.clock.now())
        self.work.rules = self.rules
        self._say("settings and rules read anew")
        self._go_on()

    # What there is besides

    def _look_around(self) -> None:
        """Every so often: exposures that somebody else took in, alarms that are to be sent."""
        if self.work.hands or self.work.undecided or self.n_landed:
            self._idle_since = self.clock.now()
        self._watch_clock()
        if self._last_received is not None and self._is_due("prewarm", PREWARM_EVERY_S):
            self._prewarm()
        if self._is_due("look", LOOK_EVERY_S):
            self._prewarm()
            self.work.planner.look_again()
            n_found = self.work.look_for_exposures()
            if n_found:
                self._say(f"{n_found} exposures that were taken in beside")
        every_s = ALARMS_EVERY_S if self.work.hands or self.mode != "running" else ALARMS_AT_REST_S
        if self._is_due("alarms", every_s) and (self._watching is None or not self._watching.is_alive()):
            self._watching = threading.Thread(target=self._watch, name="watching", daemon=True)
            self._watching.start()

    def _prewarm(self) -> None:
        if not self.repo.settings.operation.queue.do_prewarm:
            return
        if n_files := self.prewarming.turn(self._last_received):
            self._say(f"{n_files} files of the next pointing are read ahead")

    def _watch_clock(self) -> None:
        """Say when the machine's clock was set: durations do not follow it, latencies do."""
        if step := self._steadiness.step_s():
            text = f"the machine's clock was set by {step:+.0f} s: latencies of this time are wrong"
            self.repo.ledger.event("clock", "", text, step_s=step)
            self._say(text)
            self.alarming.wrong("clock_stepped", "", text, "warning")
            self._due["clock"] = time.monotonic() + STEPPED_FOR_S
        elif self._is_due("clock", STEPPED_FOR_S):
            self.alarming.right("clock_stepped", "")

    def _watch(self) -> None:
        """Judge how the survey fares, and let alarms leave; troubles with that stop nothing."""
        try:
            self.parts.watch(self.repo)
        except (GueststarError, OSError) as problem:
            LOG.warning("alarms wait: %s", problem)

    def _say(self, line: str) -> None:
        """Tell what was done: to the log, and among the last lines of the picture."""
        LOG.info(line)
        self.recent.append(f"{time.strftime('%H:%M:%S', time.gmtime(self.clock.now()))} {line}")


@dataclass
class _Closing:
    """The end of what follows a night."""

    operator: Operator
    night: int

    def result(self) -> ActionResult:
        """Write down that the night is closed."""
        self.operator.work.changed.pop(self.night, None)
        self.operator.repo.ledger.event("closed", str(self.night), f"night {self.night}: all that follows it is done")
        return ActionResult("done", f"night {self.night} is closed")


def settings_of(repo: SurveyRepo) -> PipelineSettings:
    """Return the parameters of a survey's pipelines."""
    return PipelineSettings.of(repo.camera.settings, repo.settings.parameters)
