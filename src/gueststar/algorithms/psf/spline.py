"""A PSF as cubic B-splines: its value and slope at any sub-pixel position, fast.

The samples of `gueststar.model.psf.Psf` are turned into B-spline coefficients that pass through them
(Unser, Aldroubi & Eden 1993, IEEE Trans. SP 41, 821), so that one star at one position costs four taps along each axis.
The sampled function includes the pixel's response, as in Anderson & King (2000, PASP 112, 1360). What runs for each
star is compiled without reference counts (``_nrt=False``, see `gueststar.algorithms.psf.newton`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.linalg import solve_banded

Floats32 = NDArray[np.float32]
Floats64 = NDArray[np.float64]


class SplinePsf(NamedTuple):
    """B-spline coefficients of a spatially varying PSF."""

    coefficients: Floats32
    """``[n_terms, k + 2 pad, k + 2 pad]``, zero in the padding."""
    order: int
    """Degree of the polynomial in position."""
    shape: tuple[int, int]
    """(ny, nx) of the image over which the polynomial's arguments run from -1 to 1."""
    oversampling: int
    """Samples per image pixel along one axis."""
    tiles: Floats32
    """``[rows, columns, side, side]`` coefficients summed at the middles of tiles of the image; may hold none."""

    @property
    def half(self) -> int:
        """Image pixels from the middle of a stamp to its edge."""
        return half_side(self.coefficients.shape[1], self.oversampling)


def padding(oversampling: int) -> int:
    """Return the samples of padding on each side of the coefficients."""
    return oversampling // 2 + 3


def half_side(padded_side: int, oversampling: int) -> int:
    """Return the half side in image pixels of a stamp whose padded coefficients have ``padded_side`` samples."""
    return ((padded_side - 2 * padding(oversampling)) // 2) // oversampling


def spline_psf(coefficients: Floats32, order: int, shape: tuple[int, int], oversampling: int = 1) -> SplinePsf:
    """Return the B-splines through the samples ``coefficients`` (``[n_terms, k, k]``, as in `Psf`)."""
    k = coefficients.shape[1]
    bands = np.repeat([[1.0 / 6.0], [4.0 / 6.0], [1.0 / 6.0]], k, axis=1)
    samples = np.moveaxis(coefficients.astype(np.float64), 0, 2)
    along_y = solve_banded((1, 1), bands, samples.reshape(k, -1)).reshape(samples.shape)
    along_x = solve_banded((1, 1), bands, along_y.swapaxes(0, 1).reshape(k, -1)).reshape(samples.shape)
    splines = np.moveaxis(along_x.swapaxes(0, 1), 2, 0)
    pad = padding(oversampling)
    padded = np.pad(splines, ((0, 0), (pad, pad), (pad, pad)))
    none = np.zeros((0, 0, 1, 1), dtype=np.float32)
    return SplinePsf(np.ascontiguousarray(padded, dtype=np.float32), order, shape, oversampling, none)


def with_tiles(psf: SplinePsf, *, tile: int = 64) -> SplinePsf:
    """Return the PSF with its polynomial evaluated for tiles of about ``tile`` pixels, for fast rough rendering."""
    ny, nx = psf.shape
    rows, columns = (1, 1) if psf.order == 0 else (max(1, round(ny / tile)), max(1, round(nx / tile)))
    y, x = (np.arange(rows) + 0.5) * ny / rows - 0.5, (np.arange(columns) + 0.5) * nx / columns - 0.5
    at_y, at_x = (a.ravel() for a in np.meshgrid(y, x, indexing="ij"))
    u, v = 2.0 * at_x / max(nx - 1, 1) - 1.0, 2.0 * at_y / max(ny - 1, 1) - 1.0
    terms = np.stack([u ** (d - j) * v**j for d in range(psf.order + 1) for j in range(d + 1)]).astype(np.float32)
    c = psf.coefficients
    tiles = (terms.T @ c.reshape(len(c), -1)).reshape(rows, columns, *c.shape[1:])
    return psf._replace(tiles=np.ascontiguousarray(tiles, dtype=np.float32))


def spline_samples(psf: SplinePsf) -> Floats32:
    """Return the samples ``[n_terms, k, k]`` that the splines take at the grid points; inverse of `spline_psf`."""
    c = psf.coefficients.astype(np.float64)
    rows = (c[:, :-2] + 4.0 * c[:, 1:-1] + c[:, 2:]) / 6.0
    both = (rows[:, :, :-2] + 4.0 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 6.0
    trim = padding(psf.oversampling) - 1
    return np.ascontiguousarray(both[:, trim : both.shape[1] - trim, trim : both.shape[2] - trim], dtype=np.float32)


def shifted_stamps(
    psf: SplinePsf, *, x: Floats64, y: Floats64, dx: Floats64, dy: Floats64, radius: int = 0
) -> Floats32:
    """Return ``[n, side, side]`` stamps of the PSF at (x, y) with its centre at (dx, dy) from the middle pixel.

    ``dx`` and ``dy`` are within -0.5 to 0.5. ``radius`` (pixels) crops the stamps; 0 keeps the model's size.
    """
    side = 2 * min(radius or psf.half, psf.half) + 1
    out = np.zeros((len(x), side, side), dtype=np.float32)
    _render_many(psf, x, y, dx, dy, out)
    return out


class Scratch(NamedTuple):
    """Work arrays of the renderer, large enough for stamps of a given half side."""

    terms: Floats32
    local: Floats32
    rows: Floats32
    slopes: Floats32
    taps: Floats32
    """``[2, 4, 4]``: weights of the taps of one star and of another."""


@njit(cache=True, error_model="numpy")
def make_scratch(n_terms: int, half: int, oversampling: int) -> Scratch:
    """Return work arrays for `render` of stamps up to ``half`` pixels from the middle."""
    fine = 2 * half * oversampling + 4 + oversampling + 1
    side = 2 * half + 1
    return Scratch(
        np.empty(n_terms, np.float32),
        np.empty((fine, fine), np.float32),
        np.empty((side, fine), np.float32),
        np.empty((side, fine), np.float32),
        np.empty((2, 4, 4), np.float32),
    )


@njit(cache=True, error_model="numpy", _nrt=False)
def polynomial_terms_at(order: int, u: float, v: float, terms: Floats32) -> None:
    """Write the products u**i v**j in the order of `gueststar.algorithms.psf.evaluate.polynomial_terms`."""
    t = 0
    for d in range(order + 1):
        for j in range(d + 1):
            terms[t] = u ** (d - j) * v**j
            t += 1


@njit(cache=True, error_model="numpy", _nrt=False)
def spline_weights(frac: float, weights: Floats32, slopes: Floats32) -> None:
    """Write the four cubic B-spline weights at ``frac`` (0 to 1) after the second tap, and their derivatives."""
    g = 1.0 - frac
    weights[0] = g * g * g / 6.0
    weights[1] = (4.0 - 6.0 * frac * frac + 3.0 * frac * frac * frac) / 6.0
    weights[2] = (4.0 - 6.0 * g * g + 3.0 * g * g * g) / 6.0
    weights[3] = frac * frac * frac / 6.0
    slopes[0] = -0.5 * g * g
    slopes[1] = -2.0 * frac + 1.5 * frac * frac
    slopes[2] = 2.0 * g - 1.5 * g * g
    slopes[3] = 0.5 * frac * frac


@njit(cache=True, error_model="numpy", _nrt=False)
def _tap_origin(middle: int, oversampling: int, offset: float) -> tuple[int, float]:
    """Return the first tap of the middle pixel and the fraction between taps, for a centre moved by ``offset``."""
    s = -oversampling * offset
    whole = int(np.floor(s))
    return middle + whole - 1, s - whole


@njit(cache=True, error_model="numpy", _nrt=False)
def fill_local(coefficients: Floats32, terms: Floats32, y0: int, x0: int, side: int, local: Floats32) -> None:
    """Sum the polynomial terms over the samples from (y0, x0) on, ``side`` along each axis, into ``local``."""
    for r in range(side):
        row = local[r]
        first = coefficients[0, y0 + r, x0 : x0 + side]
        w = terms[0]
        for c in range(side):
            row[c] = w * first[c]
        for t in range(1, terms.size):
            w = terms[t]
            line = coefficients[t, y0 + r, x0 : x0 + side]
            for c in range(side):
                row[c] += w * line[c]


@njit(cache=True, error_model="numpy", _nrt=False)
def render(
    psf: SplinePsf,
    x: float,
    y: float,
    dx: float,
    dy: float,
    radius: int,
    is_exact: bool,
    scratch: Scratch,
    value: Floats32,
) -> None:
    """Write the PSF of position (x, y), its centre (dx, dy) from the middle, into ``value[:2r+1, :2r+1]``.

    Unless ``is_exact``, the PSF of the middle of the tile is taken for that of the position.
    """
    weights = scratch.taps[0]
    y0, x0 = _place_taps(psf, dx, dy, radius, weights)
    wy, wx, step = weights[0], weights[2], psf.oversampling
    length = 2 * radius * step + 4
    tile_row, tile_column = _tile_at(psf, x, y)
    local = scratch.local if is_exact or tile_row < 0 else psf.tiles[tile_row, tile_column]
    if is_exact or tile_row < 0:
        _fill_exact(psf, x, y, y0, x0, length, scratch)
        y0, x0 = 0, 0
    side = 2 * radius + 1
    for i in range(side):
        row = scratch.rows[i, :length]
        _blend_rows(local, y0 + step * i, x0, wy, row)
        _pick_columns(row, wx, step, value[i, :side])


@njit(cache=True, error_model="numpy", _nrt=False)
def render_with_slopes(
    psf: SplinePsf,
    x: float,
    y: float,
    dx: float,
    dy: float,
    radius: int,
    is_exact: bool,
    scratch: Scratch,
    value: Floats32,
    slope_x: Floats32,
    slope_y: Floats32,
) -> None:
    """Like `render`, with the derivatives by the centre's x and y as well."""
    weights = scratch.taps[0]
    y0, x0 = _place_taps(psf, dx, dy, radius, weights)
    wy, sy, wx, sx, step = weights[0], weights[1], weights[2], weights[3], psf.oversampling
    length = 2 * radius * step + 4
    tile_row, tile_column = _tile_at(psf, x, y)
    local = scratch.local if is_exact or tile_row < 0 else psf.tiles[tile_row, tile_column]
    if is_exact or tile_row < 0:
        _fill_exact(psf, x, y, y0, x0, length, scratch)
        y0, x0 = 0, 0
    side = 2 * radius + 1
    sx *= np.float32(-step)
    sy *= np.float32(-step)
    for i in range(side):
        row, slope = scratch.rows[i, :length], scratch.slopes[i, :length]
        _blend_rows(local, y0 + step * i, x0, wy, row)
        _blend_rows(local, y0 + step * i, x0, sy, slope)
        _pick_columns(row, wx, step, value[i, :side])
        _pick_columns(row, sx, step, slope_x[i, :side])
        _pick_columns(slope, wx, step, slope_y[i, :side])


@njit(cache=True, error_model="numpy", _nrt=False)
def add_change(
    psf: SplinePsf,
    x: float,
    y: float,
    flux: float,
    new_x: float,
    new_y: float,
    new_flux: float,
    ix: int,
    iy: int,
    radius: int,
    is_exact: bool,
    scratch: Scratch,
    image: Floats32,
) -> None:
    """Add a star at (x, y) to an image and take it away at the new place and flux, both within pixel (ix, iy).

    Pixels within ``radius`` of that pixel, along each axis, are altered. The PSF is that of the old place for both.
    """
    ny, nx = image.shape
    weights, new_weights, step = scratch.taps[0], scratch.taps[1], psf.oversampling
    y0, x0 = _place_taps(psf, x - ix, y - iy, radius, weights)
    new_y0, new_x0 = _place_taps(psf, new_x - ix, new_y - iy, radius, new_weights)
    first_y, first_x = min(y0, new_y0), min(x0, new_x0)
    length = 2 * radius * step + 4
    whole = length + max(abs(new_y0 - y0), abs(new_x0 - x0))
    tile_row, tile_column = _tile_at(psf, x, y)
    local = scratch.local if is_exact or tile_row < 0 else psf.tiles[tile_row, tile_column]
    if is_exact or tile_row < 0:
        _fill_exact(psf, x, y, first_y, first_x, whole, scratch)
        y0, x0, new_y0, new_x0 = y0 - first_y, x0 - first_x, new_y0 - first_y, new_x0 - first_x
    wy, wx, new_wy, new_wx = weights[0], weights[2], new_weights[0], new_weights[2]
    for k in range(4):
        wx[k] *= flux
        new_wx[k] *= -new_flux
    i0, i1 = max(0, ix - radius), min(nx, ix + radius + 1)
    n, skipped = i1 - i0, step * (i0 - ix + radius)
    if n <= 0:
        return
    row, new_row = scratch.rows[0, : step * (n - 1) + 4], scratch.slopes[0, : step * (n - 1) + 4]
    for j in range(max(0, iy - radius), min(ny, iy + radius + 1)):
        k = step * (j - iy + radius)
        _blend_rows(local, y0 + k, x0 + skipped, wy, row)
        _blend_rows(local, new_y0 + k, new_x0 + skipped, new_wy, new_row)
        _add_columns(row, wx, new_row, new_wx, step, image[j, i0:i1])


@njit(cache=True, error_model="numpy", _nrt=False, fastmath={"contract"})
def _add_columns(
    row: Floats32, weights: Floats32, other: Floats32, other_weights: Floats32, step: int, out: Floats32
) -> None:
    """Add the weighted sums of four taps at every ``step``-th column of two rows; the usual step is spelt out."""
    a0, a1, a2, a3 = weights[0], weights[1], weights[2], weights[3]
    b0, b1, b2, b3 = other_weights[0], other_weights[1], other_weights[2], other_weights[3]
    if step == 2:
        for j in range(out.size):
            c = 2 * j
            old = a0 * row[c] + a1 * row[c + 1] + a2 * row[c + 2] + a3 * row[c + 3]
            out[j] += old + (b0 * other[c] + b1 * other[c + 1] + b2 * other[c + 2] + b3 * other[c + 3])
    else:
        for j in range(out.size):
            c = step * j
            old = a0 * row[c] + a1 * row[c + 1] + a2 * row[c + 2] + a3 * row[c + 3]
            out[j] += old + (b0 * other[c] + b1 * other[c + 1] + b2 * other[c + 2] + b3 * other[c + 3])


@njit(cache=True, error_model="numpy", _nrt=False)
def _blend_rows(local: Floats32, first: int, column: int, weights: Floats32, out: Floats32) -> None:
    stop = column + out.size
    w0, w1, w2, w3 = weights[0], weights[1], weights[2], weights[3]
    l0, l1 = local[first, column:stop], local[first + 1, column:stop]
    l2, l3 = local[first + 2, column:stop], local[first + 3, column:stop]
    for c in range(out.size):
        out[c] = w0 * l0[c] + w1 * l1[c] + w2 * l2[c] + w3 * l3[c]


@njit(cache=True, error_model="numpy", _nrt=False)
def _pick_columns(row: Floats32, weights: Floats32, step: int, out: Floats32) -> None:
    """Write the weighted sum of four taps at every ``step``-th column; the usual steps, spelt out, are fast."""
    w0, w1, w2, w3 = weights[0], weights[1], weights[2], weights[3]
    if step == 2:
        for j in range(out.size):
            out[j] = w0 * row[2 * j] + w1 * row[2 * j + 1] + w2 * row[2 * j + 2] + w3 * row[2 * j + 3]
    elif step == 1:
        for j in range(out.size):
            out[j] = w0 * row[j] + w1 * row[j + 1] + w2 * row[j + 2] + w3 * row[j + 3]
    else:
        for j in range(out.size):
            c = step * j
            out[j] = w0 * row[c] + w1 * row[c + 1] + w2 * row[c + 2] + w3 * row[c + 3]


@njit(cache=True, error_model="numpy", _nrt=False)
def _place_taps(psf: SplinePsf, dx: float, dy: float, radius: int, weights: Floats32) -> tuple[int, int]:
    """Write the weights ``[wy, dwy, wx, dwx]`` of the four taps; return the first row and column they apply to."""
    middle = psf.coefficients.shape[1] // 2
    y0, frac_y = _tap_origin(middle, psf.oversampling, dy)
    x0, frac_x = _tap_origin(middle, psf.oversampling, dx)
    spline_weights(frac_y, weights[0], weights[1])
    spline_weights(frac_x, weights[2], weights[3])
    return y0 - psf.oversampling * radius, x0 - psf.oversampling * radius


@njit(cache=True, error_model="numpy", _nrt=False)
def _tile_at(psf: SplinePsf, x: float, y: float) -> tuple[int, int]:
    """Return row and column of the tile that holds (x, y), the nearest if none does; (-1, -1) if there are none."""
    rows, columns = psf.tiles.shape[:2]
    if rows == 0:
        return -1, -1
    row = min(max(int((y + 0.5) * rows / psf.shape[0]), 0), rows - 1)
    return row, min(max(int((x + 0.5) * columns / psf.shape[1]), 0), columns - 1)


@njit(cache=True, error_model="numpy", _nrt=False)
def _fill_exact(psf: SplinePsf, x: float, y: float, y0: int, x0: int, side: int, scratch: Scratch) -> None:
    """Write the coefficients that hold at (x, y), from (y0, x0) on, into ``scratch.local``."""
    u = 2.0 * x / max(psf.shape[1] - 1, 1) - 1.0
    v = 2.0 * y / max(psf.shape[0] - 1, 1) - 1.0
    polynomial_terms_at(psf.order, u, v, scratch.terms)
    fill_local(psf.coefficients, scratch.terms, y0, x0, side, scratch.local)


@njit(cache=True, error_model="numpy")
def _render_many(psf: SplinePsf, x: Floats64, y: Floats64, dx: Floats64, dy: Floats64, out: Floats32) -> None:
    half = out.shape[1] // 2
    scratch = make_scratch(psf.coefficients.shape[0], half, psf.oversampling)
    for n in range(x.size):
        render(psf, x[n], y[n], dx[n], dy[n], half, True, scratch, out[n])
