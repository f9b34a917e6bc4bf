"""Form a difference image and its score tile by tile, with filters that vary over the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft

from gueststar.algorithms.subtraction.convolve import add_convolved_in_place, separated
from gueststar.algorithms.subtraction.depth import shallowness
from gueststar.algorithms.subtraction.mismatch import RegionNoise, mismatch_variance
from gueststar.algorithms.subtraction.transfer import Stamp, Transfer, matched_kernels, psf_power

Float32Image = NDArray[np.float32]
Floats = NDArray[np.float64]
TransferAt = Callable[[Floats, Floats, tuple[int, int]], Transfer]
"""Gives the filters at image positions (x, y) for a grid of (ny, nx), one place after another."""


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
    """First pixel of the FFT grid (may be negative: the image is mirrored there)."""
    rows: tuple[int, int]
    columns: tuple[int, int]
    """Half-open ranges of the image that it writes."""
    done: tuple[int, int]
    """First row and column (y, x) of these in which no tile before it wrote anything."""
    weight_y: Float32Image
    weight_x: Float32Image

    @property
    def own(self) -> tuple[slice, slice]:
        """Part of the image that is written."""
        return slice(*self.rows), slice(*self.columns)

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) of that part."""
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    @property
    def corner(self) -> tuple[int, int]:
        """Row and column of the FFT grid at which that part begins."""
        return self.rows[0] - self.y0, self.columns[0] - self.x0

    @property
    def written(self) -> tuple[slice, slice]:
        """Part of the FFT grid that is written."""
        (top, left), (ny, nx) = self.corner, self.shape
        return slice(top, top + ny), slice(left, left + nx)


def subtract_in_tiles(
    science: Float32Image,
    reference: Float32Image,
    science_variance: Float32Image,
    reference_variance: Float32Image,
    *,
    transfer_at: TransferAt,
    noise: RegionNoise,
    tile_size: int = 512,
    ramp: int = 10,
    margin: int = 32,
) -> TiledDifference:
    """Return difference, score, variance and noise inflation of two images on one grid.

    The inputs hold no masked values (fill them first) and share one flux scale. ``difference`` is in units
    of the science image. ``score`` is the matched filter for a point source over its standard deviation
    (Zackay, Ofek & Gal-Yam 2016, eq. 25 to 29), in which photon noise of both images enters pixel by
    pixel, and the noise of mismatch through the filtered reference and its gradient (their section 3.4), with
    more of it where the reference is poor, the more the shallower it is there.
    ``variance`` is such that a PSF fit on the difference has the score's error. ``inflation`` is the ratio
    of the total noise of the score to its photon noise.

    Neighbouring tiles overlap and are blended linearly over ``2 ramp`` pixels; each sees ``margin`` pixels
    more, which must reach as far as the filters do.
    """
    shape = science.shape
    out = TiledDifference(*(np.empty(shape, np.float32) for _ in range(4)))
    for tile, grid in tile_layout((shape[0], shape[1]), tile_size=tile_size, ramp=ramp, margin=margin):
        x, y = (np.array([sum(ends) / 2 - 0.5]) for ends in (tile.columns, tile.rows))
        planes = [
            cut_window(image, tile.y0, tile.x0, grid)
            for image in (science, reference, science_variance, reference_variance)
        ]
        filters = transfer_at(x, y, grid).of(0), transfer_at(x, y, (2 * margin, 2 * margin)).of(0)
        poor = None if noise.is_poor is None else noise.is_poor[tile.own]
        _subtract_tile(planes, tile, grid, filters, noise._replace(is_poor=poor), out)
    return out


def tile_layout(
    shape: tuple[int, int], *, tile_size: int, ramp: int, margin: int
) -> Iterator[tuple[Tile, tuple[int, int]]]:
    """Yield tiles that cover the image, with the (ny, nx) of their FFT grid; weights sum to one everywhere."""
    parts = [_split(size, tile_size, ramp) for size in shape]
    grid_sizes = [
        fft.next_fast_len(max(stop - start for start, stop, _ in part) + 2 * margin, real=True) for part in parts
    ]
    for j, (y_start, y_stop, weight_y) in enumerate(parts[0]):
        for i, (x_start, x_stop, weight_x) in enumerate(parts[1]):
            rows, columns = (max(y_start, 0), min(y_stop, shape[0])), (max(x_start, 0), min(x_stop, shape[1]))
            done = parts[0][j - 1][1] if j else 0, parts[1][i - 1][1] if i else 0
            tile = Tile(rows[0] - margin, columns[0] - margin, rows, columns, done, weight_y, weight_x)
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


def cut_window(image: Float32Image, y0: int, x0: int, grid: tuple[int, int]) -> Float32Image:
    """Return ``grid`` (ny, nx) pixels from (x0, y0) on: a view inside the image, else a copy mirrored at its edges.

    A star that the edge cuts keeps a smooth profile so, and filters of different widths make nearly the same of it.
    """
    y1, x1 = y0 + grid[0], x0 + grid[1]
    top, left, bottom, right = max(y0, 0), max(x0, 0), min(y1, image.shape[0]), min(x1, image.shape[1])
    inside = image[top:bottom, left:right]
    if inside.shape == grid:
        return inside
    return np.pad(inside, ((top - y0, y1 - bottom), (left - x0, x1 - right)), mode="symmetric")


def _subtract_tile(
    planes: list[Float32Image],
    tile: Tile,
    grid: tuple[int, int],
    filters: tuple[Transfer, Transfer],
    noise: RegionNoise,
    out: TiledDifference,
) -> None:
    """Filter one tile and lay it into ``out``.

    ``filters`` are on the tile's grid and on one as large as they reach, ``noise.is_poor`` on the tile's own pixels.
    """
    large, small = filters
    n, r = fft.rfft2(planes[0]), fft.rfft2(planes[1])
    difference, filtered_reference, score = (plane_of(a, grid) for a in _filter(n, r, *large))
    photon, times = _photon_variance(planes[2:], matched_kernels(small), tile), None
    if noise.is_poor is not None and noise.is_poor.any():
        shallow = shallowness(planes[1][tile.written], planes[3][tile.written], noise.usual)
        times = np.where(noise.is_poor, shallow, np.float32(0))
    mismatch = mismatch_variance(filtered_reference, noise, times, corner=tile.corner, shape=tile.shape)
    _lay_tile(
        difference, score, photon, mismatch, psf_power(small),
        tile.y0, tile.x0, tile.rows[0], tile.columns[0], *tile.done, tile.weight_y, tile.weight_x, *out,
    )  # fmt: skip


def plane_of(spectrum: NDArray[np.complex64], grid: tuple[int, int]) -> Float32Image:
    """Return the plane of a spectrum, which is overwritten: to the bit what `scipy.fft.irfft2` returns.

    That leaves its input as it is, and turns columns into an array of their own, which is too much for the processor's
    cache: a fifth of the time.
    """
    rows = fft.ifft(spectrum, axis=0, norm="forward", overwrite_x=True)
    plane = np.asarray(fft.irfft(rows, n=grid[1], axis=1, norm="forward"))
    plane *= np.float32(np.longdouble(1.0) / (grid[0] * grid[1]))
    return plane


def _photon_variance(variances: list[Float32Image], kernels: tuple[Stamp, Stamp], tile: Tile) -> Float32Image:
    """Return the variance of the score by the light of both images, for the part that is written.

    The squares of the matched kernels are approximated, which must not make of it less than their least variances do.
    """
    photon, least = np.zeros(tile.shape, np.float32), 0.0
    for variance, kernel in zip(variances, kernels, strict=True):
        square = separated(kernel**2)
        add_convolved_in_place(photon, np.ascontiguousarray(variance), square, tile.corner)
        least += float(variance.min()) * square.total
    return np.maximum(photon, np.float32(least), out=photon)


@njit(cache=True)
def _filter(n, r, a_n, a_r, psf):  # type: ignore[no-untyped-def]
    """Return the spectra of D, S_r and S."""
    d, s_r, s = np.empty_like(n), np.empty_like(n), np.empty_like(n)
    for j in range(n.shape[0]):
        for i in range(n.shape[1]):
            reference = a_r[j, i] * r[j, i]
            matched = np.conj(psf[j, i])
            d[j, i] = a_n[j, i] * n[j, i] - reference
            s_r[j, i] = matched * reference
            s[j, i] = matched * d[j, i]
    return d, s_r, s


@njit(cache=True, error_model="numpy")
def _lay_tile(  # type: ignore[no-untyped-def]
    difference, s, photon, mismatch, norm,
    y0, x0, row0, column0, done_y, done_x, wy, wx, out_d, out_score, out_variance, out_inflation,
):  # fmt: skip
    """Add a tile to what the tiles before it made; beyond ``done_y`` and ``done_x`` nothing was written yet."""
    least, per_norm, n = np.float32(1e-20), np.float32(1.0 / norm), wx.size
    a = column0 - x0
    for j in range(wy.size):
        b, y = row0 + j - y0, row0 + j
        d, own, light, more = difference[b, a : a + n], s[b, a : a + n], photon[j], mismatch[j]
        to_d, to_score = out_d[y, column0 : column0 + n], out_score[y, column0 : column0 + n]
        to_variance, to_inflation = out_variance[y, column0 : column0 + n], out_inflation[y, column0 : column0 + n]
        if y >= done_y:
            fresh = max(done_x - column0, 0)
            to_d[fresh:], to_score[fresh:], to_variance[fresh:], to_inflation[fresh:] = 0, 0, 0, 0
        for i in range(n):
            alone = max(light[i], least)
            total = alone + more[i]
            w = wy[j] * wx[i]
            to_d[i] += w * d[i]
            to_score[i] += w * own[i] / np.sqrt(total)
            to_variance[i] += w * total * per_norm
            to_inflation[i] += w * np.sqrt(total / alone)
