"""Find in a warped epoch what does not belong to the static sky: trails, rays, ghosts, movers, patches of bad sky.

The manner of Rubin's CompareWarpAssembleCoadd (AlSayyad 2019, "Coaddition artifact rejection and CompareWarp",
LSST DMTN-080): a model of the static sky, here the median of the epochs, is given each epoch's PSF and
subtracted; artefacts are found in the difference and grown into their wings; and what many epochs show at one place is
taken for the sky that varies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.detrend.satellites import find_trails, trail_pixels
from gueststar.algorithms.detrend.trail_shape import TrailConfig
from gueststar.algorithms.stats.robust import median_and_sigma

Bools = NDArray[np.bool_]
Float32Image = NDArray[np.float32]

CELL = 4
"""Pixels along a side of the cells on which trails and patches are searched."""


@dataclass(frozen=True)
class ArtefactConfig:
    """What of an epoch's difference from the static sky is an artefact."""

    n_sigma: float = 5.0
    """Noise of a pixel, or of the mean of 3 x 3 or of 7 x 7 pixels, beyond which it is one."""
    grow_sigma: float = 1.5
    """It goes on as far as means of 3 x 3 pixels of the same sign exceed this..."""
    margin: int = 1
    """...and this many pixels more."""
    structure: float = 0.12
    """Allowance for what the model cannot do: this fraction of the range of the static sky within 3 x 3 pixels."""
    structure_aliased: float = 1.0
    """...and this many times the PSF's transform at the Nyquist frequency: what coarse pixels do not tell."""
    structure_measured: float = 4.0
    """...and at least this many times the error of the model that an epoch itself shows: what 95 % of the pixels of its
    bright stars are within, as a fraction of their structure."""
    structure_unmatched: float = 0.3
    """The same where no PSFs are known, and the model keeps its own..."""
    structure_seeing: float = 3.0
    """...and this many times more for each unit of the logarithm of an epoch's FWHM over the median epoch's."""
    max_epochs: float = 0.4
    """Fraction of a pixel's epochs (at least one) that may show an artefact; where more do, the sky varies."""
    persistent: float = 0.5
    """Artefacts of which more than this fraction, within 11 x 11 pixels, lies where the sky varies are spared."""
    do_find_trails: bool = True
    """Whether faint straight trails are searched on the difference."""
    trails: TrailConfig = field(
        default_factory=lambda: TrailConfig(cells=640, min_cell=4, edge_brightness=0.15, faint_half_width=5.0)
    )
    """How; finer than on a single exposure, for the stars are gone."""
    patch: int = 32
    """Side of the blocks of which one with a wrong sky is left out whole, pixels; 0: none is."""
    patch_sigma: float = 6.0
    """Noise of blocks, from their own scatter over the epoch, beyond which the sky of one is wrong..."""
    patch_level: float = 0.25
    """...if it is also off by this many sigma of a pixel."""


def significance(
    image: Float32Image,
    static: Float32Image,
    structure: Float32Image,
    variance: Float32Image,
    usable: Bools,
    *,
    static_noise: float,
    kernels: NDArray[np.float32] | None,
    mismatch: NDArray[np.float64] | None,
    cell: tuple[float, float],
    first_row: int,
    allowance: float,
) -> Float32Image:
    """Return an epoch less the static sky in sigma, an allowance for structure taken off; 0 where it is unusable.

    ``variance`` is that of the epoch's pixels, ``static_noise`` the static sky's as a fraction of it. ``kernels``
    ``[ny, nx, k, k]`` give the static sky the epoch's PSF, one a cell of (height, width) pixels, the first row of the
    image being row ``first_row`` of the grid of cells; they are applied where their ``mismatch`` times the
    ``structure`` (in excess of what noise makes) matters.
    """
    if kernels is None or mismatch is None:
        kernels, mismatch = np.ones((1, 1, 1, 1), np.float32), np.zeros((1, 1))
    out = np.zeros(image.shape, np.float32)
    _significance(
        image, static, structure, variance, usable, np.float32(static_noise), kernels,
        np.asarray(mismatch, np.float32), np.sum(kernels**2, axis=(2, 3)), (np.float32(cell[0]), np.float32(cell[1])),
        first_row, np.float32(allowance), out,
    )  # fmt: skip
    return out


BRIGHT_STRUCTURE = 100.0
"""Structure, in the noise of a pixel, beside which noise is nothing."""
_FEWEST_BRIGHT = 200
"""Pixels of such structure that measure an error of the model."""


def model_error(off: Float32Image, structure: Float32Image, sigma: Float32Image) -> float:
    """Return what 95 % of the pixels of bright stars are off the static sky within, as a fraction of their structure.

    ``off`` is the significance without any allowance, 0 where unusable. 0 where bright pixels are too few. Artefacts,
    which cover fewer than that, do not count.
    """
    bright = (structure > BRIGHT_STRUCTURE * sigma) & (off != 0)
    if bright.sum() < _FEWEST_BRIGHT:
        return 0.0
    return float(np.quantile(np.abs(off[bright]) * sigma[bright] / structure[bright], 0.95))


def find_artefacts(
    z: Float32Image, usable: Bools, is_judged: Bools, config: ArtefactConfig, *, correlation: float
) -> Bools:
    """Return the pixels of an epoch that stand out in ``z`` (from `significance`), with what lies about them.

    Trails and patches are only looked for where ``is_judged``: of two epochs the lower is taken for the sky, so that
    the other is too bright everywhere. ``correlation`` is by how much sums of pixels are noisier (in variance) than
    those of independent ones.
    """
    found = _find_compact(z, usable, np.float32(config.n_sigma), np.float32(math.sqrt(correlation)))
    _add_extended_in_place(found, z, usable & is_judged, config)
    _grow_in_place(found, z, usable, np.float32(config.grow_sigma * math.sqrt(correlation)), config.margin)
    return found


def spare_persistent_in_place(found: Bools, usable: Bools, *, max_epochs: float, persistent: float) -> None:
    """Take back artefacts ``[n, y, x]`` that lie where too many epochs show one: there it is the sky that varies.

    A pixel that would be left without any epoch keeps them all.
    """
    too_many = _too_many(found, usable, max_epochs)
    for k in range(found.shape[0]):
        _spare(found[k], too_many, persistent)
    _keep_some(found, usable)


def _add_extended_in_place(found: Bools, z: Float32Image, usable: Bools, config: ArtefactConfig) -> None:
    """Add trails and patches, which single pixels do not show."""
    if min(z.shape) < 64 or not usable.any():
        return
    if config.do_find_trails:
        level, rms = np.zeros_like(z), np.ones_like(z)
        for trail in find_trails(z, level, rms, ~usable, config=config.trails):
            y, x = trail_pixels(trail, shape=z.shape)
            found[y, x] |= usable[y, x]
    if config.patch:
        cells = _cells(z, usable, np.float32(config.n_sigma))
        _add_patches_in_place(found, cells, usable, config)


def _add_patches_in_place(found: Bools, cells: Float32Image, usable: Bools, config: ArtefactConfig) -> None:
    per_block = max(config.patch // CELL, 1)
    blocks, is_known = _blocks(cells, per_block)
    if is_known.sum() < 16:
        return
    level, spread = median_and_sigma(blocks[is_known])
    limit = max(config.patch_sigma * spread, config.patch_level)
    for j, i in zip(*np.nonzero(is_known & (np.abs(blocks - level) > limit)), strict=True):
        side = per_block * CELL
        part = np.s_[max(j * side - side // 2, 0) : (j + 1) * side + side // 2,
                     max(i * side - side // 2, 0) : (i + 1) * side + side // 2]  # fmt: skip
        found[part] |= usable[part]


@njit(cache=True, fastmath={"reassoc", "contract", "nsz"})
def _matched(static, y, x, kernel):  # type: ignore[no-untyped-def]
    side = kernel.shape[0]
    half = side // 2
    total = np.float32(0)
    for j in range(side):
        row, weights = static[y - half + j], kernel[j]
        part = np.float32(0)
        for i in range(side):
            part += weights[i] * row[x - half + i]
        total += part
    return total


_RANGE_OF_NOISE = np.float32(4.0)
"""Range of nine pixels of unit noise, seldom exceeded."""


@njit(cache=True)
def _significance(  # type: ignore[no-untyped-def]
    image, static, structure, variance, usable, static_noise, kernels, mismatch, power, cell, first, allowance, out
):
    ny, nx = image.shape
    half = kernels.shape[2] // 2
    one = np.float32(1.0)
    for y in range(ny):
        row = min(int((y + first) / cell[0]), kernels.shape[0] - 1)
        for x in range(nx):
            if not usable[y, x]:
                continue
            sigma = np.sqrt(variance[y, x])
            model, noise = static[y, x], one + static_noise
            above = structure[y, x] - _RANGE_OF_NOISE * np.sqrt(static_noise) * sigma
            allowed = np.float32(0.0)
            if above > 0:
                allowed = allowance * above
                column = min(int(x / cell[1]), kernels.shape[1] - 1)
                if above * mismatch[row, column] > np.float32(0.2) * sigma:
                    if half <= y < ny - half and half <= x < nx - half:
                        model = _matched(static, y, x, kernels[row, column])
                        noise = one + static_noise * power[row, column]
                    else:
                        allowed += above
            off = image[y, x] - model
            size = abs(off) - allowed
            if size > 0:
                size /= sigma * np.sqrt(noise)
                out[y, x] = size if off > 0 else -size


@njit(cache=True)
def _box_sums(z, limit, half, out):  # type: ignore[no-untyped-def]
    """Write sums over (2 half + 1) pixels squared of ``z`` clipped at ``limit``; pixels outside count as zero."""
    ny, nx = z.shape
    column = np.zeros(nx, np.float32)
    for y in range(-half, ny):
        if y + half < ny:
            row = z[y + half]
            for x in range(nx):
                column[x] += min(max(row[x], -limit), limit)
        if y < 0:
            continue
        if y - half - 1 >= 0:
            row = z[y - half - 1]
            for x in range(nx):
                column[x] -= min(max(row[x], -limit), limit)
        total = np.float32(0)
        for x in range(min(half, nx)):
            total += column[x]
        for x in range(nx):
            if x + half < nx:
                total += column[x + half]
            if x - half - 1 >= 0:
                total -= column[x - half - 1]
            out[y, x] = total


@njit(cache=True)
def _find_compact(z, usable, n_sigma, correlation):  # type: ignore[no-untyped-def]
    ny, nx = z.shape
    small, large = np.empty_like(z), np.empty_like(z)
    limit = np.float32(1.2) * n_sigma  # one pixel alone must not make its neighbours stand out
    _box_sums(z, limit, 1, small)
    _box_sums(z, limit, 3, large)
    found = np.zeros((ny, nx), np.bool_)
    for y in range(ny):
        for x in range(nx):
            if usable[y, x]:
                found[y, x] = (
                    abs(z[y, x]) > n_sigma
                    or abs(small[y, x]) > n_sigma * correlation * np.float32(3.0)
                    or abs(large[y, x]) > n_sigma * correlation * np.float32(7.0)
                )
    return found


@njit(cache=True)
def _mean3(z, y, x):  # type: ignore[no-untyped-def]
    """Return three times the mean of 3 x 3 pixels, which has the noise of one."""
    ny, nx = z.shape
    total = np.float32(0)
    for j in range(max(y - 1, 0), min(y + 2, ny)):
        for i in range(max(x - 1, 0), min(x + 2, nx)):
            total += z[j, i]
    return total / np.float32(3.0)


@njit(cache=True)
def _grow_in_place(found, z, usable, limit, margin):  # type: ignore[no-untyped-def]
    """Add neighbours of what was found, as long as they are off to the same side, and a margin."""
    ny, nx = z.shape
    queue_y, queue_x, sign = [0 for _ in range(0)], [0 for _ in range(0)], [np.float32(0) for _ in range(0)]
    for y in range(ny):
        for x in range(nx):
            if found[y, x]:
                queue_y.append(y)
                queue_x.append(x)
                sign.append(np.float32(1) if _mean3(z, y, x) > 0 else np.float32(-1))
    k = 0
    while k < len(queue_y):
        y, x, s = queue_y[k], queue_x[k], sign[k]
        for j in range(max(y - 1, 0), min(y + 2, ny)):
            for i in range(max(x - 1, 0), min(x + 2, nx)):
                if not found[j, i] and usable[j, i] and s * _mean3(z, j, i) > limit:
                    found[j, i] = True
                    queue_y.append(j)
                    queue_x.append(i)
                    sign.append(s)
        k += 1
    for k in range(len(queue_y)):
        for j in range(max(queue_y[k] - margin, 0), min(queue_y[k] + margin + 1, ny)):
            for i in range(max(queue_x[k] - margin, 0), min(queue_x[k] + margin + 1, nx)):
                found[j, i] |= usable[j, i]


@njit(cache=True)
def _cells(z, usable, limit):  # type: ignore[no-untyped-def]
    """Return means of ``z`` (clipped) in cells; 0 in those that are mostly unusable."""
    n_y, n_x = z.shape[0] // 4, z.shape[1] // 4
    out = np.zeros((n_y, n_x), np.float32)
    for j in range(n_y):
        for i in range(n_x):
            total, n = np.float32(0), 0
            for y in range(4 * j, 4 * j + 4):
                for x in range(4 * i, 4 * i + 4):
                    if usable[y, x]:
                        total += min(max(z[y, x], -limit), limit)
                        n += 1
            if n >= 8:
                out[j, i] = total / n
    return out


@njit(cache=True)
def _blocks(cells, side):  # type: ignore[no-untyped-def]
    """Return clipped means of blocks of cells, and which of them are known."""
    n_y, n_x = cells.shape[0] // side, cells.shape[1] // side
    out, known = np.zeros((n_y, n_x), np.float32), np.zeros((n_y, n_x), np.bool_)
    values = np.empty(side * side, np.float32)
    for j in range(n_y):
        for i in range(n_x):
            n = 0
            for y in range(j * side, (j + 1) * side):
                for x in range(i * side, (i + 1) * side):
                    if cells[y, x] != 0:
                        values[n] = cells[y, x]
                        n += 1
            if 2 * n > side * side:
                out[j, i] = np.median(values[:n])  # a star or a trail in it is not the sky's fault
                known[j, i] = True
    return out, known


@njit(cache=True)
def _too_many(found, usable, max_epochs):  # type: ignore[no-untyped-def]
    n, ny, nx = found.shape
    out = np.zeros((ny, nx), np.bool_)
    for y in range(ny):
        for x in range(nx):
            out_of_line = total = 0
            for k in range(n):
                out_of_line += found[k, y, x]
                total += usable[k, y, x]
            out[y, x] = out_of_line > max(max_epochs * total, 1.0)
    return out


@njit(cache=True)
def _spare(found, too_many, persistent):  # type: ignore[no-untyped-def]
    ny, nx = found.shape
    half = 5
    before = found.copy()
    for y in range(ny):
        for x in range(nx):
            if not before[y, x]:
                continue
            if too_many[y, x]:
                found[y, x] = False
            n_all = n_persistent = 0
            for j in range(max(y - half, 0), min(y + half + 1, ny)):
                for i in range(max(x - half, 0), min(x + half + 1, nx)):
                    n_all += before[j, i]
                    n_persistent += before[j, i] and too_many[j, i]
            if n_persistent > persistent * n_all:
                found[y, x] = False


@njit(cache=True)
def _keep_some(found, usable):  # type: ignore[no-untyped-def]
    n, ny, nx = found.shape
    for y in range(ny):
        for x in range(nx):
            is_left = False
            for k in range(n):
                is_left |= usable[k, y, x] and not found[k, y, x]
            if not is_left:
                for k in range(n):
                    found[k, y, x] = False
