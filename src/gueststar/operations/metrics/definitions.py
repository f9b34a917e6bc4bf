"""Every named metric: unit, meaning, where it is defined, and the levels that it is held against.

Levels are LSST's: LPM-17 (science requirements), as LSE-29 and LSE-61 pass them on and Rubin's ``verify_metrics``
states them. A survey of another purpose need not meet them; they tell where a value stands. Only the design level is
given where no more was found in a public document. TE2: that of LSE-61, not the looser one of an older file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Levels(NamedTuple):
    """What a value is held against, in the metric's unit."""

    minimum: float | None
    design: float | None
    stretch: float | None


@dataclass(frozen=True)
class NamedMetric:
    """One metric of the survey."""

    name: str
    unit: str
    doc: str
    reference: str = ""
    """Document and requirement."""
    levels: Levels | None = None
    red_levels: Levels | None = None
    """Where the bands u, z and y have others."""
    is_higher_better: bool = False

    def levels_in(self, band: str | None) -> Levels | None:
        """Return the levels for a band."""
        return self.red_levels if self.red_levels is not None and band in ("u", "z", "y") else self.levels

    def standing(self, value: float | None, band: str | None = None) -> str:
        """Return the best level that a value meets: stretch, design, minimum, ``below`` none; empty without levels."""
        levels = self.levels_in(band)
        if value is None or levels is None:
            return ""
        sign = -1.0 if self.is_higher_better else 1.0
        known = [level for level in ("stretch", "design", "minimum") if getattr(levels, level) is not None]
        met = [level for level in known if sign * value <= sign * getattr(levels, level)]
        return met[0] if met else "below"


def _pairs(number: int, arcmin: str, spread: Levels, limit: Levels) -> tuple[NamedMetric, ...]:
    share = Levels(20.0, 10.0, 5.0)
    return (
        NamedMetric(f"AM{number}", "mas", f"scatter of the distance of stars {arcmin} apart, median over pairs",
                    "LPM-17 3.3.4, LSE-61 DMS-REQ-0360", spread),
        NamedMetric(f"AF{number}", "%", f"distances {arcmin} apart that deviate by more than AD{number} (design)",
                    "LPM-17 3.3.4, LSE-61 DMS-REQ-0360", share),
        NamedMetric(f"AD{number}", "mas", f"deviation that 10 % of the distances {arcmin} apart exceed",
                    "LPM-17 3.3.4, LSE-61 DMS-REQ-0360", limit),
    )  # fmt: skip


_PHOTOMETRY = "LPM-17 3.3.1, LSE-61 DMS-REQ-0359"
_ZERO_POINTS = "LPM-17 3.3.2, LSE-61 DMS-REQ-0359"
_SHAPES = "LPM-17 3.3.5, LSE-61 DMS-REQ-0362"

DEFINITIONS: tuple[NamedMetric, ...] = (
    NamedMetric("PA1", "mmag", "scatter of a bright star's magnitudes, median over stars", _PHOTOMETRY,
                Levels(8.0, 5.0, 3.0), Levels(12.0, 7.5, 4.5)),
    NamedMetric("PF1", "%", "magnitudes of bright stars that deviate from the star's mean by more than PA2 (design)",
                _PHOTOMETRY, Levels(20.0, 10.0, 5.0)),
    NamedMetric("PA2", "mmag", "deviation that 10 % of the magnitudes of bright stars exceed", _PHOTOMETRY,
                Levels(15.0, 15.0, 10.0), Levels(22.5, 22.5, 15.0)),
    NamedMetric("PA3", "mmag", "rms of the zero points of images against each other, noise taken off", _ZERO_POINTS,
                Levels(None, 10.0, None)),
    NamedMetric("PF2", "%", "images whose zero point is off by more than PA4 (design)", _ZERO_POINTS,
                Levels(None, 10.0, None)),
    NamedMetric("PA4", "mmag", "by how much 10 % of the images' zero points are off at least", _ZERO_POINTS,
                Levels(None, 15.0, None)),
    NamedMetric("PA5", "mmag", "median difference of colours from the reference catalog", _ZERO_POINTS,
                Levels(None, 5.0, None)),
    NamedMetric("PA6", "mmag", "median difference of magnitudes from the reference catalog", _ZERO_POINTS,
                Levels(None, 10.0, None)),
    *_pairs(1, "5 arcmin", Levels(20.0, 10.0, 5.0), Levels(40.0, 20.0, 10.0)),
    *_pairs(2, "20 arcmin", Levels(20.0, 10.0, 5.0), Levels(40.0, 20.0, 10.0)),
    *_pairs(3, "200 arcmin", Levels(30.0, 15.0, 10.0), Levels(50.0, 30.0, 20.0)),
    NamedMetric("AB1", "mas", "rms difference of distances 5 arcmin apart between the scope's filter and r",
                "LPM-17 3.3.4, LSE-61 DMS-REQ-0360", Levels(None, 10.0, None)),
    NamedMetric("ABF1", "%", "such differences beyond AB2 (20 mas)", "LPM-17 3.3.4, LSE-61 DMS-REQ-0360",
                Levels(20.0, 10.0, 5.0)),
    NamedMetric("AA1", "mas", "median offset of places from the reference catalog, in the worse coordinate",
                "LPM-17 3.3.4, LSE-61 DMS-REQ-0360", Levels(100.0, 50.0, 20.0)),
    NamedMetric("TE1", "", "correlation of what the PSF leaves of ellipticities, below 1 arcmin", _SHAPES,
                Levels(3e-5, 2e-5, 1e-5)),
    NamedMetric("TE2", "", "the same beyond 5 arcmin", _SHAPES, Levels(3e-7, 1e-7, 5e-8)),
    NamedMetric("TE3", "", "correlation below 1 arcmin that 15 % of the images exceed", _SHAPES,
                Levels(6e-5, 4e-5, 2e-5)),
    NamedMetric("TE4", "", "the same beyond 5 arcmin", _SHAPES, Levels(5e-7, 2e-7, 1e-7)),
    NamedMetric("image_quality", "arcsec", "median width of the PSF"),
    NamedMetric("depth", "mag", "median 5-sigma limit of science images", is_higher_better=True),
    NamedMetric("completeness", "mag", "at which half of artificial sources are found on images", "injection",
                is_higher_better=True),
    NamedMetric("difference_completeness", "mag", "at which half of artificial sources are found on differences",
                "injection", is_higher_better=True),
    NamedMetric("false_alerts", "%", "alerts expected to be artefacts: mean of 1 - reliability of what became alerts",
                "LSE-30 OSS-REQ-0353: 5 % at S/N above 6", Levels(None, 5.0, None)),
    NamedMetric("received_p95", "s", "from shutter to received, 95 % of the exposures", "ZTF: 600, goal 300",
                Levels(600.0, 300.0, None)),
    NamedMetric("alert_p95", "s", "from received to associated, 95 % of the images", "ZTF: 600, goal 300",
                Levels(600.0, 300.0, None)),
    NamedMetric("accounted", "%", "science exposures whose fate is known", "", Levels(100.0, 100.0, None),
                is_higher_better=True),
)  # fmt: skip
"""All named metrics, in the order in which they are shown."""

BY_NAME = {metric.name: metric for metric in DEFINITIONS}


def design(name: str, band: str | None = None) -> float:
    """Return the design level of a metric that has one."""
    levels = BY_NAME[name].levels_in(band)
    if levels is None or levels.design is None:
        raise KeyError(f"{name} has no design level")
    return levels.design
