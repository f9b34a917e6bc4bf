"""Every parameter of a night's pipelines: the defaults of the tasks, overridden by camera and survey."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gueststar.algorithms.astrometry.config import AstrometryConfig
from gueststar.algorithms.astrometry.learn_distortion import LearnDistortionConfig
from gueststar.algorithms.background.estimate import BackgroundConfig
from gueststar.algorithms.photocal.config import PhotometryConfig
from gueststar.pipelines.alerts.visit import AlertVisitConfig
from gueststar.pipelines.calibration.bias import MakeBiasConfig
from gueststar.pipelines.calibration.brighter_fatter import MakeBrighterFatterConfig
from gueststar.pipelines.calibration.charge_transfer import MakeChargeTransferConfig
from gueststar.pipelines.calibration.crosstalk import MakeCrosstalkConfig
from gueststar.pipelines.calibration.dark import MakeDarkConfig
from gueststar.pipelines.calibration.defects import MakeDefectsConfig
from gueststar.pipelines.calibration.flat import MakeFlatConfig
from gueststar.pipelines.calibration.fringe import MakeFringeConfig
from gueststar.pipelines.calibration.illumination import MakeIlluminationConfig
from gueststar.pipelines.calibration.linearity import MakeLinearityConfig
from gueststar.pipelines.calibration.photon_transfer import MakePhotonTransferConfig
from gueststar.pipelines.calibration.relative_photometry import RelativePhotometryConfig
from gueststar.pipelines.calibration.shutter import MakeShutterConfig
from gueststar.pipelines.difference.detect import DetectionConfig
from gueststar.pipelines.difference.forced import DifferenceForcedConfig, PrecoveryConfig
from gueststar.pipelines.difference.reference_warp import ReferenceWarpConfig
from gueststar.pipelines.difference.streaks import StreaksConfig
from gueststar.pipelines.difference.subtract import DifferenceConfig
from gueststar.pipelines.difference.vet import VetConfig
from gueststar.pipelines.injection.place import InjectionConfig, NightlyInjectionConfig
from gueststar.pipelines.moving.streak_tracks import StreakTracksConfig
from gueststar.pipelines.moving.tracklets import TrackletConfig
from gueststar.pipelines.overrides import as_plain, with_overrides
from gueststar.pipelines.reference.compare import CompareReferencesConfig
from gueststar.pipelines.reference.reference_image import MakeReferenceConfig
from gueststar.pipelines.reference.select_epochs import SelectEpochsConfig
from gueststar.pipelines.science.catalogs import MakeCatalogsConfig
from gueststar.pipelines.science.depth import DepthConfig
from gueststar.pipelines.science.detrend import DetrendConfig
from gueststar.pipelines.science.ghosts import GhostConfig
from gueststar.pipelines.science.halos import HaloConfig
from gueststar.pipelines.science.psf import MeasurePsfConfig

SCIENCE = ("detrend", "background", "psf", "catalogs", "astrometry", "photometry", "halos", "ghosts", "depth")
INJECTION = ("injection", "catalogs", "reference_warp", "subtraction", "detection", "vetting")
DIFFERENCE = ("reference_warp", "subtraction", "detection", "vetting", "streaks")


@dataclass(frozen=True)
class PipelineSettings:
    """One section a task; the names of the fields are the sections of ``parameters`` in survey.yaml."""

    bias: MakeBiasConfig = field(default_factory=MakeBiasConfig)
    dark: MakeDarkConfig = field(default_factory=MakeDarkConfig)
    linearity: MakeLinearityConfig = field(default_factory=MakeLinearityConfig)
    photon_transfer: MakePhotonTransferConfig = field(default_factory=MakePhotonTransferConfig)
    brighter_fatter: MakeBrighterFatterConfig = field(default_factory=MakeBrighterFatterConfig)
    charge_transfer: MakeChargeTransferConfig = field(default_factory=MakeChargeTransferConfig)
    shutter: MakeShutterConfig = field(default_factory=MakeShutterConfig)
    flat: MakeFlatConfig = field(default_factory=MakeFlatConfig)
    defects: MakeDefectsConfig = field(default_factory=MakeDefectsConfig)
    crosstalk: MakeCrosstalkConfig = field(default_factory=MakeCrosstalkConfig)
    fringe: MakeFringeConfig = field(default_factory=MakeFringeConfig)
    illumination: MakeIlluminationConfig = field(default_factory=MakeIlluminationConfig)
    detrend: DetrendConfig = field(default_factory=DetrendConfig)
    background: BackgroundConfig = field(default_factory=BackgroundConfig)
    psf: MeasurePsfConfig = field(default_factory=MeasurePsfConfig)
    catalogs: MakeCatalogsConfig = field(default_factory=MakeCatalogsConfig)
    astrometry: AstrometryConfig = field(default_factory=AstrometryConfig)
    distortion: LearnDistortionConfig = field(default_factory=LearnDistortionConfig)
    photometry: PhotometryConfig = field(default_factory=PhotometryConfig)
    relative_photometry: RelativePhotometryConfig = field(default_factory=RelativePhotometryConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    halos: HaloConfig = field(default_factory=HaloConfig)
    ghosts: GhostConfig = field(default_factory=GhostConfig)
    reference_selection: SelectEpochsConfig = field(default_factory=SelectEpochsConfig)
    reference: MakeReferenceConfig = field(default_factory=MakeReferenceConfig)
    reference_comparison: CompareReferencesConfig = field(default_factory=CompareReferencesConfig)
    reference_warp: ReferenceWarpConfig = field(default_factory=ReferenceWarpConfig)
    subtraction: DifferenceConfig = field(default_factory=DifferenceConfig)
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    vetting: VetConfig = field(default_factory=VetConfig)
    streaks: StreaksConfig = field(default_factory=StreaksConfig)
    injection: InjectionConfig = field(default_factory=InjectionConfig)
    nightly_injection: NightlyInjectionConfig = field(default_factory=NightlyInjectionConfig)
    forced: DifferenceForcedConfig = field(default_factory=DifferenceForcedConfig)
    precovery: PrecoveryConfig = field(default_factory=PrecoveryConfig)
    alerts: AlertVisitConfig = field(default_factory=AlertVisitConfig)
    tracklets: TrackletConfig = field(default_factory=TrackletConfig)
    streak_tracks: StreakTracksConfig = field(default_factory=StreakTracksConfig)

    @classmethod
    def of(cls, *layers: Mapping[str, Mapping[str, Any]]) -> PipelineSettings:
        """Return the defaults with layers of overrides on top, the last one strongest.

        Raises ConfigError for an unknown section or key, naming it.
        """
        settings = cls()
        for layer in layers:
            settings = with_overrides(settings, layer, where="parameters")
        return settings

    def part(self, sections: tuple[str, ...]) -> dict[str, Any]:
        """Return some sections as plain values, to be recorded with what they made."""
        return {name: as_plain(getattr(self, name)) for name in sections}
