"""Form a difference image and its score tile by tile, with filters that vary over the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft

from gueststar.algorithms.subtraction.transfer import Transfer, stamp_spectrum

Float32Image = NDArray[np.float32]
TransferAt = Callable[[float, float, tuple[int, int]], Transfer]
"""Gives the filters at image position (x, y) for a grid of (ny, nx)."""
NoiseAt = Callable[[float, float], "MismatchNoise"]


class MismatchNoise(NamedTuple):
    """How much worse than photon noise the two images match, at one place of the image."""

    shift_x: float
    """Rms residual shift between the images, pixels."""
    shift_y: float
    flux: float
    """Rms residual of a static star's core, as a fraction of its flux (PSF and flux-ratio errors)."""


class TiledDifference(NamedTuple):
    """Products of `subtract_in_tiles`; see there."""

    difference: Float32Image
    score: Float32Image
    variance: Float32Image
    inflation: Float32Image


class Tile(NamedTuple):
    """One tile: what it reads, and the weights with which it is laid into the whole."""

    y0: int
    x0: int
    """First pixel of the FFT grid (may be negative: zeros are read there)."""
    rows: tuple[int, int]
    columns: tuple[int, int]
    """Half-open ranges of the image that it writes."""
    weight_y: Float32Image
    weight_x: Float32Image


def subtract_in_tiles(
    science: Float32Image,
    reference: Float32Image,
    science_variance: Float32Image,
    reference_variance: Float32Image,
    *,
    transfer_at: TransferAt,
    noise_at: NoiseAt,
    tile_size: int = 512,
    ramp: int = 16,
    margin: int = 32,
) -> TiledDifference:
    """Return difference, score, variance and noise inflation of two images on one grid.

    The inputs hold no masked values (fill them first) and share one flux scale. ``difference`` is in units
    of the science image. ``score`` is the matched filter for a point source over its standard deviation
    (Zackay, Ofek & Gal-Yam 2016, eq. 25 to 29), in which photon noise of both images enters pixel by
    pixel, and the noise of mismatch through the filtered reference and its gradient (their section 3.4).
    ``variance`` is such that a PSF fit on the difference has the score's error. ``inflation`` is the ratio
    of the total noise of the score to its photon noise.

    Neighbouring tiles overlap and are blended linearly over ``2 ramp`` pixels; each sees ``margin`` pixels
    more, which must reach as far as the filters do.
    """
    shape = science.shape
    out = TiledDifference(*(np.zeros(shape, np.float32) for _ in range(4)))
    for tile, grid in tile_layout((shape[0], shape[1]), tile_size=tile_size, ramp=ramp, margin=margin):
        x, y = sum(tile.columns) / 2 - 0.5, sum(tile.rows) / 2 - 0.5
        planes = [_cut(image, tile, grid) for image in (science, reference, science_variance, reference_variance)]
        _subtract_tile(planes, tile, grid, transfer_at(x, y, grid), noise_at(x, y), 2 * margin, out)
    return out


def tile_layout(
    shape: tuple[int, int], *, tile_size: int, ramp: int, margin: int
) -> Iterator[tuple[Tile, tuple[int, int]]]:
    """Yield tiles that cover the image, with the (ny, nx) of their FFT grid; weights sum to one everywhere."""
    parts = [_split(size, tile_size, ramp) for size in shape]
    grid_sizes = [
        fft.next_fast_len(max(stop - start for start, stop, _ in part) + 2 * margin, real=True) for part in parts
    ]
    for y_start, y_stop, weight_y in parts[0]:
        for x_start, x_stop, weight_x in parts[1]:
            rows, columns = (max(y_start, 0), min(y_stop, shape[0])), (max(x_start, 0), min(x_stop, shape[1]))
            tile = Tile(rows[0] - margin, columns[0] - margin, rows, columns, weight_y, weight_x)
            yield tile, (grid_sizes[0], grid_sizes[1])


def _split(size: int, tile_size: int, ramp: int) -> list[tuple[int, int, Float32Image]]:
    n = max(1, round(size / tile_size))
    edges = np.linspace(0, size, n + 1).round().astype(int)
    position = np.arange(size) + 0.5
    parts = []
    for k in range(n):
        start, stop = max(edges[k] - ramp, 0), min(edges[k + 1] + ramp, size)
        weight = np.ones(size, np.float32)
        if k > 0:
            weight = np.minimum(weight, np.clip((position - edges[k] + ramp) / (2 * ramp), 0, 1))
        if k < n - 1:
            weight = np.minimum(weight, np.clip((edges[k + 1] + ramp - position) / (2 * ramp), 0, 1))
        parts.append((int(start), int(stop), weight[start:stop].astype(np.float32)))
    return parts


def _cut(image: Float32Image, tile: Tile, grid: tuple[int, int]) -> Float32Image:
    out = np.zeros(grid, np.float32)
    y0, x0 = max(tile.y0, 0), max(tile.x0, 0)
    y1, x1 = min(tile.y0 + grid[0], image.shape[0]), min(tile.x0 + grid[1], image.shape[1])
    out[y0 - tile.y0 : y1 - tile.y0, x0 - tile.x0 : x1 - tile.x0] = image[y0:y1, x0:x1]
    return out


def _subtract_tile(
    planes: list[Float32Image],
    tile: Tile,
    grid: tuple[int, int],
    transfer: Transfer,
    noise: MismatchNoise,
    reach: int,
    out: TiledDifference,
) -> None:
    n, r, v_n, v_r = (fft.rfft2(plane) for plane in planes)
    matched = np.conj(transfer.psf)
    k_n, k_r = matched * transfer.science, matched * transfer.reference
    difference = fft.irfft2(transfer.science * n - transfer.reference * r, s=grid)
    s_r = fft.irfft2(k_r * r, s=grid)
    s = fft.irfft2(k_n * n, s=grid) - s_r
    v = fft.irfft2(_squared_kernel(k_n, grid, reach) * v_n + _squared_kernel(k_r, grid, reach) * v_r, s=grid)
    norm = float(_power(transfer.psf, grid))
    _lay_tile(
        difference, s, s_r, v, norm, noise.shift_x**2, noise.shift_y**2, noise.flux**2,
        tile.y0, tile.x0, tile.rows[0], tile.columns[0], tile.weight_y, tile.weight_x, *out,
    )  # fmt: skip


def _squared_kernel(spectrum: NDArray[np.complex64], grid: tuple[int, int], reach: int) -> NDArray[np.complex64]:
    """Return the real FFT of the square of a filter's kernel, which is cut to a stamp of side about ``reach``."""
    kernel = fft.irfft2(spectrum, s=grid)
    half = min(reach // 2, (min(grid) - 1) // 2)
    index = np.arange(-half, half + 1)
    return stamp_spectrum(kernel[np.ix_(index, index)] ** 2, grid)


def _power(spectrum: NDArray[np.complex64], grid: tuple[int, int]) -> float:
    """Return the sum of the squares of a stamp of which the real FFT is given (Parseval)."""
    power = (spectrum.real.astype(np.float64) ** 2) + spectrum.imag**2
    twice = 2.0 * power.sum() - power[:, 0].sum()
    if grid[1] % 2 == 0:
        twice -= power[:, -1].sum()
    return float(twice / (grid[0] * grid[1]))


@njit(cache=True, error_model="numpy")
def _lay_tile(
    difference, s, s_r, v, norm, vx, vy, vf, y0, x0, row0, column0, wy, wx, out_d, out_score, out_variance, out_inflation
):  # type: ignore[no-untyped-def]  # fmt: skip
    for j in range(wy.size):
        b = row0 + j - y0
        for i in range(wx.size):
            a = column0 + i - x0
            photon = max(v[b, a], np.float32(1e-20))
            gx = np.float32(0.5) * (s_r[b, a + 1] - s_r[b, a - 1])
            gy = np.float32(0.5) * (s_r[b + 1, a] - s_r[b - 1, a])
            total = photon + vx * gx * gx + vy * gy * gy + vf * s_r[b, a] * s_r[b, a]
            w = wy[j] * wx[i]
            y, x = row0 + j, column0 + i
            out_d[y, x] += w * difference[b, a]
            out_score[y, x] += w * s[b, a] / np.sqrt(total)
            out_variance[y, x] += w * total / norm
            out_inflation[y, x] += w * np.sqrt(total / photon)
