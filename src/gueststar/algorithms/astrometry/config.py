"""Parameters of the astrometric solution."""

from __future__ import annotations

from dataclasses import dataclass

from gueststar.core.bits import SourceFlag


@dataclass(frozen=True)
class AstrometryConfig:
    """How sources are matched to a catalog and what makes a solution good enough."""

    pattern_depths: tuple[int, ...] = (60, 200, 500)
    """Numbers of brightest sources tried in turn to find the pointing."""
    reference_excess: float = 1.5
    """Catalog stars per source and area when the pattern is looked for (bands and limits differ)."""
    n_hypotheses: int = 40
    """Pointings that are verified at each depth, those of most votes first."""
    max_votes: int = 4_000_000_000
    """Pairs times trial orientations that a depth may cost; deeper lists are skipped beyond (about 1e9 a second)."""
    max_false_probability: float = 1e-6
    """Chance, over all pointings tried, that an unrelated field matches as well; above it is refused."""
    min_matches: int = 5
    """Fewer matches than this are refused."""
    max_rms_pixel: float = 0.5
    """Solutions whose rms per axis (pixels, bright half of the matches) is larger are refused."""
    min_coverage: float = 0.25
    """Refused if the matches' convex hull is a smaller part of the detector's area."""
    max_shear: float = 0.02
    """Refused if the axes differ in scale by a larger fraction or are not perpendicular by as much (radian)."""
    max_scale_variation: float = 0.1
    """Refused if the local pixel scale changes by a larger fraction over the detector."""
    max_order: int = 5
    """Highest total order of the distortion polynomial (TPV: 5)."""
    matches_per_coefficient: float = 5.0
    """An order is tried if there are as many matches per coefficient of an axis."""
    max_fit_matches: int = 6000
    """Brightest matches used in the fit of the polynomial."""
    clip_sigma: float = 4.0
    """Matches further than this from the model (per axis, with the systematic floor) are left out."""
    systematic_pixel: float = 0.01
    """Error floor per axis, pixels, below the fitted one."""
    default_error_pixel: float = 0.1
    """Error of sources that carry none."""
    bad_flags: int = int(
        SourceFlag.SATURATED
        | SourceFlag.EDGE
        | SourceFlag.BAD_PIXEL
        | SourceFlag.COSMIC_RAY
        | SourceFlag.FIT_FAILED
        | SourceFlag.TRAILED
        | SourceFlag.SATELLITE
    )
    """Sources with one of these `SourceFlag` bits do not enter the fit (they may help to find the pattern)."""
