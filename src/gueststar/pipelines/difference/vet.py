"""Score detections: how likely each is real."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gueststar.algorithms.vetting.features import measure_features
from gueststar.algorithms.vetting.score import ReliabilityModel, score
from gueststar.formats.reliability_model import default_reliability_model, read_reliability_model
from gueststar.model.catalog import Catalog


@dataclass(frozen=True)
class VetConfig:
    """How detections are scored."""

    model: str = ""
    """Path of a reliability model; empty: the one that ships with the package."""


class Vetted(NamedTuple):
    """Scored detections."""

    dia_sources: Catalog
    """`DIA_SOURCE` rows with ``reliability``."""
    metrics: dict[str, Any]
    """``version``: name of the model; ``n_reliable``: detections with a score of at least one half."""


class VetCandidates:
    """Fill in the reliability of detections."""

    def __init__(self, config: VetConfig = VetConfig(), *, model: ReliabilityModel | None = None) -> None:
        """``model`` takes the place of the one that the configuration names."""
        self.config = config
        self._model = model or (
            read_reliability_model(Path(config.model)) if config.model else default_reliability_model()
        )

    @property
    def version(self) -> str:
        """Name of the model, as alerts tell it."""
        return self._model.version

    def run(self, dia_sources: Catalog) -> Vetted:
        """Return the `DIA_SOURCE` rows of one image with their scores."""
        scores = score(self._model, measure_features(dia_sources))
        metrics = {"version": self.version, "n_reliable": int((scores >= 0.5).sum())}
        return Vetted(dia_sources.replace(reliability=scores), metrics)
