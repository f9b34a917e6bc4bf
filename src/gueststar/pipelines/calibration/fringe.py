"""Fringe patterns of a detector and filter, from a night's images of different pointings, or from lamp frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.illumination.fringe_patterns import (
    FringePatternConfig,
    FringePatterns,
    find_fringe_patterns,
    shift_patterns,
)
from gueststar.core.bits import UNUSABLE, MaskPlane
from gueststar.core.errors import DataError
from gueststar.model.calibration import CalibrationMaster
from gueststar.model.camera import Detector
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import Float32Image, MaskedImage
from gueststar.pipelines.calibration.not_shown import NotShown

LIT = MaskPlane.EDGE | MaskPlane.DETECTED | MaskPlane.HALO | MaskPlane.GHOST
"""Planes beside the unusable ones that no fringe is learned from: they show stars, or pixels unlike the others."""


@dataclass(frozen=True)
class MakeFringeConfig:
    """How fringe patterns are made, and when there are none."""

    made_from: Literal["science", "flat"] = "science"
    """Images of the night sky; or flats, for cameras whose own light interferes (lasers)."""
    min_images: int = 5
    """Fewest usable images."""
    max_images: int = 12
    """More are not read (of flats: every second, third...)."""
    min_offset_pixels: float = 10.0
    """Images nearer than this to another in pointing do not count: stars would not fall on other pixels."""
    min_rms: float = 5e-4
    """Patterns fainter than this fraction of the sky are not worth removing."""
    shift_sigma: float = 0.0
    """Lamp light only: gradients of the flat on this scale (sigma of a Gaussian, pixels) are patterns too, which takes
    out what is left where the light shifts between exposures (vibrations); 0: they are not."""
    max_pattern_change: float = 0.5
    """The product is refused if its first pattern agrees with the previous one's by less than one minus this."""
    patterns: FringePatternConfig = field(default_factory=FringePatternConfig)


@dataclass(frozen=True, eq=False)
class FringeImage:
    """An image that may show fringes: sky (or lamp) subtracted on large scales, fringes left in."""

    info: ExposureInfo
    image: Float32Image
    """NaN where a pixel is not usable or shows a source."""
    level: float
    """Of the sky or lamp that was subtracted, in the unit of the image."""

    @classmethod
    def of(cls, info: ExposureInfo, pixels: MaskedImage, level: float) -> FringeImage:
        """Return what of an image may tell of fringes."""
        is_out = (pixels.mask & int(UNUSABLE | LIT)) != 0
        return cls(info, np.where(is_out, np.float32(np.nan), pixels.image), level)


class MakeFringe:
    """Find what a set of images of one filter shares on the pixels of the detector."""

    def __init__(self, config: MakeFringeConfig = MakeFringeConfig()) -> None:
        self.config = config

    def run(
        self,
        images: Sequence[FringeImage],
        detector: Detector,
        *,
        flat: CalibrationMaster | None = None,
        previous: CalibrationMaster | None = None,
    ) -> CalibrationMaster:
        """Return the fringe patterns as fractions of the sky: the first as pixels, all of them as layers.

        Raises NotShown where there are too few images or they share nothing worth removing, DataError where
        the pattern is not that of ``previous``. With ``shift_sigma`` the gradients of ``flat`` are further layers.
        """
        config = self.config
        if len(images) < config.min_images:
            raise NotShown(f"{len(images)} images of different pointings, {config.min_images} are needed")
        found = find_fringe_patterns(
            [image.image for image in images], [image.level for image in images], config=config.patterns
        )
        if len(found.patterns) == 0:
            raise NotShown(f"the images share no pattern ({found.significances[0]:.1f} sigma)")
        rms = found.rms
        if rms[0] < config.min_rms:
            raise NotShown(f"the pattern is {rms[0]:.2e} of the sky, less than {config.min_rms:g}")
        if flat is not None and config.shift_sigma > 0:
            shifts = shift_patterns(flat.pixels.image, sigma=config.shift_sigma)
            found = found._replace(patterns=np.concatenate([found.patterns, shifts]))
        return self._checked(_master(found, rms, images, detector), previous)

    def _checked(self, master: CalibrationMaster, previous: CalibrationMaster | None) -> CalibrationMaster:
        if previous is None:
            return master
        agreement = _agreement(master.pixels, previous.pixels)
        if agreement < 1.0 - self.config.max_pattern_change:
            raise DataError(
                f"fringe of detector {master.detector_id}: its correlation with the previous pattern is "
                f"{agreement:.2f}, at least {1.0 - self.config.max_pattern_change:.2f} is expected"
            )
        comparison = {"correlation": agreement, "rms_ratio": _rms(master.pixels) / _rms(previous.pixels)}
        return replace(master, metadata={**master.metadata, "comparison": comparison})


def _master(
    found: FringePatterns, rms: NDArray[np.float64], images: Sequence[FringeImage], detector: Detector
) -> CalibrationMaster:
    times = [image.info.mjd_tai for image in images]
    facts: dict[str, Any] = {
        "inputs": [image.info.exposure_id for image in images],
        "mjd_first": min(times),
        "mjd_last": max(times),
        "n_patterns": len(found.patterns),
        "significances": [float(value) for value in found.significances],
        "rms": [float(value) for value in rms],
        "strengths": found.strengths.tolist(),
    }
    mask = np.where(found.n_used == 0, int(MaskPlane.NO_DATA), 0).astype(np.int32)
    return CalibrationMaster(
        kind="fringe", detector_id=detector.id, pixels=MaskedImage(found.patterns[0], found.variance, mask),
        mjd_tai=float(np.mean(times)), n_frames=len(images), physical_filter=images[0].info.physical_filter,
        metadata=facts, layers=found.patterns[1:] if len(found.patterns) > 1 else None,
    )  # fmt: skip


def patterns_of(master: CalibrationMaster) -> NDArray[np.float32]:
    """Return all patterns of a fringe product, ``[k, y, x]``."""
    first = master.pixels.image[None]
    return first if master.layers is None else np.concatenate([first, master.layers])


def _agreement(new: MaskedImage, old: MaskedImage) -> float:
    """Return the correlation of two patterns, on blocks of 4 pixels, where both are known."""
    ny, nx = (n // 4 * 4 for n in new.shape)
    is_known = ((new.mask | old.mask) & int(MaskPlane.NO_DATA)) == 0
    blocks = []
    for pixels in (new, old):
        values = np.where(is_known, pixels.image, 0.0)[:ny, :nx]
        blocks.append(values.reshape(ny // 4, 4, nx // 4, 4).mean(axis=(1, 3)).ravel())
    return float(np.corrcoef(blocks[0], blocks[1])[0, 1])


def _rms(pixels: MaskedImage) -> float:
    return float(np.sqrt(np.mean(np.square(pixels.image, dtype=np.float64))))


def of_different_pointings(
    infos: Sequence[ExposureInfo], *, pixel_scale_arcsec: float, config: MakeFringeConfig
) -> list[int]:
    """Return the rows of images that are far enough from one another on the sky, in order; the rest repeat stars."""
    least = config.min_offset_pixels * pixel_scale_arcsec / 3600.0
    chosen: list[int] = []
    for row, info in enumerate(infos):
        if info.ra is None or info.dec is None:
            continue
        if all(_distance(info, infos[other]) >= least for other in chosen):
            chosen.append(row)
    return chosen


def _distance(first: ExposureInfo, second: ExposureInfo) -> float:
    """Return the angle between two boresights, degrees (small angles)."""
    ra, dec, other_ra, other_dec = (value or 0.0 for value in (first.ra, first.dec, second.ra, second.dec))
    along = (ra - other_ra + 180.0) % 360.0 - 180.0
    return float(np.hypot(along * np.cos(np.radians(dec)), dec - other_dec))
