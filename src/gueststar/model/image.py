"""An image with its variance and mask."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.detrend.groups import has_any
from gueststar.core.bits import UNUSABLE, MaskPlane
from gueststar.core.errors import DataError
from gueststar.model.depth import DepthMap
from gueststar.model.photocal import PhotoCal
from gueststar.model.psf import Psf
from gueststar.model.wcs import Wcs

Float32Image = NDArray[np.float32]
MaskImage = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class MaskedImage:
    """Pixels that agree in shape: image and variance (float32) and mask (int32, `MaskPlane` bits).

    Arrays are ``[y, x]``; variance is in the square of the image's unit and is positive wherever the
    mask does not say NO_DATA.
    """

    image: Float32Image
    variance: Float32Image
    mask: MaskImage

    def __post_init__(self) -> None:
        if self.image.ndim != 2:
            raise DataError(f"image has {self.image.ndim} dimensions, needs 2")
        for name in ("variance", "mask"):
            shape = getattr(self, name).shape
            if shape != self.image.shape:
                raise DataError(f"{name} is {shape} but image is {self.image.shape}")
        for name, dtype in (("image", np.float32), ("variance", np.float32), ("mask", np.int32)):
            array = getattr(self, name)
            if array.dtype != dtype:
                object.__setattr__(self, name, np.ascontiguousarray(array, dtype=dtype))

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx)."""
        return self.image.shape[0], self.image.shape[1]

    def is_usable(self, planes: MaskPlane = UNUSABLE) -> NDArray[np.bool_]:
        """Return where none of ``planes`` is set."""
        return np.asarray(_is_clear(self.mask, np.int32(int(planes))))

    def is_masked(self, planes: MaskPlane = UNUSABLE) -> NDArray[np.bool_]:
        """Return where any of ``planes`` is set."""
        return np.asarray(has_any(self.mask, np.int32(int(planes))))


@njit(cache=True)
def _is_clear(mask, planes):  # type: ignore[no-untyped-def]
    out = np.empty(mask.shape, np.bool_)
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            out[y, x] = (mask[y, x] & planes) == 0
    return out


@dataclass(frozen=True, eq=False)
class DetrendedFrame:
    """Detrended pixels (electrons, nothing subtracted but the camera's own) of a camera that sees no sky."""

    pixels: MaskedImage
    metadata: dict[str, Any] = field(default_factory=dict)
    """Facts of the exposure and what was measured on the way; plain values, JSON-able."""


@dataclass(frozen=True, eq=False)
class CalibratedImage:
    """A masked image that knows its sky: science, reference, warped reference or difference image.

    ``pixels`` are background-subtracted electrons; `photocal` turns them into nJy. ``metadata``
    holds plain values (metrics, provenance, exposure facts), JSON-able.
    """

    pixels: MaskedImage
    wcs: Wcs
    psf: Psf
    photocal: PhotoCal
    metadata: dict[str, Any] = field(default_factory=dict)
    coverage: NDArray[np.int16] | None = None
    """Number of epochs per pixel (reference images only)."""
    depth: DepthMap | None = None
    """Limiting magnitudes over the image (science images)."""

    def __post_init__(self) -> None:
        if self.coverage is not None and self.coverage.shape != self.pixels.shape:
            raise DataError(f"coverage is {self.coverage.shape} but image is {self.pixels.shape}")

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx)."""
        return self.pixels.shape
