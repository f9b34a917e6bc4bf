"""Resample an image onto another grid: Lanczos windowed sinc, flux conserved, masks and noise carried along."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.detrend.groups import has_any
from gueststar.algorithms.warp.fill import fill_masked
from gueststar.algorithms.warp.position_map import PositionMap, cubic_weights
from gueststar.core.bits import UNUSABLE, MaskPlane

Float32Image = NDArray[np.float32]
MaskImage = NDArray[np.int32]

N_PHASES = 1024
"""Sub-pixel phases for which kernel weights are tabulated: positions are good to 0.0005 pixel."""

_NO_DATA = int(MaskPlane.NO_DATA)
_UNUSABLE = int(UNUSABLE)
_SATURATED = int(MaskPlane.SATURATED | MaskPlane.BLEED)
_FILLED = int(MaskPlane.BAD | MaskPlane.COSMIC_RAY | MaskPlane.NO_DATA)
_REORDER = {"reassoc", "contract", "nsz"}
"""Sums may be reordered and fused; NaN keeps its meaning."""
_NEAR_SATURATED = 1 << 30
"""Private bit of this module: a saturated pixel lies within the kernel."""
_LONGEST_RUN = 512
"""Pixels of a row that are made together: what that needs stays in the processor's nearest memory."""
_SHORTEST_RUN = 16
"""Fewer pixels are made one by one."""
_STEEPEST = 0.025
"""Rows that climb more than this through the source (1.4 degrees) are made pixel by pixel."""
_BEYOND = 0.1
"""Polynomials of the kernel hold to this far beyond the phases 0 to 1: four columns of the steepest row."""
_DEGREE = 9
"""Of these polynomials: right to 2e-6, a hundredth of what the table's steps make."""


class WarpedPixels(NamedTuple):
    """Pixels on the target grid.

    ``variance`` is the noise power at the scale of a PSF: the sum of n neighbouring pixels has the
    variance n times it, which is what errors of fluxes need. Single pixels scatter less, because
    interpolation correlates them: their variance is about ``variance / correlated_noise_factor``.
    """

    image: Float32Image
    variance: Float32Image
    mask: MaskImage
    correlated_noise_factor: float


def warp_pixels(
    image: Float32Image,
    variance: Float32Image,
    mask: MaskImage,
    position_map: PositionMap,
    *,
    taps: int = 3,
    rows: tuple[int, int] | None = None,
    flux_scale: float = 1.0,
) -> WarpedPixels:
    """Resample (image, variance, mask) onto the grid of ``position_map``.

    The image is interpolated by a Lanczos kernel of order ``taps`` (3 or 4) and multiplied by the ratio of
    pixel areas, so that flux is conserved; where the target pixels are larger than the source's the
    kernel is widened accordingly. Masks spread: every bit to the pixels that interpolate next to it,
    those of unusable pixels over the inner 4 x 4 of the kernel. Unusable pixels are filled before, except
    saturated ones, near which the kernel becomes bilinear and so has no negative lobes. Pixels whose kernel
    leaves the source are NO_DATA with image and variance 0. ``rows`` (first, last + 1) limits the target;
    ``flux_scale`` multiplies the image (and its square the variance).

    Along a row that nearly follows one of the source's, as on two images of one camera, the kernel is taken first
    across the row, then along it, many pixels at once; elsewhere pixel by pixel, with tabulated weights. Both take
    the sum of weighted pixels about the very position.
    """
    first, last = rows if rows is not None else (0, position_map.shape[0])
    if _is_mirrored(position_map):  # as beyond the meridian: rows are made from left to right in both
        image, variance = image[:, ::-1].copy(), variance[:, ::-1].copy()
        mask = mask[:, ::-1].copy()
        position_map = position_map._replace(x=image.shape[1] - 1 - position_map.x)
    source_variance = variance
    if not _are_finite(image, variance):
        finite = np.isfinite(image) & np.isfinite(variance)
        mask = np.where(finite, mask, mask | _NO_DATA)
        source_variance = np.where(finite, variance, np.float32(0))
    spread = _spread_mask(mask, taps)
    source = fill_masked(image, has_any(mask, np.int32(_FILLED)))
    stretch = max(1.0, position_map.scale)
    if stretch < 1.05:
        stretch = 1.0
    table = kernel_table(taps, stretch)
    shape = (last - first, position_map.shape[1])
    out = (np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.full(shape, _NO_DATA, np.int32))
    _resample(
        np.ascontiguousarray(source, np.float32), np.ascontiguousarray(source_variance, np.float32), spread,
        position_map.x, position_map.y, position_map.area, position_map.step, first,
        table, _kernel_polynomials(taps, stretch), np.float32(flux_scale), *out,
    )  # fmt: skip
    return WarpedPixels(*out, correlated_noise_factor(table, position_map.scale))


@lru_cache(maxsize=8)
def kernel_table(taps: int, stretch: float = 1.0) -> Float32Image:
    """Return ``[N_PHASES + 1, n]`` weights of unit sum; row p is for the fractional position p / N_PHASES.

    Tap i sits at ``i - (n // 2 - 1)`` pixels from the floor of the position; ``stretch`` widens the kernel. The array
    is shared: nobody may alter it.
    """
    half = int(np.ceil(taps * stretch))
    offsets = np.arange(1 - half, half + 1)[None, :] - (np.arange(N_PHASES + 1) / N_PHASES)[:, None]
    t = offsets / stretch
    weights = np.where(np.abs(t) < taps, np.sinc(t) * np.sinc(t / taps), 0.0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


@lru_cache(maxsize=8)
def _kernel_polynomials(taps: int, stretch: float) -> Float32Image:
    """Return ``[n, _DEGREE + 1]``: the weights of `kernel_table` as polynomials in the phase less 0.5, highest first.

    Only the unstretched kernel is smooth enough; none for others.
    """
    if stretch > 1.0:
        return np.zeros((0, _DEGREE + 1), np.float32)
    reach = 0.5 + _BEYOND
    phase = reach * np.cos(np.pi * (np.arange(100) + 0.5) / 100)
    t = np.arange(1 - taps, taps + 1) - 0.5 - phase[:, None]
    weights = np.sinc(t) * np.sinc(t / taps)
    weights /= weights.sum(axis=1, keepdims=True)
    ends = [-reach, reach]
    fits = [np.polynomial.Polynomial.fit(phase, w, _DEGREE, domain=ends, window=ends) for w in weights.T]
    return np.array([fit.coef[::-1] for fit in fits], dtype=np.float32)


def _is_mirrored(position_map: PositionMap) -> bool:
    """Return whether x decreases along the rows, for the most part."""
    steps = np.diff(position_map.x, axis=1)
    finite = steps[np.isfinite(steps)]
    return bool(finite.size) and float(np.median(finite)) < 0.0


def correlated_noise_factor(table: Float32Image, scale: float = 1.0) -> float:
    """Return by how much the noise of sums exceeds what the scatter of single pixels says.

    White noise of variance 1 becomes noise of power ``scale**2`` per target pixel, and of scatter
    ``scale**4 * mean(sum(w**2))**2``, the mean over sub-pixel phases.
    """
    single = np.mean(np.sum(table.astype(np.float64) ** 2, axis=1)) ** 2
    return float(1.0 / (scale**2 * single))


@njit(cache=True)
def _are_finite(image: Float32Image, variance: Float32Image) -> bool:
    """Return whether all pixels are, looking at whole rows: the compiler takes many pixels at once."""
    most = np.float32(np.inf)
    for y in range(image.shape[0]):
        line, noise, n = image[y], variance[y], 0
        for x in range(line.size):
            n += (abs(line[x]) < most) & (abs(noise[x]) < most)
        if n < line.size:
            return False
    return True


@njit(cache=True)
def _spread_mask(mask: MaskImage, taps: int) -> MaskImage:
    """Return at [y, x] the bits for target pixels whose position has the floor (x, y)."""
    ny, nx = mask.shape
    out = np.zeros_like(mask)
    for y in range(ny):
        for x in range(nx):
            bits = mask[y, x]
            if bits == 0:
                continue
            reach = taps if bits & _SATURATED else (2 if bits & _UNUSABLE else 1)
            for j in range(max(y - reach, 0), min(y + reach, ny)):
                for i in range(max(x - reach, 0), min(x + reach, nx)):
                    distance = max(y - j if j <= y else j - y + 1, x - i if i <= x else i - x + 1)
                    if distance <= 1:
                        out[j, i] |= bits
                    elif distance <= 2:
                        out[j, i] |= bits & _UNUSABLE
                    if bits & _SATURATED:
                        out[j, i] |= _NEAR_SATURATED
    return out


@njit(cache=True)
def _row_nodes(nodes, j, wy, out):  # type: ignore[no-untyped-def]
    for i in range(nodes.shape[1]):
        out[i] = wy[0] * nodes[j, i] + wy[1] * nodes[j + 1, i] + wy[2] * nodes[j + 2, i] + wy[3] * nodes[j + 3, i]


@njit(cache=True)
def _polynomial(nodes, i):  # type: ignore[no-untyped-def]
    """Return (c0, c1, c2, c3) of the cubic through four nodes at -1, 0, 1, 2."""
    a, b, c, d = nodes[i], nodes[i + 1], nodes[i + 2], nodes[i + 3]
    return b, c - b / 2 - a / 3 - d / 6, (a + c) / 2 - b, (d - a) / 6 + (b - c) / 2


@njit(cache=True)
def _bilinear(image, iy, ix, ty, tx):  # type: ignore[no-untyped-def]
    low = (1 - tx) * image[iy, ix] + tx * image[iy, ix + 1]
    high = (1 - tx) * image[iy + 1, ix] + tx * image[iy + 1, ix + 1]
    return (1 - ty) * low + ty * high


@njit(cache=True, fastmath=_REORDER)
def _dot(image, iy, ix, wy, wx):  # type: ignore[no-untyped-def]
    n = wx.size
    total = np.float32(0)
    for b in range(n):
        row = image[iy - n // 2 + 1 + b]
        part = np.float32(0)
        for a in range(n):
            part += wx[a] * row[ix - n // 2 + 1 + a]
        total += wy[b] * part
    return total


@njit(cache=True)
def _place_row(node_x, node_y, node_area, step, row, rx, ry, ra, x, y, area):  # type: ignore[no-untyped-def]
    """Write source positions and areas of the pixels of a target row; ``rx``, ``ry`` and ``ra`` are for work."""
    j = row // step
    wy = cubic_weights(row / step - j)
    _row_nodes(node_x, j, wy, rx)
    _row_nodes(node_y, j, wy, ry)
    _row_nodes(node_area, j, wy, ra)
    for i in range(-(-x.size // step)):
        cx, cy, ca = _polynomial(rx, i), _polynomial(ry, i), _polynomial(ra, i)
        for column in range(i * step, min((i + 1) * step, x.size)):
            t = (column - i * step) / step
            x[column] = cx[0] + t * (cx[1] + t * (cx[2] + t * cx[3]))
            y[column] = cy[0] + t * (cy[1] + t * (cy[2] + t * cy[3]))
            area[column] = ca[0] + t * (ca[1] + t * (ca[2] + t * ca[3]))


@njit(cache=True)
def _end_of_run(x, y, first, limit):  # type: ignore[no-untyped-def]
    """Return the end of the pixels from ``first`` on that follow a source row, column by column below ``limit``."""
    ix, iy = int(x[first]) - first, int(y[first])
    end = first + 1
    while end < min(x.size, first + _LONGEST_RUN) and x[end] < limit and iy <= y[end] < iy + 1:
        if int(x[end]) - end != ix:
            break
        end += 1
    return end


@njit(cache=True, fastmath={"contract"})
def _add_tap(polynomial, phase, pixels, total):  # type: ignore[no-untyped-def]
    """Add the pixels, each with the kernel's weight at its phase."""
    c = polynomial
    c9, c8, c7, c6, c5, c4, c3, c2, c1, c0 = c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], c[9]
    for k in range(total.size):
        t = phase[k]
        low = c4 + t * (c5 + t * (c6 + t * (c7 + t * (c8 + t * c9))))
        total[k] += (c0 + t * (c1 + t * (c2 + t * (c3 + t * low)))) * pixels[k]


@njit(cache=True, fastmath={"contract"})
def _resample_run(  # type: ignore[no-untyped-def]
    source, variance, x, y, area, scale, polynomials, slope, across, phase, image, out_variance
):
    """Write a run (see `_end_of_run`) of pixels whose positions these are; ``slope`` is dy/dx along it.

    The source's columns are interpolated where the target's row crosses them, then that row along itself.
    """
    n, taps = x.size, polynomials.shape[0]
    ix, iy = int(x[0]), int(y[0])
    first = ix - taps // 2 + 1
    half = np.float32(0.5)
    total, t = across[: n + taps - 1], phase[: n + taps - 1]
    total[:] = 0
    for k in range(t.size):
        at = min(max(k - taps // 2 + 1, 0), n - 1)
        t[k] = y[at] + slope * (first + k - x[at]) - iy - 0.5
    for b in range(taps):
        _add_tap(polynomials[b], t, source[iy - taps // 2 + 1 + b, first : first + t.size], total)
    image[:] = 0
    noise = across[n + taps - 1 : 2 * n + taps]
    low, high = variance[iy, ix : ix + n + 1], variance[iy + 1, ix : ix + n + 1]
    for k in range(n + 1):
        up = min(max(t[k + taps // 2 - 1] + half, np.float32(0)), np.float32(1))
        noise[k] = low[k] + up * (high[k] - low[k])
    t = phase[:n]
    for k in range(n):
        t[k] = x[k] - (ix + k) - 0.5
    for a in range(taps):
        _add_tap(polynomials[a], t, total[a : a + n], image)
    for k in range(n):
        out_variance[k] = scale * area[k] * (noise[k] + (t[k] + half) * (noise[k + 1] - noise[k]))
        image[k] *= area[k]


@njit(cache=True, error_model="numpy", fastmath=_REORDER)
def _resample(  # type: ignore[no-untyped-def]
    source, variance, bits, node_x, node_y, node_area, step, first, table, polynomials, scale,
    image, out_variance, mask,
):  # fmt: skip
    ny, nx = source.shape
    n, width = table.shape[1], image.shape[1]
    low, high = n // 2 - 1, n // 2
    rx, ry, ra = np.empty(node_x.shape[1]), np.empty(node_x.shape[1]), np.empty(node_x.shape[1])
    x, y, area = np.empty(width), np.empty(width), np.empty(width, np.float32)
    across, phase = np.empty(2 * (_LONGEST_RUN + n), np.float32), np.empty(_LONGEST_RUN + n, np.float32)
    for row in range(image.shape[0]):
        _place_row(node_x, node_y, node_area, step, row + first, rx, ry, ra, x, y, area)
        area *= scale
        column = 0
        while column < width:
            if not (x[column] >= low and y[column] >= low and x[column] < nx - high and y[column] < ny - high):
                column += 1
                continue
            end = _end_of_run(x, y, column, nx - high)
            slope = (y[end - 1] - y[column]) / max(x[end - 1] - x[column], 1.0)
            is_run = polynomials.shape[0] == n and end - column >= _SHORTEST_RUN and abs(slope) < _STEEPEST
            if is_run:
                _resample_run(
                    source, variance, x[column:end], y[column:end], area[column:end], scale, polynomials, slope,
                    across, phase, image[row, column:end], out_variance[row, column:end],
                )  # fmt: skip
            ix, iy = int(x[column]) - column, int(y[column])
            for c in range(column, end):
                flag = bits[iy, ix + c]
                mask[row, c] = flag & ~_NEAR_SATURATED
                is_near = flag & _NEAR_SATURATED and n <= 8
                if is_run and not is_near:
                    continue
                tx, ty = np.float32(x[c] - (ix + c)), np.float32(y[c] - iy)
                if is_near:
                    image[row, c] = area[c] * _bilinear(source, iy, ix + c, ty, tx)
                else:
                    at_x, at_y = int(tx * N_PHASES + 0.5), int(ty * N_PHASES + 0.5)
                    image[row, c] = area[c] * _dot(source, iy, ix + c, table[at_y], table[at_x])
                out_variance[row, c] = scale * area[c] * _bilinear(variance, iy, ix + c, ty, tx)
            column = end
