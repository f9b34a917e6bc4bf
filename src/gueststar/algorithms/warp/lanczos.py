"""Resample an image onto another grid: Lanczos windowed sinc, flux conserved, masks and noise carried along."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

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
    """
    first, last = rows if rows is not None else (0, position_map.shape[0])
    source_variance = variance
    if not _are_finite(image, variance):
        finite = np.isfinite(image) & np.isfinite(variance)
        mask = np.where(finite, mask, mask | _NO_DATA)
        source_variance = np.where(finite, variance, np.float32(0))
    spread = _spread_mask(mask, taps)
    source = fill_masked(image, _has(mask, np.int32(_FILLED)))
    stretch = max(1.0, position_map.scale)
    if stretch < 1.05:
        stretch = 1.0
    table = kernel_table(taps, stretch)
    shape = (last - first, position_map.shape[1])
    out = (np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.full(shape, _NO_DATA, np.int32))
    _resample(
        np.ascontiguousarray(source, np.float32), np.ascontiguousarray(source_variance, np.float32), spread,
        position_map.x, position_map.y, position_map.area, position_map.step, first,
        table, np.float32(flux_scale), *out,
    )  # fmt: skip
    return WarpedPixels(*out, correlated_noise_factor(table, position_map.scale))


def kernel_table(taps: int, stretch: float = 1.0) -> Float32Image:
    """Return ``[N_PHASES + 1, n]`` weights of unit sum; row p is for the fractional position p / N_PHASES.

    Tap i sits at ``i - (n // 2 - 1)`` pixels from the floor of the position; ``stretch`` widens the kernel.
    """
    half = int(np.ceil(taps * stretch))
    offsets = np.arange(1 - half, half + 1)[None, :] - (np.arange(N_PHASES + 1) / N_PHASES)[:, None]
    t = offsets / stretch
    weights = np.where(np.abs(t) < taps, np.sinc(t) * np.sinc(t / taps), 0.0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


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
def _has(mask, bits):  # type: ignore[no-untyped-def]
    """Return where any of ``bits`` (of the mask's type) is set."""
    out = np.empty(mask.shape, np.bool_)
    for y in range(mask.shape[0]):
        row, into = mask[y], out[y]
        for x in range(row.size):
            into[x] = (row[x] & bits) != 0
    return out


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


@intrinsic
def _six_rows(typing: Any, image: Any, y: Any, x: Any, wy: Any, wx: Any) -> Any:
    """Return what `_dot` does with six taps, from row y and column x on: the first eight of a row at once.

    The last two of eight weights ``wx`` are zero; the caller sees to it that eight pixels are there. (Left to itself,
    the compiler takes pixel by pixel, which lasts three times as long.)
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pixels, along_y, along_x = (
            context.make_array(signature.args[k])(context, builder, arguments[k]) for k in (0, 3, 4)
        )
        real, word = ir.FloatType(), ir.IntType(32)
        eight = ir.VectorType(real, 8)
        nothing, firsts = ir.Constant(eight, ir.Undefined), ir.Constant(ir.VectorType(word, 8), [0] * 8)
        width = cgutils.unpack_tuple(builder, pixels.shape, 2)[1]
        start = builder.add(builder.mul(arguments[1], width), arguments[2])
        total = None
        for k in range(6):
            row = builder.load(builder.bitcast(builder.gep(pixels.data, [start]), eight.as_pointer()), align=4)
            weight = builder.load(builder.gep(along_y.data, [ir.Constant(ir.IntType(64), k)]))
            one = builder.insert_element(nothing, weight, ir.Constant(word, 0))
            part = builder.fmul(row, builder.shuffle_vector(one, nothing, firsts), flags=("contract",))
            total = part if total is None else builder.fadd(total, part, flags=("contract",))
            start = builder.add(start, width)
        weights = builder.load(builder.bitcast(along_x.data, eight.as_pointer()), align=4)
        total = builder.fmul(total, weights)
        kind = ir.FunctionType(real, [real, eight])
        add = cgutils.get_or_insert_function(builder.module, kind, "llvm.vector.reduce.fadd.v8f32")
        return builder.call(add, [ir.Constant(real, 0.0), total], fastmath=("reassoc",))

    return types.float32(image, types.int64, types.int64, wy, wx), generate


@njit(cache=True, error_model="numpy", fastmath=_REORDER)
def _resample(source, variance, bits, node_x, node_y, node_area, step, first, table, scale, image, out_variance, mask):  # type: ignore[no-untyped-def]
    ny, nx = source.shape
    n = table.shape[1]
    low, high = n // 2 - 1, n // 2
    eight = np.zeros((table.shape[0], 8), np.float32)
    if n == 6:
        eight[:, :6] = table
    rx, ry, ra = np.empty(node_x.shape[1]), np.empty(node_x.shape[1]), np.empty(node_x.shape[1])
    for row in range(image.shape[0]):
        j = (row + first) // step
        wy4 = cubic_weights((row + first) / step - j)
        _row_nodes(node_x, j, wy4, rx)
        _row_nodes(node_y, j, wy4, ry)
        _row_nodes(node_area, j, wy4, ra)
        for i in range(-(-image.shape[1] // step)):
            cx, cy, ca = _polynomial(rx, i), _polynomial(ry, i), _polynomial(ra, i)
            for column in range(i * step, min((i + 1) * step, image.shape[1])):
                t = (column - i * step) / step
                x = cx[0] + t * (cx[1] + t * (cx[2] + t * cx[3]))
                y = cy[0] + t * (cy[1] + t * (cy[2] + t * cy[3]))
                if not (x >= low and y >= low and x < nx - high and y < ny - high):
                    continue
                area = np.float32(ca[0] + t * (ca[1] + t * (ca[2] + t * ca[3])))
                ix, iy = int(x), int(y)
                tx, ty = np.float32(x - ix), np.float32(y - iy)
                flag = bits[iy, ix]
                if flag & _NEAR_SATURATED and n <= 8:
                    image[row, column] = scale * area * _bilinear(source, iy, ix, ty, tx)
                else:
                    at_x, at_y = int(tx * N_PHASES + 0.5), int(ty * N_PHASES + 0.5)
                    if n == 6 and ix + 6 <= nx:  # the usual kernel
                        value = _six_rows(source, iy - 2, ix - 2, table[at_y], eight[at_x])
                    else:
                        value = _dot(source, iy, ix, table[at_y], table[at_x])
                    image[row, column] = scale * area * value
                out_variance[row, column] = scale * scale * area * _bilinear(variance, iy, ix, ty, tx)
                mask[row, column] = flag & ~_NEAR_SATURATED
