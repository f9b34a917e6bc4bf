"""Parameters of the astrometric solution."""

from __future__ import annotations

from dataclasses import dataclass, field

from gueststar.algorithms.astrometry.displacement import DisplacementConfig
from gueststar.core.bits import SourceFlag


@dataclass(frozen=True)
class AstrometryConfig:
    """How sources are matched to a catalog and what makes a solution good enough."""

    pattern_ladder: tuple[tuple[int, float, float], ...] = (
        (60, 60.0, 0.0),
        (200, 80.0, 0.0),
        (60, 60.0, 0.003),
        (60, 60.0, 0.01),
        (60, 60.0, 0.03),
        (100, 160.0, 0.0),
        (200, 80.0, 0.1),
        (200, 80.0, 0.3),
        (500, 100.0, 0.0),
    )
    """Tries to find the pointing: number of bright sources, bins of the shift per radius of the field, and
    the fraction of sources to leave out at the bright end (a catalog may lack bright stars)."""
    reference_excess: float = 1.5
    """Catalog stars per source and area when the pattern is looked for (bands and limits differ)."""
    n_hypotheses: int = 40
    """Pointings that are verified at each try, those of most votes first."""
    max_search_s: float = 20.0
    """Estimated seconds that all tries may cost together; those that would go beyond are left out."""
    max_false_probability: float = 1e-6
    """Chance, over all pointings tried, that an unrelated field matches as well; above it is refused."""
    min_matches: int = 5
    """Fewer matches than this are refused."""
    max_rms_pixel: float = 0.5
    """Refused if the rms of the best quarter or the formal error anywhere on the detector is larger, per axis."""
    min_coverage: float = 0.1
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
    poor_flags: int = int(SourceFlag.BLENDED | SourceFlag.NEAR_BRIGHT_STAR)
    """Sources with one of these enter the fit only if few others do."""
    displacement: DisplacementConfig = field(default_factory=DisplacementConfig)
    """How the air's displacement of stars is taken out of the catalogs' positions."""
