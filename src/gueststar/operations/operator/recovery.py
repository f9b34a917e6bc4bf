"""Waiting out what the world does, and going on from what the ledger knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gueststar.core.errors import ConfigError, ServiceDown
from gueststar.operations.operator.parts import settings_of
from gueststar.operations.operator.trouble import FIRST_WAIT_S, LONGEST_WAIT_S, trouble_with
from gueststar.operations.rules.record import write_rules
from gueststar.store.repo import SurveyRepo

if TYPE_CHECKING:
    from gueststar.operations.operator.daemon import Operator

_LOOK_EVERY_S = 1.0
"""Longest pause between two pictures of the moment while it waits."""


class Recovery:
    """Brings an operator back to work: after an outage, or with other settings."""

    def __init__(self, operator: Operator) -> None:
        self.operator, self.standing = operator, operator.standing

    def wait_out(self, problem: ServiceDown | OSError) -> None:
        """Wait until the repository and its database can be used, then find everything again."""
        standing, stopping = self.standing, self.operator.stopping
        kind = "database_away" if isinstance(problem, ServiceDown) else "repository_away"
        standing.become("waiting", str(problem))
        standing.say(f"waiting: {problem}")
        wait = FIRST_WAIT_S
        while not stopping.is_set():
            standing.alarming.wrong(kind, str(standing.repo.root), str(problem), "critical")
            self.operator.beat.write()
            stopping.wait(min(wait, _LOOK_EVERY_S))
            if not standing.is_due("knock", wait):
                continue
            wait = min(1.5 * wait, LONGEST_WAIT_S)
            if self._is_well():
                standing.alarming.right(kind, str(standing.repo.root))
                return

    def _is_well(self) -> bool:
        """Try to go on; return whether that worked."""
        standing = self.standing
        try:
            self.operator.flight.collect(timeout_s=0.0)
            reserve_gb = standing.repo.settings.operation.disks.reserve_gb
            if trouble := trouble_with(standing.repo, reserve_gb=reserve_gb):
                standing.why = trouble
                return False
            self.go_on()
        except (ServiceDown, OSError) as again:
            standing.why = str(again)
            return False
        return True

    def go_on(self) -> None:
        """Open the repository anew and find again what there is to do; what workers have goes on."""
        operator, standing = self.operator, self.standing
        fresh, before = SurveyRepo.open(standing.repo.root), standing.repo
        standing.use(fresh)
        operator.surroundings.use(fresh)
        before.close()
        operator.work.use(fresh, settings_of(fresh))
        operator.clock_rules.use(fresh)
        operator.work.ledger.reset_running(is_counted=False, but=operator.flight.jobs)
        operator.settle()
        operator.work.reload(running=operator.flight.flying, is_counted=False)
        operator.work.has_new_alerts = True
        operator.firings.reload(fresh.ledger)
        operator.nights.find_open()
        standing.become("running")
        standing.say("going on")

    def reload_settings(self) -> None:
        """Read survey.yaml and the rules anew; where one is wrong, go on with the last good ones."""
        standing, root = self.standing, str(self.standing.repo.root)
        try:
            fresh = SurveyRepo.open(standing.repo.root)
            rules = self.operator.parts.load_rules(fresh)
            settings_of(fresh)
        except ConfigError as problem:
            standing.alarming.wrong("rules_invalid", root, str(problem), "critical")
            return
        fresh.close()
        standing.alarming.right("rules_invalid", root)
        write_rules(standing.repo.ledger, rules, now=standing.clock.now())
        standing.rules = self.operator.work.rules = rules
        standing.say("settings and rules read anew")
        self.go_on()
