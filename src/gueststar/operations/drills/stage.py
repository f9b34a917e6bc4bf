"""Where drills are played: surveys as they stand in the evening, their operators, and the undisturbed night."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gueststar.core.errors import GueststarError
from gueststar.operations.drills.judge import Judgement, compare_surveys
from gueststar.operations.drills.link import CameraLink, Delivery, timetable
from gueststar.operations.drills.operating import Operating
from gueststar.operations.drills.verdict import Protocol
from gueststar.operations.drills.world import World, change_settings, fresh_survey
from gueststar.store.ledger import ExposureState
from gueststar.store.repo import SurveyRepo

BEFORE_S = 5.0
"""The operator's clock starts this long before the first exposure ends."""
UNIT_LIMIT_S = 30.0
"""What a unit may take in drills that wait for the end of one that hangs. A new worker's first unit, imports and all,
must end within it where other programs have most of the machine, or no worker ever ends one."""


@dataclass
class Stage:
    """One world, and a folder in which surveys are rehearsed."""

    world: World
    folder: Path
    workers: int = 1
    before_s: float = BEFORE_S
    _quiet: Path | None = field(default=None, init=False)

    def survey(self, name: str, operation: dict[str, Any] | None = None) -> Path:
        """Return a new survey as it stands in the evening, with a landing place, to be operated."""
        return self.prepared(fresh_survey(self.world, self.folder / name), operation)

    def prepared(self, root: Path, operation: dict[str, Any] | None = None) -> Path:
        """Give a survey its landing place and settings of operation (further ones on top)."""
        landing = self.landing(root)
        landing.mkdir(exist_ok=True)
        place = {"path": str(landing), "complete_by": "stable", "stable_s": 1.0, "scan_s": 1.0}
        change_settings(root, {"operation": {"landing": [place], **(operation or {})}})
        return root

    @staticmethod
    def landing(root: Path) -> Path:
        """Return the landing place of a survey."""
        return root.parent / f"{root.name}.landing"

    def operating(self, root: Path, *options: object, workers: int | None = None) -> Operating:
        """Return the operator of a survey, not yet started: its clock says that the night is about to begin."""
        starts = self.world.begins - self.before_s
        return Operating(root, "--workers", workers or self.workers, *options, clock_starts=starts)

    def link(
        self, root: Path, deliveries: Sequence[Delivery] | None = None, *, begins: float | None = None, **options: Any
    ) -> CameraLink:
        """Return the camera's link to a survey, not yet open; without deliveries it brings the night as it was.

        ``begins``: what time it is when it is opened, Unix; that at which the operator is started where None.
        """
        if deliveries is None:
            deliveries = self.timetable(begins=begins, **options)
        return CameraLink(deliveries, self.landing(root))

    def timetable(self, *, begins: float | None = None, **options: Any) -> list[Delivery]:
        """Return when the files of the night come over a link that is opened at ``begins``, as `link` does."""
        begins = self.world.begins - self.before_s if begins is None else begins
        return timetable(self.world.files(), begins=begins, **options)

    def quiet(self) -> Path:
        """Return the survey after an undisturbed night, which is lived through once."""
        if self._quiet is None:
            root = self.folder / "quiet"
            if not root.exists():
                self.survey("quiet")
                with self.operating(root) as operator, self.link(root, begins=operator.what_time_it_is()):
                    self.wait_for_all(root, operator, timeout_s=1200.0)
                    operator.stop()
            self._quiet = root
        return self._quiet

    @property
    def n_images(self) -> int:
        """Detector images of the sky that the night brings."""
        return self.world.n_images

    def wait_for_all(
        self, root: Path, operator: Operating, *, n_images: int | None = None, timeout_s: float = 600.0
    ) -> float:
        """Wait until all detector images have come to their end; return how long that took, seconds."""
        wanted = self.n_images if n_images is None else n_images
        with EndedImages(root, self.world.night) as ended:
            return operator.wait_until(lambda: ended.count() >= wanted, f"{wanted} images ended", timeout_s=timeout_s)

    def wait_for(self, root: Path, operator: Operating, n_images: int, *, timeout_s: float = 600.0) -> float:
        """Wait until some detector images have come to their end."""
        return self.wait_for_all(root, operator, n_images=n_images, timeout_s=timeout_s)

    def judge(self, root: Path, told: Protocol, *, may_differ_in_history: bool = False) -> Judgement:
        """Compare with the undisturbed night and write down what every drill expects."""
        judged = compare_surveys(self.quiet(), root, night=self.world.night)
        told.expect(
            "nothing of the night is unexplained", is_met=judged.unexplained == 0,
            seen=", ".join(f"{n} {fate}" for fate, n in judged.fates.items() if n),
        )  # fmt: skip
        for name in ("dia_source", "source", "science_image", "difference_image"):
            if name in judged.products:
                compared = judged.products[name]
                told.expect(f"{name} as undisturbed", is_met=compared.is_same, seen=compared.line("products"))
        is_met = judged.alerts.is_same_but_history if may_differ_in_history else judged.alerts.is_same
        told.expect("alerts as undisturbed, none twice", is_met=is_met, seen=judged.alerts.line("packets"))
        return judged


class EndedImages(AbstractContextManager["EndedImages"]):
    """Counts a night's detector images many times a second, over one connection to the survey while it holds."""

    def __init__(self, root: Path, night: int) -> None:
        self.root, self.night = root, night
        self._repo: SurveyRepo | None = None

    def count(self) -> int:
        """Return how many have no work left: processed, failed or held; 0 while the database is away."""
        try:
            self._repo = self._repo or SurveyRepo.open(self.root)
            rows = self._repo.ledger.exposures(day_obs=self.night, observation_type="science")
        except (GueststarError, OSError):
            self.close()
            return 0
        return sum(len(row.detectors) for row in rows if row.state is not ExposureState.RECEIVED)

    def close(self) -> None:
        """Let go of the connection; the next count makes another."""
        repo, self._repo = self._repo, None
        if repo is not None:
            with suppress(GueststarError, OSError):
                repo.close()

    def __exit__(self, *_: object) -> None:
        self.close()
