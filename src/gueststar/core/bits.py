"""Named bits: mask planes of images and flags of detections.

Each bit carries its one-line meaning where it is declared; FITS headers, table metadata and the
documentation are generated from here.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntFlag


class MaskPlane(IntFlag):
    """Bits of an image's mask plane (int32). A pixel with none of them set is good."""

    BAD = 1 << 0
    """Defective pixel, from the calibration products (dead, hot, bad column)."""
    SATURATED = 1 << 1
    """At or above saturation in the raw image, with its immediate neighbours."""
    BLEED = 1 << 2
    """Charge bled from a saturated pixel along the readout direction."""
    COSMIC_RAY = 1 << 3
    """Hit by a cosmic ray; the value was interpolated."""
    EDGE = 1 << 4
    """At the detector's edge, where pixels respond unlike their neighbours farther in, or vignetted."""
    NO_DATA = 1 << 5
    """No input covers this pixel."""
    SATELLITE = 1 << 6
    """On a satellite or aircraft trail."""
    HALO = 1 << 7
    """In the halo of a bright star: its light stands above the noise of the sky here."""
    INTERPOLATED = 1 << 8
    """Value was interpolated from neighbours."""
    SUSPECT = 1 << 9
    """Above the level where the response is known to be linear, or calibrated poorly: few epochs, a noisy flat, or much
    charge that the transfer of a brighter pixel left behind."""
    DETECTED = 1 << 10
    """Part of the footprint of a detection (positive on difference images)."""
    DETECTED_NEGATIVE = 1 << 11
    """Part of the footprint of a negative detection (difference images)."""
    REFERENCE_MASKED = 1 << 12
    """The warped reference is masked or uncovered here (difference images)."""
    CLIPPED = 1 << 13
    """At least one epoch was rejected here as an outlier (reference images)."""
    GHOST = 1 << 14
    """In the ghost of a bright star, a reflection within the optics that the camera's description foretells."""


UNUSABLE = (
    MaskPlane.BAD
    | MaskPlane.SATURATED
    | MaskPlane.BLEED
    | MaskPlane.COSMIC_RAY
    | MaskPlane.NO_DATA
    | MaskPlane.SATELLITE
)
"""Planes whose pixels carry no usable flux."""

FOUND = MaskPlane.DETECTED | MaskPlane.DETECTED_NEGATIVE
"""Planes that tell what was found on an image rather than what its pixels are: other images do not inherit them."""


class SourceFlag(IntFlag):
    """Bits of a detection's ``flags`` column, on science, reference and difference images alike."""

    EDGE = 1 << 0
    """Within 1.5 FWHM of the edge of the image (2 on difference images), or its core holds an EDGE pixel."""
    SATURATED = 1 << 1
    """A saturated or bleeding pixel lies in the core (within one FWHM)."""
    BAD_PIXEL = 1 << 2
    """A defective or uncovered pixel lies in the core."""
    COSMIC_RAY = 1 << 3
    """A cosmic-ray pixel lies in the core."""
    BLENDED = 1 << 4
    """Shares its footprint with another detection."""
    FIT_FAILED = 1 << 5
    """The PSF fit did not converge; position and flux are from moments."""
    APERTURE_INCOMPLETE = 1 << 6
    """The aperture holds masked pixels, which were replaced by the PSF model or left out."""
    NEAR_BRIGHT_STAR = 1 << 7
    """In the halo of a bright star, or (difference images) where a bright star's residuals dominate."""
    DIPOLE = 1 << 8
    """A positive and a negative lobe fit better than one source (difference images)."""
    TRAILED = 1 << 9
    """Significantly longer than the PSF along one axis."""
    IN_REFERENCE = 1 << 10
    """The exposure is one of those from which the reference was made."""
    SATELLITE = 1 << 11
    """On a satellite trail."""
    SUSPECT = 1 << 12
    """Calibration is poor here (non-linear, vignetted, low coverage)."""
    PSF_STAR = 1 << 13
    """Was used to model the PSF."""
    PSF_RESERVED = 1 << 14
    """Was kept aside to validate the PSF."""
    CALIBRATOR = 1 << 15
    """Was used for the photometric zero point."""
    ASTROMETRIC = 1 << 16
    """Was used for the astrometric solution."""


USES = SourceFlag.PSF_STAR | SourceFlag.PSF_RESERVED | SourceFlag.CALIBRATOR | SourceFlag.ASTROMETRIC
"""Flags that tell what a source was used for: no fault of it. A source is clean if ``flags & ~USES`` is 0."""


def names_of(value: int, kind: type[IntFlag]) -> list[str]:
    """Return the names of the bits set in ``value``, lowest bit first."""
    return [str(bit.name) for bit in kind if value & bit]


def combine(bits: Iterable[IntFlag]) -> int:
    """Return the union of ``bits`` as a plain integer, for use in compiled code."""
    total = 0
    for bit in bits:
        total |= int(bit)
    return total
