"""Score detections: how likely each is real."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gueststar.algorithms.vetting.drift import bin_counts
from gueststar.algorithms.vetting.features import measure_features
from gueststar.algorithms.vetting.score import ReliabilityModel, score
from gueststar.formats.reliability_model import default_reliability_model, read_reliability_model
from gueststar.model.catalog import Catalog
from gueststar.pipelines.difference.cutouts import Triplet, views_of
from gueststar.pipelines.difference.train import watched_edges, watched_values


@dataclass(frozen=True)
class VetConfig:
    """How detections are scored."""

    model: str = ""
    """Path of a reliability model; empty: the one in use in the survey (`vet use`), else the one that ships."""
    keep_cutouts: float = 0.02
    """Detections of at least this score keep their cut-outs, for alerts and to be labelled."""


class Vetted(NamedTuple):
    """Scored detections."""

    dia_sources: Catalog
    """`DIA_SOURCE` rows with ``reliability`` and ``stamp_reliability``."""
    metrics: dict[str, Any]
    """``version``, ``network_version``: names of model and network; ``n_reliable``: detections with a score of at
    least one half; ``counts``: of features and scores, in the bins of the model's training rows."""


class VetCandidates:
    """Fill in the reliability of detections."""

    def __init__(self, config: VetConfig = VetConfig(), *, model: ReliabilityModel | None = None) -> None:
        """``model`` takes the place of the one that ships, but not of one that the configuration names."""
        self.config = config
        if config.model:
            self._model = read_reliability_model(Path(config.model))
        else:
            self._model = model or default_reliability_model()

    @property
    def version(self) -> str:
        """Name of the model, as alerts tell it."""
        return self._model.version

    def run(self, dia_sources: Catalog, triplet: Triplet | None = None) -> Vetted:
        """Return the `DIA_SOURCE` rows of one image with their scores.

        Without the images, of which the network sees cut-outs, features alone are judged.
        """
        features = measure_features(dia_sources)
        views = None
        if triplet is not None and self._model.network is not None:
            views = views_of(dia_sources, triplet)
        scores = score(self._model, features, views)
        metrics: dict[str, Any] = {
            "version": self.version,
            "network_version": self._model.network_version if views is not None else "",
            "n_reliable": int((scores.reliability >= 0.5).sum()),
        }
        if edges := watched_edges(self._model):
            metrics["counts"] = [count.tolist() for count in bin_counts(watched_values(features, scores), edges)]
        scored = dia_sources.replace(
            reliability=scores.reliability.astype(np.float32), stamp_reliability=scores.stamps.astype(np.float32)
        )
        return Vetted(scored, metrics)
