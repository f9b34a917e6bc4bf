"""A satellite or an asteroid: what length, ends, width and brightness along a streak say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal["satellite", "asteroid", "unclear"]


@dataclass(frozen=True)
class KindConfig:
    """What an asteroid may look like."""

    max_asteroid_rate: float = 5.0
    """Fastest motion of an asteroid, arcsec/s (120 degrees a day, as in an encounter nearer than the Moon)."""
    max_flux_scatter: float = 0.3
    """Brighter and fainter by more than this fraction along the streak, it is a satellite that tumbles or flashes."""
    min_scatter_snr: float = 5.0
    """Significance of such a change."""
    max_broadening: float = 0.5
    """A profile broader than the PSF's by more than this, in units of its variance, is out of focus: near the Earth."""
    min_broadening_snr: float = 5.0
    """Significance of such a broadening."""


class Motion(NamedTuple):
    """How fast a streak moved."""

    rate: float
    """arcsec/s; where an end is not seen, at least this."""
    is_lower_limit: bool
    kind: Kind
    reason: str
    """What decided."""


def judge_kind(
    *,
    length_arcsec: float,
    exposure_s: float,
    is_end_seen: tuple[bool, bool],
    flux_scatter: float,
    flux_scatter_snr: float,
    broadening: float,
    broadening_err: float,
    config: KindConfig | None = None,
) -> Motion:
    """Return the rate of a streak and what it is likely to be.

    A streak with both ends seen was made in the whole exposure, unless it came out of the Earth's shadow, went into it,
    or flashed. One that leaves the image moved farther than it shows. Which end came first a single streak does not
    tell.
    """
    config = config or KindConfig()
    is_limit = not all(is_end_seen)
    rate = length_arcsec / exposure_s if exposure_s > 0 else float("nan")
    if rate > config.max_asteroid_rate:
        return Motion(rate, is_limit, "satellite", "faster than an asteroid")
    if flux_scatter > config.max_flux_scatter and flux_scatter_snr > config.min_scatter_snr:
        return Motion(rate, is_limit, "satellite", "its brightness changes along it")
    if broadening > config.max_broadening and broadening > config.min_broadening_snr * broadening_err:
        return Motion(rate, is_limit, "satellite", "broader than a star")
    if is_limit or not rate > 0:
        return Motion(rate, is_limit, "unclear", "an end is not seen")
    return Motion(rate, is_limit, "asteroid", "as fast as an asteroid may be, and even")
