"""The sky in sub-bands, solved from epochs through whose air the colours of a band lay apart differently.

The idea is that of Rubin's DcrAssembleCoadd (Sullivan 2018, LSST DMTN-037): what differential chromatic refraction
does to an image is a shift of each narrow sub-band, known from the airmass and the direction of the zenith; epochs of
different air determine what each sub-band holds; and the image through any other air is their sum, shifted anew.
There the sub-bands are found by iterated forward modelling; here, shifts being phases, each spatial frequency is a
linear least-squares problem of its own, solved at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Floats = NDArray[np.float64]
Float32Image = NDArray[np.float32]


@dataclass(frozen=True)
class SubbandConfig:
    """How sub-bands are solved for."""

    n: int = 3
    """Sub-bands."""
    evenness: float = 0.02
    """Weight of equal sub-bands, as a fraction of the weight of all epochs: how much colour noise may make."""
    tile: int = 448
    """Side of the tiles that are solved at once, pixels..."""
    margin: int = 32
    """...and what they reach beyond their own on each side."""


def solve_subbands(
    images: NDArray[np.float32], shifts: Floats, weights: Floats, config: SubbandConfig = SubbandConfig()
) -> NDArray[np.float32]:
    """Return the sub-bands ``[b, y, x]`` of which each image ``[n, y, x]`` is the sum, each shifted.

    ``shifts`` ``[n, b, 2]`` are the displacements (x, y), pixels, of each sub-band in each image, ``weights`` ``[n]``
    the images' inverse variances. The images are of one PSF, on one grid and one flux scale, without holes. Minimised
    is ``sum(w |I - sum(S P)|**2) + evenness sum(w) sum(|P - mean(P)|**2)``, so that, where the images do not tell, as
    where none is displaced, the sub-bands are equal and their sum is the weighted mean.
    """
    out = np.zeros((shifts.shape[1], *images.shape[1:]), np.float32)
    for inner, outer, offset in _tiles((images.shape[1], images.shape[2]), config):
        solved = _solve(images[:, outer[0], outer[1]], shifts, weights, config.evenness)
        height, width = inner[0].stop - inner[0].start, inner[1].stop - inner[1].start
        out[:, inner[0], inner[1]] = solved[:, offset[0] : offset[0] + height, offset[1] : offset[1] + width]
    return out


def displaced_sum(
    subbands: NDArray[np.float32], shifts: Floats, config: SubbandConfig = SubbandConfig()
) -> Float32Image:
    """Return the sum of sub-bands ``[b, y, x]``, each displaced by ``shifts`` ``[b, 2]`` (x, y) pixels."""
    return mean_displaced_sum(subbands, shifts[None], np.ones(1), config)


def mean_displaced_sum(
    subbands: NDArray[np.float32], shifts: Floats, weights: Floats, config: SubbandConfig = SubbandConfig()
) -> Float32Image:
    """Return the weighted mean of sums of sub-bands displaced by ``shifts`` ``[n, b, 2]``: what a co-add would be."""
    out = np.zeros(subbands.shape[1:], np.float32)
    for inner, outer, offset in _tiles((subbands.shape[1], subbands.shape[2]), config):
        part = subbands[:, outer[0], outer[1]]
        shape = (part.shape[1], part.shape[2])
        phases = np.tensordot(weights / weights.sum(), _phases(shifts, shape), axes=1)
        total = fft.irfft2((fft.rfft2(part) * phases).sum(axis=0), s=shape)
        height, width = inner[0].stop - inner[0].start, inner[1].stop - inner[1].start
        out[inner] = total[offset[0] : offset[0] + height, offset[1] : offset[1] + width]
    return out


Slices = tuple[slice, slice]


def _tiles(shape: tuple[int, int], config: SubbandConfig) -> Iterator[tuple[Slices, Slices, tuple[int, int]]]:
    """Yield (inner part, part with margins, place of the inner in that)."""
    for y in range(0, shape[0], config.tile):
        for x in range(0, shape[1], config.tile):
            inner = slice(y, min(y + config.tile, shape[0])), slice(x, min(x + config.tile, shape[1]))
            outer = tuple(
                slice(max(part.start - config.margin, 0), min(part.stop + config.margin, size))
                for part, size in zip(inner, shape, strict=True)
            )
            yield inner, (outer[0], outer[1]), (y - outer[0].start, x - outer[1].start)


def _phases(shifts: Floats, shape: tuple[int, int]) -> NDArray[np.complex64]:
    """Return ``[n, b, ky, kx]`` what displacements do to the transform of an image."""
    ky, kx = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
    along_x = np.exp(-2j * np.pi * shifts[..., 0, None] * kx)
    along_y = np.exp(-2j * np.pi * shifts[..., 1, None] * ky)
    return (along_y[..., :, None] * along_x[..., None, :]).astype(np.complex64)


def _solve(images: NDArray[np.float32], shifts: Floats, weights: Floats, evenness: float) -> NDArray[np.float32]:
    shape, n_bands = (images.shape[1], images.shape[2]), shifts.shape[1]
    share = weights / weights.sum()
    phases = _phases(shifts, shape)
    normal = np.zeros((shape[0], shape[1] // 2 + 1, n_bands, n_bands), np.complex64)
    wish = np.zeros((shape[0], shape[1] // 2 + 1, n_bands), np.complex64)
    for image, phase, w in zip(images, phases, share, strict=True):
        turned = np.moveaxis(phase, 0, -1)
        normal += np.float32(w) * np.conj(turned)[..., :, None] * turned[..., None, :]
        wish += np.float32(w) * np.conj(turned) * fft.rfft2(image)[..., None]
    normal += np.float32(evenness) * (np.eye(n_bands) - 1.0 / n_bands).astype(np.float32)
    # Where all sub-bands lie alike only their sum is told: the ridge keeps the inverse finite and changes nothing else.
    normal += np.float32(1e-5) * np.eye(n_bands, dtype=np.float32)
    solved = np.linalg.solve(normal, wish[..., None])[..., 0]
    return np.asarray(fft.irfft2(np.moveaxis(solved, -1, 0), s=shape), dtype=np.float32)
