"""Defects: pixels that fail in use, from darks, flats and what science images leave over, remembered over nights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.illumination.bad_pixels import BadPixelConfig, find_bad_pixels, updated_scores
from gueststar.algorithms.stats.robust import median_and_sigma
from gueststar.algorithms.stats.stack import FrameNoise, stack_values
from gueststar.core.bits import UNUSABLE, MaskPlane
from gueststar.core.errors import DataError
from gueststar.model.calibration import CalibrationMaster, Calibrations
from gueststar.model.camera import Detector
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import MaskedImage
from gueststar.pipelines.calibration.not_shown import NotShown

_LIT = MaskPlane.DETECTED | MaskPlane.HALO | MaskPlane.GHOST
_KNOWN_BAD = int(MaskPlane.BAD | MaskPlane.NO_DATA)


@dataclass(frozen=True)
class MakeDefectsConfig:
    """How defects are re-derived, and when they are refused."""

    min_images: int = 5
    """Fewest science images."""
    max_images: int = 12
    """More are not read."""
    clip_sigma: float = 4.0
    """Values further than this many sigma of their noise from the other images' are left out (stars)."""
    max_bad_fraction: float = 0.05
    """The product is refused if more than this fraction of the pixels is bad."""
    pixels: BadPixelConfig = field(default_factory=BadPixelConfig)


@dataclass(frozen=True, eq=False)
class ResidualImage:
    """A calibrated image, sky subtracted: what is left on a pixel in all of them is the pixel's own."""

    info: ExposureInfo
    pixels: MaskedImage


class MakeDefects:
    """Find pixels and pieces of columns that depart in the mean of many pointings, and remember them."""

    def __init__(self, config: MakeDefectsConfig = MakeDefectsConfig()) -> None:
        self.config = config

    def run(
        self,
        images: Iterable[ResidualImage],
        detector: Detector,
        *,
        known: Calibrations,
        previous: CalibrationMaster | None = None,
    ) -> CalibrationMaster:
        """Return the defects of one detector: BAD in the mask; the image tells in how many makings a pixel was found.

        Images should be of different pointings. What bias, dark and flat masters call BAD counts as found. A pixel
        stays bad for as many makings as it was found in before (``pixels.max_score`` at most). Raises NotShown where
        there are too few images, DataError where too many pixels are bad.
        """
        config = self.config
        infos, values = _residuals(images)
        if len(infos) < config.min_images:
            raise NotShown(f"{len(infos)} images of different pointings, {config.min_images} are needed")
        mean, error = self._mean_residual(values)
        shown = find_bad_pixels(mean, error, noise=1.0, readout_axis=detector.readout_axis, config=config.pixels)
        masters = {
            name: (master.pixels.mask & _KNOWN_BAD) != 0
            for name in ("bias", "dark", "flat")
            if (master := getattr(known, name)) is not None
        }
        in_masters = np.zeros(mean.shape, dtype=bool)
        for is_bad in masters.values():
            in_masters |= is_bad
        is_found = shown.is_bad | in_masters
        before = None if previous is None else previous.pixels.image
        scores = updated_scores(is_found, before, max_score=config.pixels.max_score)
        is_bad = scores > 0.5
        if (fraction := float(is_bad.mean())) > config.max_bad_fraction:
            raise DataError(
                f"defects of detector {detector.id}: {fraction:.2%} of the pixels, at most "
                f"{config.max_bad_fraction:.2%} may be"
            )
        times = [info.mjd_tai for info in infos]
        facts: dict[str, Any] = {
            "inputs": [info.exposure_id for info in infos],
            "mjd_first": min(times),
            "mjd_last": max(times),
            "n_pixels": int(shown.is_pixel.sum()),
            "n_column_pixels": int(shown.is_column.sum()),
            **{f"n_{name}": int(is_bad.sum()) for name, is_bad in masters.items()},
            "n_only_science": int((shown.is_bad & ~in_masters).sum()),
            "bad_fraction": fraction,
            **_history(is_found, is_bad, before),
        }
        mask = np.where(is_bad, int(MaskPlane.BAD), 0).astype(np.int32)
        variance = np.full(mask.shape, 1e-4, np.float32)
        return CalibrationMaster(
            kind="defects", detector_id=detector.id, pixels=MaskedImage(scores, variance, mask),
            mjd_tai=float(np.mean(times)), n_frames=len(infos), metadata=facts,
        )  # fmt: skip

    def _mean_residual(self, values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the mean of residuals ``[n, y, x]`` and its error; NaN where too few images tell."""
        noises = [FrameNoise(max(median_and_sigma(part[::3, ::3])[1], 0.1) ** 2) for part in values]
        stack = stack_values(values, noise=noises, n_sigma=self.config.clip_sigma)
        is_known = stack.n_used >= max(3, self.config.min_images // 2)
        mean = np.where(is_known, stack.mean, np.float32(np.nan))
        return mean, np.sqrt(np.where(is_known, stack.variance, 0.0)).astype(np.float32)


def _residuals(images: Iterable[ResidualImage]) -> tuple[list[ExposureInfo], NDArray[np.float32]]:
    """Return the images one by one in units of their noise, NaN where a source, or an unusable pixel, hides the rest.

    Interpolated values, those of known defects among them, tell nothing of the pixel.
    """
    out = int(UNUSABLE | _LIT | MaskPlane.INTERPOLATED)
    infos, values = [], []
    for item in images:
        pixels = item.pixels
        scale = np.sqrt(np.float32(np.median(pixels.variance[::4, ::4])))
        values.append(np.where((pixels.mask & out) != 0, np.float32(np.nan), pixels.image / scale))
        infos.append(item.info)
    return infos, np.array(values, dtype=np.float32)


def _history(
    is_found: NDArray[np.bool_], is_bad: NDArray[np.bool_], before: NDArray[np.floating] | None
) -> dict[str, Any]:
    """Return how the defects compare with those of the last making."""
    if before is None:
        return {}
    was_bad = before > 0.5
    n_before = int(was_bad.sum())
    kept = int((is_found & was_bad).sum())
    comparison = {
        "n_new": int((is_found & ~was_bad).sum()),
        "n_not_seen_again": int((was_bad & ~is_found).sum()),
        "n_forgotten": int((was_bad & ~is_bad).sum()),
        "stable_fraction": kept / n_before if n_before else 1.0,
    }
    return {"comparison": comparison}
