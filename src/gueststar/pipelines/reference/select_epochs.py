"""Which epochs make a reference, and why the others do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class EpochQuality:
    """What is recorded of a calibrated image that may enter a reference."""

    name: str
    """How the caller calls it (visit id, for example); unique."""
    mjd_tai: float
    fwhm_arcsec: float
    limiting_mag: float
    """5-sigma depth for a point source."""
    zero_point: float
    """AB magnitude of one electron per exposure."""
    exposure_s: float
    astrometric_rms_arcsec: float
    """Scatter about the reference catalog, per axis."""
    background: float
    """Sky level, electrons per pixel."""


@dataclass(frozen=True)
class SelectEpochsConfig:
    """Which epochs are good enough."""

    min_epochs: int = 5
    """Fewer good epochs than this make no reference."""
    max_epochs: int = 40
    """The best this many are taken."""
    max_fwhm_arcsec: float = 5.0
    """Worse seeing than this is never used."""
    max_fwhm_factor: float = 1.5
    """Worse seeing than this times the best quarter's is not used."""
    max_extinction: float = 0.4
    """Zero point (per second) below the best tenth's by more than this: clouds, mag."""
    max_background_factor: float = 4.0
    """Sky brighter (per second) than this times the median is not used."""
    max_astrometric_rms_arcsec: float = 0.2
    """Poorer astrometry than this is not used."""
    max_depth_loss: float = 1.5
    """Shallower than the best tenth by more than this is not worth adding, mag."""


@dataclass(frozen=True)
class EpochDecision:
    """Whether an epoch is used, and the reason in words."""

    name: str
    is_used: bool
    reason: str


@dataclass(frozen=True)
class EpochSelection:
    """The outcome, best epoch first among ``used``; ``decisions`` in the order of the input."""

    used: tuple[str, ...]
    decisions: tuple[EpochDecision, ...]
    is_enough: bool


class SelectEpochs:
    """Choose the epochs of a reference by their recorded quality."""

    def __init__(self, config: SelectEpochsConfig = SelectEpochsConfig()) -> None:
        self.config = config

    def run(self, epochs: list[EpochQuality]) -> EpochSelection:
        """Return which of ``epochs`` to use: the deepest that pass all limits, ties by seeing, then by time."""
        reasons = {e.name: self._objection(e, epochs) for e in epochs}
        good = [e for e in epochs if not reasons[e.name]]
        good.sort(key=lambda e: (-round(e.limiting_mag, 3), round(e.fwhm_arcsec, 3), e.mjd_tai, e.name))
        is_enough = len(good) >= self.config.min_epochs
        used = tuple(e.name for e in good[: self.config.max_epochs]) if is_enough else ()
        for rank, epoch in enumerate(good, 1):
            reasons[epoch.name] = self._verdict(rank, len(good), is_enough)
        return EpochSelection(
            used, tuple(EpochDecision(e.name, e.name in used, reasons[e.name]) for e in epochs), is_enough
        )

    def _verdict(self, rank: int, n_good: int, is_enough: bool) -> str:
        if not is_enough:
            return f"good, but only {n_good} of the {self.config.min_epochs} good epochs that are needed"
        if rank > self.config.max_epochs:
            return f"good, but number {rank} by depth where {self.config.max_epochs} are enough"
        return f"used: number {rank} of {n_good} by depth"

    def _objection(self, epoch: EpochQuality, epochs: list[EpochQuality]) -> str:
        """Return why an epoch cannot be used; empty if it can."""
        config = self.config
        values = [getattr(epoch, name) for name in _NUMBERS]
        if not np.all(np.isfinite(values)):
            return "quality is not known: " + ", ".join(
                n for n, v in zip(_NUMBERS, values, strict=True) if not np.isfinite(v)
            )
        known = [e for e in epochs if np.all(np.isfinite([getattr(e, name) for name in _NUMBERS]))]
        limits = self._limits(known)
        sky, zero_point = epoch.background / epoch.exposure_s, _per_second(epoch)
        rms = epoch.astrometric_rms_arcsec
        checks = (
            (epoch.fwhm_arcsec > limits.fwhm, f"seeing {epoch.fwhm_arcsec:.2f} arcsec is above {limits.fwhm:.2f}"),
            (
                zero_point < limits.zero_point,
                f"zero point {zero_point:.2f} per second is below {limits.zero_point:.2f}: clouds",
            ),
            (sky > limits.sky, f"sky {sky:.1f} electrons per second is above {limits.sky:.1f}"),
            (
                rms > config.max_astrometric_rms_arcsec,
                f"astrometric scatter {rms:.3f} arcsec is above {config.max_astrometric_rms_arcsec}",
            ),
            (epoch.limiting_mag < limits.depth, f"depth {epoch.limiting_mag:.2f} mag is below {limits.depth:.2f}"),
        )
        return "; ".join(text for fails, text in checks if fails)

    def _limits(self, epochs: list[EpochQuality]) -> _Limits:
        """Return the limits that these epochs set for each other."""
        config = self.config
        best_fwhm = float(np.quantile([e.fwhm_arcsec for e in epochs], 0.25))
        return _Limits(
            fwhm=min(config.max_fwhm_arcsec, config.max_fwhm_factor * best_fwhm),
            zero_point=float(np.quantile([_per_second(e) for e in epochs], 0.9)) - config.max_extinction,
            sky=config.max_background_factor * float(np.median([e.background / e.exposure_s for e in epochs])),
            depth=float(np.quantile([e.limiting_mag for e in epochs], 0.9)) - config.max_depth_loss,
        )


class _Limits(NamedTuple):
    fwhm: float
    zero_point: float
    sky: float
    depth: float


_NUMBERS = (
    "mjd_tai", "fwhm_arcsec", "limiting_mag", "zero_point", "exposure_s", "astrometric_rms_arcsec", "background",
)  # fmt: skip


def _per_second(epoch: EpochQuality) -> float:
    """Return the zero point of one electron per second."""
    return epoch.zero_point - 2.5 * float(np.log10(max(epoch.exposure_s, 1e-3)))
