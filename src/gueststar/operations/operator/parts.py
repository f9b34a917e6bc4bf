"""What an operator is given to work with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gueststar.core.clock import Clock
from gueststar.operations.actions.contract import Action
from gueststar.operations.operator.intake import Intake
from gueststar.operations.operator.landed import Landed
from gueststar.operations.rules.book import RuleBook
from gueststar.pipelines.engine.contract import Engine
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.store.repo import SurveyRepo


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

    @property
    def n_landed(self) -> int:
        """Files that are there, whole, and not taken in yet."""
        return sum(intake.n_waiting for intake in self.intakes)

    def landed(self) -> Landed:
        """Return what those files hold, as far as their headers tell."""
        return Landed(
            [info for intake in self.intakes for info in intake.infos],
            n_unseen=sum(intake.n_unseen for intake in self.intakes),
        )


def settings_of(repo: SurveyRepo) -> PipelineSettings:
    """Return the parameters of a survey's pipelines."""
    return PipelineSettings.of(repo.camera.settings, repo.settings.parameters)
