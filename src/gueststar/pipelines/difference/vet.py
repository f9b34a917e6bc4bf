"""Score detections: how likely each is real."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gueststar.algorithms.vetting.features import measure_features
from gueststar.algorithms.vetting.score import ReliabilityModel, score
from gueststar.formats.reliability_model import default_reliability_model, read_reliability_model
from gueststar.model.catalog import Catalog


@dataclass(frozen=True)
class VettingConfig:
    """How detections are scored."""

    model: str = ""
    """Path of a reliability model; empty: the one that ships with the package."""


class VetCandidates:
    """Fill in the reliability of detections."""

    def __init__(self, config: VettingConfig = VettingConfig(), *, model: ReliabilityModel | None = None) -> None:
        """``model`` takes the place of the one that the configuration names."""
        self.config = config
        self._model = model or (
            read_reliability_model(Path(config.model)) if config.model else default_reliability_model()
        )

    @property
    def version(self) -> str:
        """Name of the model, as alerts tell it."""
        return self._model.version

    def run(self, dia_sources: Catalog, *, psf_fwhm: float, pixel_scale_arcsec: float) -> Catalog:
        """Return the `DIA_SOURCE` rows with ``reliability``; ``psf_fwhm`` is of the difference's PSF, pixels."""
        features = measure_features(dia_sources, psf_fwhm=psf_fwhm, pixel_scale_arcsec=pixel_scale_arcsec)
        return dia_sources.replace(reliability=score(self._model, features))
