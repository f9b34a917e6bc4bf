"""One detector of one exposure from raw pixels to vetted candidates: science and difference in one worker.

The calibrated image goes from one step to the other in memory, as its file will be read, so that the difference is
the same, to the bit, as one made later from the file. Two jobs come of it, as where the steps run apart: that of
the science image, which was asked for, and that of the difference, which the ledger learns of with the outcome.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from gueststar.model.image import CalibratedImage
from gueststar.pipelines.engine.outcome import FurtherJob, Outcome, attempt
from gueststar.pipelines.night.difference import DifferenceWork, stage_difference
from gueststar.pipelines.night.science import ScienceWork, stage_science_work
from gueststar.pipelines.night.worker import WorkerContext
from gueststar.store.products import StagedProduct


@dataclass(frozen=True)
class ChainWork:
    """A science image to be made, and the reference that it is compared with at once."""

    science: ScienceWork
    further: FurtherJob
    """The job of the difference."""
    reference: Path
    reference_sources: Path
    subbands: Path | None = None
    """The reference in parts of its band, where it was made with them."""

    @property
    def job_id(self) -> int:
        """Job of the science image: the one that is asked for."""
        return self.science.job_id

    def difference(self, science: Path) -> DifferenceWork:
        """Return the work of the difference, given where the science image will lie."""
        return DifferenceWork(
            job_id=self.further.job_id, repo_root=self.science.repo_root, info=self.science.info,
            detector_id=self.science.detector_id, science=science, reference=self.reference,
            reference_sources=self.reference_sources, settings=self.science.settings, subbands=self.subbands,
        )  # fmt: skip


def run_chain(work: ChainWork) -> Outcome:
    """Make the science image, then its difference; return the outcome of the one with that of the other as `further`.

    A difference that fails leaves the science image as good as it is; where that fails, there is no difference.
    """
    handed: list[tuple[StagedProduct, CalibratedImage]] = []
    science = attempt(work.job_id, lambda: stage_science_work(work.science, hand_on=handed.append))
    if science.state != "done" or not handed:
        return science
    staged, image = handed.pop()
    context = WorkerContext.of(work.science.repo_root)
    after = work.difference(context.stored_path(staged))
    made = attempt(after.job_id, lambda: stage_difference(after, image))
    return replace(science, further=(replace(made, opens=work.further),))
