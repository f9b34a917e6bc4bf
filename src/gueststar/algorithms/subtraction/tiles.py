"""Form a difference image and its score tile by tile, with filters that vary over the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft

from gueststar.algorithms.subtraction.depth import UsualNoise, shallowness
from gueststar.algorithms.subtraction.transfer import Transfer, matched_kernels, psf_power, stamp_spectrum

Float32Image = NDArray[np.float32]
Pixel = TypeVar("Pixel", np.float32, np.bool_)
Floats = NDArray[np.float64]
TransferAt = Callable[[Floats, Floats, tuple[int, int]], Transfer]
"""Gives the filters at image positions (x, y) for a grid of (ny, nx), one place after another."""


class MismatchNoise(NamedTuple):
    """How much worse than photon noise the two images match, at one place of the image."""

    shift_x: float
    """Rms residual shift between the images, pixels."""
    shift_y: float
    widths: tuple[float, ...]
    """Widths (sigma, pixels) of the Gaussians over which a source's residual power is spread."""
    powers: tuple[float, ...]
    """Their weights: residual power as a fraction of the power of the filtered reference."""


class RegionNoise(NamedTuple):
    """Mismatch over an image: the common one, and more where the reference is poor (few epochs)."""

    common: MismatchNoise
    poor: MismatchNoise | None = None
    """Residual power beyond the common one where the reference is poor, to be multiplied by its shallowness there."""
    is_poor: NDArray[np.bool_] | None = None
    """``[y, x]``; None: nowhere."""
    usual: UsualNoise = UsualNoise(1.0, 0.0)
    """Noise of the reference where it is not poor."""


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
    def written(self) -> tuple[slice, slice]:
        """Part of the FFT grid that is written."""
        (top, bottom), (left, right) = self.rows, self.columns
        return slice(top - self.y0, bottom - self.y0), slice(left - self.x0, right - self.x0)


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
        poor = None if noise.is_poor is None else cut_window(noise.is_poor, tile.y0, tile.x0, grid)
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


def cut_window(image: NDArray[Pixel], y0: int, x0: int, grid: tuple[int, int]) -> NDArray[Pixel]:
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
    """Filter one tile and lay it into ``out``; ``filters`` are on the tile's grid and on one as large as they reach."""
    large, small = filters
    n, r, v_n, v_r = (fft.rfft2(plane) for plane in planes)
    d, s_r, s = _filter(n, r, *large)
    squares = [stamp_spectrum(kernel**2, grid) for kernel in matched_kernels(small)]
    difference, filtered_reference, score = (plane_of(a, grid) for a in (d, s_r, s))
    _add_products_in_place(squares[0], v_n, squares[1], v_r)
    photon = plane_of(squares[0], grid)
    power = fft.rfft2(filtered_reference * filtered_reference)
    mismatch = _mismatch_variance(filtered_reference, power, noise.common, grid)
    if noise.poor is not None and noise.is_poor is not None and noise.is_poor[tile.written].any():
        more = _residual_variance(power, noise.poor, grid)
        _add_where_poor_in_place(mismatch, more, shallowness(planes[1], planes[3], noise.usual), noise.is_poor)
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


def _mismatch_variance(
    s_r: Float32Image, power: NDArray[np.complex64], noise: MismatchNoise, grid: tuple[int, int]
) -> Float32Image:
    """Return the variance of the score by registration noise and residual power; ``power`` is the spectrum of S_r^2."""
    variance = _residual_variance(power, noise, grid)
    _add_registration_in_place(variance, s_r, np.float32(noise.shift_x**2), np.float32(noise.shift_y**2))
    return variance


def _residual_variance(power: NDArray[np.complex64], noise: MismatchNoise, grid: tuple[int, int]) -> Float32Image:
    if not any(noise.powers):
        return np.zeros(grid, np.float32)
    return plane_of(power * _mismatch_kernel(noise.widths, noise.powers, grid), grid)


@lru_cache(maxsize=4)
def _mismatch_kernel(widths: tuple[float, ...], powers: tuple[float, ...], grid: tuple[int, int]) -> Float32Image:
    """Return the spectrum of the Gaussians over which residual power is spread; the same for all tiles."""
    fy, fx = np.fft.fftfreq(grid[0]), np.fft.rfftfreq(grid[1])
    kernel = np.zeros((fy.size, fx.size), np.float32)
    for width, power in zip(widths, powers, strict=True):
        gauss_y, gauss_x = (np.exp(-2.0 * (np.pi * width * f) ** 2).astype(np.float32) for f in (fy, fx))
        kernel += np.float32(power) * gauss_y[:, None] * gauss_x[None, :]
    return kernel


@njit(cache=True)
def _add_registration_in_place(variance, s_r, vx, vy):  # type: ignore[no-untyped-def]
    """Bring rounding errors below zero to zero, and add what a shift makes of the gradient of S_r."""
    ny, nx = s_r.shape
    half = np.float32(0.5)
    for y in range(ny):
        for x in range(nx):
            value = max(variance[y, x], np.float32(0))
            if 0 < y < ny - 1 and 0 < x < nx - 1:
                gx = half * (s_r[y, x + 1] - s_r[y, x - 1])
                gy = half * (s_r[y + 1, x] - s_r[y - 1, x])
                value += vx * gx * gx + vy * gy * gy
            variance[y, x] = value


@njit(cache=True)
def _add_where_poor_in_place(variance, more, times, is_poor):  # type: ignore[no-untyped-def]
    """Add ``times * more``, rounding errors below zero left out, where the reference is poor."""
    for y in range(variance.shape[0]):
        for x in range(variance.shape[1]):
            if is_poor[y, x]:
                variance[y, x] += times[y, x] * max(more[y, x], np.float32(0))


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


@njit(cache=True)
def _add_products_in_place(a, b, c, d):  # type: ignore[no-untyped-def]
    """Write a b + c d into a."""
    for j in range(a.shape[0]):
        one, other, third, fourth = a[j], b[j], c[j], d[j]
        for i in range(one.size):
            one[i] = one[i] * other[i] + third[i] * fourth[i]


@njit(cache=True, error_model="numpy")
def _lay_tile(  # type: ignore[no-untyped-def]
    difference, s, v, mismatch, norm,
    y0, x0, row0, column0, done_y, done_x, wy, wx, out_d, out_score, out_variance, out_inflation,
):  # fmt: skip
    """Add a tile to what the tiles before it made; beyond ``done_y`` and ``done_x`` nothing was written yet."""
    least, per_norm, n = np.float32(1e-20), np.float32(1.0 / norm), wx.size
    a = column0 - x0
    for j in range(wy.size):
        b, y = row0 + j - y0, row0 + j
        d, own, light, more = (
            difference[b, a : a + n], s[b, a : a + n], v[b, a : a + n], mismatch[b, a : a + n],
        )  # fmt: skip
        to_d, to_score = out_d[y, column0 : column0 + n], out_score[y, column0 : column0 + n]
        to_variance, to_inflation = out_variance[y, column0 : column0 + n], out_inflation[y, column0 : column0 + n]
        if y >= done_y:
            fresh = max(done_x - column0, 0)
            to_d[fresh:], to_score[fresh:], to_variance[fresh:], to_inflation[fresh:] = 0, 0, 0, 0
        for i in range(n):
            photon = max(light[i], least)
            total = photon + more[i]
            w = wy[j] * wx[i]
            to_d[i] += w * d[i]
            to_score[i] += w * own[i] / np.sqrt(total)
            to_variance[i] += w * total * per_norm
            to_inflation[i] += w * np.sqrt(total / photon)
