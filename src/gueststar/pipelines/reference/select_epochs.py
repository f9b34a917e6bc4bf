"""Which epochs make a reference, and why the others do not.

Most limits are set by the epochs themselves: by the best quarter or tenth of what this field, detector and band
have, so that they hold for any telescope. What must be absolute is told in the units in which it matters. The width of
a good image is the atmosphere's and the pixels' in quadrature: a camera of 5 arcsec a pixel never has 2 arcsec. The
scatter of the stars about the catalog matters as a fraction of the image's width, which is what it blurs: an rms of
s per axis widens a co-add from FWHM to (FWHM**2 + (2.355 s)**2)**0.5, by 1 % where s is 6 % of the FWHM and by 6 %
where it is 15 %. The scatter holds the catalog's own errors too, so that it is only an upper bound of the blur; hence
an epoch is compared with the field's others first.
"""

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
    max_seeing_arcsec: float = 5.0
    """The atmosphere's part of the largest FWHM that is ever used; see ``max_fwhm_pixel``."""
    max_fwhm_pixel: float = 4.0
    """The camera's part of it, pixels; both are added in quadrature."""
    max_fwhm_factor: float = 1.5
    """A larger FWHM than this times the best quarter's is not used."""
    max_extinction: float = 0.4
    """Zero point (per second) below the best tenth's by more than this: clouds, mag."""
    max_background_factor: float = 4.0
    """Sky brighter (per second) than this times the median is not used."""
    max_astrometric_rms_factor: float = 3.0
    """Poorer astrometry than this times the best quarter's is not used, within the next two bounds."""
    harmless_astrometric_rms: float = 0.05
    """An astrometric scatter below this fraction of the FWHM is never refused."""
    max_astrometric_rms: float = 0.15
    """One above this fraction of the FWHM always is."""
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

    def run(self, epochs: list[EpochQuality], *, pixel_scale_arcsec: float) -> EpochSelection:
        """Return which of ``epochs`` to use: the deepest that pass all limits, ties by seeing, then by time.

        The epochs are all that there are of one field, detector and band: the limits come from them, from the
        configuration and from the detector's scale, arcsec per pixel.
        """
        limits = self._limits([e for e in epochs if not _unknown(e)], pixel_scale_arcsec)
        reasons = {e.name: self._objection(e, limits) for e in epochs}
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

    def _objection(self, epoch: EpochQuality, limits: _Limits) -> str:
        """Return why an epoch cannot be used; empty if it can."""
        if unknown := _unknown(epoch):
            return "quality is not known: " + ", ".join(unknown)
        sky, zero_point = epoch.background / epoch.exposure_s, _per_second(epoch)
        rms, rms_limit = epoch.astrometric_rms_arcsec, self._rms_limit(epoch, limits)
        checks = (
            (epoch.fwhm_arcsec > limits.fwhm, f"seeing {epoch.fwhm_arcsec:.2f} arcsec is above {limits.fwhm:.2f}"),
            (
                zero_point < limits.zero_point,
                f"zero point {zero_point:.2f} per second is below {limits.zero_point:.2f}: clouds",
            ),
            (sky > limits.sky, f"sky {sky:.1f} electrons per second is above {limits.sky:.1f}"),
            (rms > rms_limit, f"astrometric scatter {rms:.3f} arcsec is above {rms_limit:.3f}"),
            (epoch.limiting_mag < limits.depth, f"depth {epoch.limiting_mag:.2f} mag is below {limits.depth:.2f}"),
        )
        return "; ".join(text for fails, text in checks if fails)

    def _rms_limit(self, epoch: EpochQuality, limits: _Limits) -> float:
        """Return the astrometric scatter that an epoch may have, arcsec."""
        harmless, most = self.config.harmless_astrometric_rms, self.config.max_astrometric_rms
        return float(np.clip(limits.rms, harmless * epoch.fwhm_arcsec, most * epoch.fwhm_arcsec))

    def _limits(self, epochs: list[EpochQuality], pixel_scale_arcsec: float) -> _Limits:
        """Return the limits that epochs of known quality set for each other; any number if there are none."""
        if not epochs:
            return _Limits(*(float("nan") for _ in _Limits._fields))
        config = self.config
        best_fwhm, best_rms = (
            float(np.quantile([getattr(e, name) for e in epochs], 0.25))
            for name in ("fwhm_arcsec", "astrometric_rms_arcsec")
        )
        largest_fwhm = float(np.hypot(config.max_seeing_arcsec, config.max_fwhm_pixel * pixel_scale_arcsec))
        return _Limits(
            fwhm=min(largest_fwhm, config.max_fwhm_factor * best_fwhm),
            zero_point=float(np.quantile([_per_second(e) for e in epochs], 0.9)) - config.max_extinction,
            sky=config.max_background_factor * float(np.median([e.background / e.exposure_s for e in epochs])),
            rms=config.max_astrometric_rms_factor * best_rms,
            depth=float(np.quantile([e.limiting_mag for e in epochs], 0.9)) - config.max_depth_loss,
        )


class _Limits(NamedTuple):
    """What the epochs of a place demand of each other; ``rms`` is before its bounds."""

    fwhm: float
    zero_point: float
    sky: float
    rms: float
    depth: float


_NUMBERS = (
    "mjd_tai", "fwhm_arcsec", "limiting_mag", "zero_point", "exposure_s", "astrometric_rms_arcsec", "background",
)  # fmt: skip


def _unknown(epoch: EpochQuality) -> list[str]:
    """Return the names of the figures that are not known."""
    return [name for name in _NUMBERS if not np.isfinite(getattr(epoch, name))]


def _per_second(epoch: EpochQuality) -> float:
    """Return the zero point of one electron per second."""
    return epoch.zero_point - 2.5 * float(np.log10(max(epoch.exposure_s, 1e-3)))
