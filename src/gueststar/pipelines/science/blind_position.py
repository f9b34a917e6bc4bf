"""Where an exposure without a position was pointed: from the stars of one detector."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.astrometry.tangent import tangent_deproject, tangent_project
from gueststar.algorithms.detection.matched_filter import matched_score
from gueststar.algorithms.detection.noise import split_variance
from gueststar.algorithms.detection.peaks import Peaks, detect_peaks
from gueststar.algorithms.psf.profile import moffat_stamp
from gueststar.core.bits import UNUSABLE, MaskPlane
from gueststar.core.errors import DataError
from gueststar.formats.astrometry_net import BlindSolution
from gueststar.model.calibration import NO_CALIBRATIONS
from gueststar.model.camera import Camera, Detector
from gueststar.model.image import MaskedImage
from gueststar.model.raw import RawDetector
from gueststar.model.wcs import Wcs
from gueststar.pipelines.science.background import SubtractBackground
from gueststar.pipelines.science.detrend import Detrend

_THRESHOLD = 5.0
_MIN_STARS = 6

Solve = Callable[..., BlindSolution]
"""`gueststar.store.blind_solver.BlindSolver.solve`, or anything like it."""


class BlindPosition(NamedTuple):
    """The boresight that one detector's stars imply."""

    ra: float
    """Degrees ICRS."""
    dec: float
    rotation_deg: float
    """Of the camera, in the sense of `Wcs.tangent`."""
    log_odds: float
    n_matches: int


class FindPosition:
    """Detect bright stars on a raw detector image and have them found in the whole sky."""

    def __init__(self, solve: Solve) -> None:
        self.solve = solve

    def run(self, raw: RawDetector, camera: Camera, detector: Detector) -> BlindPosition:
        """Return the camera's boresight and rotation.

        Raises DataError where there are too few stars, no place fits or the image is mirrored against the camera's
        description.
        """
        pixels = SubtractBackground().run(Detrend().run(raw, NO_CALIBRATIONS).pixels).pixels
        stars = bright_stars(pixels, fwhm=camera.typical_fwhm_arcsec / camera.pixel_scale_arcsec)
        if stars.x.size < _MIN_STARS:
            raise DataError(f"detector {detector.name} shows {stars.x.size} stars, blind solving needs {_MIN_STARS}")
        scale, tolerance = camera.pixel_scale_arcsec, max(camera.pixel_scale_tolerance, 0.01)
        found = self.solve(
            x=stars.x, y=stars.y, flux=stars.score.astype(np.float64), shape=pixels.shape,
            scale_arcsec=(scale * (1.0 - tolerance), scale * (1.0 + tolerance)),
        )  # fmt: skip
        ra, dec, rotation = boresight_of(found.wcs, camera, detector)
        return BlindPosition(ra, dec, rotation, found.log_odds, found.n_matches)


def bright_stars(pixels: MaskedImage, *, fwhm: float) -> Peaks:
    """Return the peaks of background-subtracted pixels filtered with a round profile, saturated stars too."""
    usable = UNUSABLE & ~MaskPlane.SATURATED
    is_masked = pixels.is_masked(usable)
    noise = split_variance(pixels.image, pixels.variance, is_masked)
    score = matched_score(pixels.image, noise.sky_variance, is_masked, moffat_stamp(fwhm, reach_fwhm=1.5))
    return detect_peaks(score, _THRESHOLD, border=3)


def boresight_of(wcs: Wcs, camera: Camera, detector: Detector) -> tuple[float, float, float]:
    """Return (ra, dec, camera rotation), degrees, that a detector's WCS implies; DataError if mirrored."""
    nominal = camera.nominal_wcs(detector, ra=0.0, dec=0.0)
    if wcs.parity != nominal.parity and camera.is_parity_known:
        raise DataError(
            f"detector {detector.name} shows the sky mirrored against the camera's description: "
            "set focal_plane.parity, or is_parity_known: false"
        )
    x, y = (float(value) for value in nominal.sky_to_pixel(ra=0.0, dec=0.0))
    ra, dec = (float(value) for value in wcs.pixel_to_sky(x=x, y=y))
    rotation, middle = 0.0, ((detector.shape[1] - 1) / 2.0, (detector.shape[0] - 1) / 2.0)
    for _ in range(30):  # slowly near the poles
        there = camera.nominal_wcs(detector, ra=ra, dec=dec, rotation_deg=rotation)
        rotation += _turn(there, wcs, *middle)
        there = camera.nominal_wcs(detector, ra=ra, dec=dec, rotation_deg=rotation)
        centre, wanted = there.pixel_to_sky(x=middle[0], y=middle[1]), wcs.pixel_to_sky(x=middle[0], y=middle[1])
        step = tangent_project(*wanted, ra0=float(centre[0]), dec0=float(centre[1]))
        ra, dec = (float(value) for value in tangent_deproject(*step, ra0=ra, dec0=dec))
    return ra, dec, (rotation + 180.0) % 360.0 - 180.0


def _turn(first: Wcs, second: Wcs, x: float, y: float) -> float:
    """Return by how much the sky is turned on the second image against the first, as `Wcs.tangent` counts it."""
    turn = _plane_matrix(second, x, y) @ np.linalg.inv(_plane_matrix(first, x, y))
    if np.linalg.det(turn) < 0.0:
        turn = turn @ np.diag([-1.0, 1.0])
    return -float(np.degrees(np.arctan2(turn[1, 0] - turn[0, 1], turn[0, 0] + turn[1, 1])))


def _plane_matrix(wcs: Wcs, x: float, y: float) -> NDArray[np.float64]:
    """Return how a WCS leads from pixels near (x, y) to the tangent plane about the sky there."""
    ra, dec = (float(value) for value in wcs.pixel_to_sky(x=x, y=y))
    step = np.array([1.0, -1.0, 0.0, 0.0])
    place = tangent_project(*wcs.pixel_to_sky(x=x + step, y=y + step[[2, 3, 0, 1]]), ra0=ra, dec0=dec)
    return np.stack([[p[0] - p[1], p[2] - p[3]] for p in place]) / 2.0
