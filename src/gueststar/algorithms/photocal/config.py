"""Parameters of the photometric zero point."""

from __future__ import annotations

from dataclasses import dataclass, field

from gueststar.algorithms.photocal.transparency import TransparencyConfig
from gueststar.core.bits import SourceFlag


@dataclass(frozen=True)
class PhotometryConfig:
    """Which stars calibrate and what makes a zero point good enough."""

    min_calibrators: int = 5
    """With fewer stars that may calibrate an image is refused..."""
    min_agreeing: int = 3
    """...and if fewer of them than this agree."""
    max_scatter: float = 0.3
    """Refused if the calibrators scatter more about the solution than their given errors explain, mag."""
    min_snr: float = 20.0
    """Of a calibrator; halved if fewer than ``wanted_calibrators`` reach it."""
    wanted_calibrators: int = 30
    """With so many left, flagged and crowded stars need not be used."""
    max_catalog_error: float = 0.1
    """Of a calibrator's catalog magnitude, mag, where there are enough such stars."""
    worst_catalog_error: float = 0.5
    """Of a calibrator's catalog magnitude, mag, at all: a rough catalog gives a zero point with a large error."""
    isolation_arcsec: float = 6.0
    """No catalog neighbour brighter than 2.5 mag below the star within this distance."""
    clip_sigma: float = 3.5
    """Calibrators further than this from the solution (with the intrinsic scatter) are left out."""
    colour_range: tuple[float, float] = (-0.5, 2.0)
    """Catalog colours of calibrators, mag: beyond, the colour term is not a straight line."""
    colour_term_prior: float = 0.0
    """Expected colour term of the filter."""
    colour_term_prior_err: float = 0.2
    """How sure that is; with few stars of few colours it decides, and widens the zero point's error."""
    max_colour_term_excess: float = 0.5
    """Doubtful if the colour term is further than this from the expected one: another band's catalog may be in use."""
    spatial_order: int = 2
    """Highest order of the zero point's change over the detector; 0: one number everywhere."""
    calibrators_per_spatial_term: int = 25
    """An order is tried if there are as many calibrators per coefficient."""
    min_spatial_rms: float = 0.003
    """A change over the detector of less than this (rms, mag) is not applied."""
    transparency: TransparencyConfig = field(default_factory=TransparencyConfig)
    """How the zero point of a clear sky is learned from the survey's earlier nights."""
    cloud_extinction: float = 0.1
    """Cloudy if the zero point is so far below the expected one, mag."""
    cloud_structure: float = 0.03
    """Cloudy if the zero point changes by so much (rms, mag) from place to place."""
    bad_flags: int = int(
        SourceFlag.SATURATED
        | SourceFlag.EDGE
        | SourceFlag.BAD_PIXEL
        | SourceFlag.COSMIC_RAY
        | SourceFlag.FIT_FAILED
        | SourceFlag.TRAILED
        | SourceFlag.SATELLITE
        | SourceFlag.SUSPECT
    )
    """Sources with one of these `SourceFlag` bits never calibrate."""
    poor_flags: int = int(SourceFlag.BLENDED | SourceFlag.APERTURE_INCOMPLETE | SourceFlag.NEAR_BRIGHT_STAR)
    """Sources with one of these calibrate only if few others do."""
