"""Make two aligned images comparable: no masked pixels, one flux scale, one background."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.subtraction.match import PolynomialField, background_mesh, mesh_rows
from gueststar.algorithms.warp.fill import fill_masked_in_place

Float32Image = NDArray[np.float32]
MaskImage = NDArray[np.int32]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


MOST_FILL_ERROR = 1e6
"""Largest variance given to a filled pixel, in units of the usual one: filters are approximated, and larger ones would
reach where they do not."""


class Pair(NamedTuple):
    """Science image and reference on one grid, flux scale and background, with nothing masked in them."""

    science: Float32Image
    reference: Float32Image
    science_variance: Float32Image
    reference_variance: Float32Image


def prepare_pair(
    science: Float32Image,
    reference: Float32Image,
    science_variance: Float32Image,
    reference_variance: Float32Image,
    *,
    bad_science: Bools,
    bad_reference: Bools,
    flux_ratio: PolynomialField,
    background_box: int,
) -> tuple[Pair, Float32Image]:
    """Return the pair ready for filtering, and the mesh of residual background that was taken off the science image.

    The reference is multiplied by ``1 + flux_ratio``. The difference is interpolated over the union of bad
    pixels; a pixel bad in one image is then the other image's value plus or minus that, so that a masked
    pixel in a star's core keeps the star. Where both are bad, the reference is interpolated from its own
    surroundings first. Variances of bad pixels are the images' medians; in a star, where interpolation misses what its
    PSFs differ by, that error is added (`_add_fill_error_in_place`). ``background_box`` 0: no background is matched.
    """
    ny, nx = science.shape
    rows = _row_polynomials(flux_ratio, (ny, nx))
    scaled, difference = _scale_and_subtract(science, reference, rows, _across(nx))
    bad = bad_science | bad_reference
    mesh = np.zeros((1, 1), np.float32)
    if background_box:
        mesh = background_mesh(difference, ~bad, box=background_box)
    background = mesh_rows(mesh, (ny, nx))
    _subtract_rows_in_place(difference, *background)
    fill_masked_in_place(difference, bad)
    both = bad_science & bad_reference
    if both.any():
        fill_masked_in_place(scaled, bad_reference)
    _assemble_in_place(difference, scaled, science, *background, bad_science, bad_reference)
    variances = [
        _filled_variance(variance, off, field, _typical(variance, off), _across(nx))
        for variance, off, field in (
            (science_variance, bad_science, np.zeros((ny, 1))),
            (reference_variance, bad_reference, rows),
        )
    ]
    for variance, is_filled, other, noise in (
        (variances[0], bad_science, scaled, reference_variance),
        (variances[1], bad_reference, science, science_variance),
    ):
        most = MOST_FILL_ERROR * _typical(variance, bad)
        _add_fill_error_in_place(variance, np.flatnonzero(is_filled), bad, other, noise, most)
    return Pair(difference, scaled, *variances), mesh


@njit(cache=True)
def find_unusable(image, variance, mask, planes):  # type: ignore[no-untyped-def]
    """Return where a mask bit of ``planes`` is set, or image or variance are not finite, or variance not positive."""
    out = np.empty(image.shape, np.bool_)
    most = np.float32(np.inf)
    for y in range(image.shape[0]):
        line, noise, bits, into = image[y], variance[y], mask[y], out[y]
        for x in range(line.size):  # compared, not asked: the compiler takes many pixels at once
            is_known = (abs(line[x]) < most) & (noise[x] > np.float32(0)) & (noise[x] < most)
            into[x] = not (is_known & ((bits[x] & planes) == 0))
    return out


@njit(cache=True)
def has_either(mask, other_mask, planes):  # type: ignore[no-untyped-def]
    """Return where either mask has one of ``planes`` (of the masks' type)."""
    out = np.empty(mask.shape, np.bool_)
    for y in range(mask.shape[0]):
        own, other, into = mask[y], other_mask[y], out[y]
        for x in range(own.size):
            into[x] = ((own[x] | other[x]) & planes) != 0
    return out


@njit(cache=True)
def changed_mask(mask, kept, where, added):  # type: ignore[no-untyped-def]
    """Return a mask's bits that are ``kept``, with those ``added`` in some places."""
    out, none = np.empty_like(mask), np.int32(0)
    for y in range(mask.shape[0]):
        own, there, into = mask[y], where[y], out[y]
        for x in range(own.size):
            into[x] = (own[x] & kept) | (added if there[x] else none)
    return out


@njit(cache=True)
def split_unusable(mask, other_mask, bad, unusable, defect, saturated):  # type: ignore[no-untyped-def]
    """Return, of the ``bad`` pixels, those that are defects alone and the others; and all that are saturated.

    ``unusable``, ``defect`` and ``saturated`` are bits of the masks; a bit counts if it is set in either mask.
    """
    is_defect, is_other = np.empty(mask.shape, np.bool_), np.empty(mask.shape, np.bool_)
    is_saturated = np.empty(mask.shape, np.bool_)
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            planes = mask[y, x] | other_mask[y, x]
            is_alone = (planes & unusable) == defect
            is_defect[y, x] = bad[y, x] and is_alone
            is_other[y, x] = bad[y, x] and not is_alone
            is_saturated[y, x] = (planes & saturated) != 0
    return is_defect, is_other, is_saturated


def grow(bad: Bools, radius: float) -> Bools:
    """Return ``bad`` grown by a disc of ``radius`` pixels."""
    reach = int(radius)
    offsets = np.array(
        [(j, i) for j in range(-reach, reach + 1) for i in range(-reach, reach + 1) if j * j + i * i <= radius**2]
    )
    return np.asarray(_scatter(bad, offsets))


def lost_power(bad: Bools, psf: Float32Image) -> Float32Image:
    """Return, at each pixel, the part of a point source's squared profile there that lies on ``bad`` pixels.

    ``psf`` is an odd-sided stamp. It is 0 where all can be seen, 1 where nothing can.
    """
    half = min(psf.shape[0] // 2, 3)
    c = psf.shape[0] // 2
    core = psf[c - half : c + half + 1, c - half : c + half + 1].astype(np.float64) ** 2
    return np.asarray(_spread(bad, (core / core.sum()).astype(np.float32)))


def _typical(variance: Float32Image, bad: Bools) -> float:
    part = np.s_[::7, ::5]
    values = variance[part][~bad[part]]
    if values.size < 16:
        values = variance[~bad]
    return float(np.median(values)) if values.size else 1.0


def _row_polynomials(field: PolynomialField, shape: tuple[int, int]) -> Floats:
    """Return ``[ny, order + 1]`` coefficients, for each row, of the field as a polynomial in u."""
    v = 2.0 * np.arange(shape[0]) / max(shape[0] - 1, 1) - 1.0
    rows = np.zeros((shape[0], field.order + 1))
    powers = [(d - j, j) for d in range(field.order + 1) for j in range(d + 1)]
    for c, (i, j) in zip(field.coefficients, powers, strict=True):
        rows[:, i] += c * v**j
    return rows


def _across(nx: int) -> Floats:
    """Return u at each column, -1 to 1."""
    return np.asarray(2.0 * np.arange(nx) / max(nx - 1, 1) - 1.0)


@njit(cache=True)
def _factors_in_place(row, u, out):  # type: ignore[no-untyped-def]
    """Write one plus a row's polynomial, by Horner's rule."""
    out[:] = row[-1]
    for k in range(row.size - 2, -1, -1):
        c = row[k]
        for x in range(out.size):
            out[x] = out[x] * u[x] + c
    for x in range(out.size):
        out[x] += 1.0


@njit(cache=True)
def _scale_and_subtract(science, reference, rows, u):  # type: ignore[no-untyped-def]
    scaled, difference = np.empty(science.shape, np.float32), np.empty(science.shape, np.float32)
    factor = np.empty(u.size)
    for y in range(science.shape[0]):
        _factors_in_place(rows[y], u, factor)
        own, other, into, rest = science[y], reference[y], scaled[y], difference[y]
        for x in range(u.size):
            value = other[x] * np.float32(factor[x])
            into[x] = value
            rest[x] = own[x] - value
    return scaled, difference


@njit(cache=True)
def _subtract_rows_in_place(image, rows, across):  # type: ignore[no-untyped-def]
    """Subtract the product of two matrices, row by row."""
    for y in range(image.shape[0]):
        line = image[y]
        for k in range(across.shape[0]):
            share, profile = rows[y, k], across[k]
            if share != np.float32(0):
                for x in range(line.size):
                    line[x] -= share * profile[x]


@njit(cache=True)
def _assemble_in_place(filled, scaled, science, rows, across, bad_science, bad_reference):  # type: ignore[no-untyped-def]
    """Mend the scaled reference where the science image is good, and turn the filled difference into that one.

    The product of ``rows`` and ``across`` is the background that the difference lacks.
    """
    for y in range(filled.shape[0]):
        line, full, is_off = scaled[y], filled[y], bad_reference[y]
        for x in range(line.size):
            if not is_off[x] or bad_science[y, x]:
                continue
            background = np.float32(0)
            for k in range(across.shape[0]):
                background += rows[y, k] * across[k, x]
            line[x] = science[y, x] - background - full[x]
        for x in range(line.size):
            full[x] += line[x]


@njit(cache=True)
def _filled_variance(variance, bad, rows, typical, u):  # type: ignore[no-untyped-def]
    out = np.empty(variance.shape, np.float32)
    factor, usual = np.empty(u.size), np.float32(typical)
    for y in range(variance.shape[0]):
        _factors_in_place(rows[y], u, factor)
        own, off, into = variance[y], bad[y], out[y]
        for x in range(u.size):
            scale = np.float32(factor[x])
            into[x] = (usual if off[x] else own[x]) * scale * scale
    return out


@njit(cache=True)
def _add_fill_error_in_place(variance, filled, bad, other, noise, most):  # type: ignore[no-untyped-def]
    """Add to the variance of ``filled`` pixels the square of what interpolation makes wrong of the ``other`` image.

    The other image has seen the pixel, so it tells how much the sky differs there from its good neighbours, whose mean
    square difference this is: nothing on blank sky, much in the core of a star. Counted is what ``noise``, the other
    image's variance, cannot be (3 sigma), so that new sources, which are not in a reference, keep their significance.
    No more than ``most`` is added.
    """
    ny, nx = variance.shape
    for k in filled:
        y, x = k // nx, k % nx
        if not noise[y, x] > 0:
            continue
        total, expected, n = 0.0, 0.0, 0
        for j in range(max(y - 1, 0), min(y + 2, ny)):
            for i in range(max(x - 1, 0), min(x + 2, nx)):
                if not bad[j, i]:
                    total += (other[y, x] - other[j, i]) ** 2
                    expected += noise[y, x] + noise[j, i]
                    n += 1
        if total > 9.0 * expected:
            variance[y, x] += np.float32(min(total / n, most))


@njit(cache=True)
def _spread(bad, weight):  # type: ignore[no-untyped-def]
    ny, nx = bad.shape
    half = weight.shape[0] // 2
    out = np.zeros((ny, nx), np.float32)
    for y in range(ny):
        for x in range(nx):
            if not bad[y, x]:
                continue
            for j in range(max(y - half, 0), min(y + half + 1, ny)):
                for i in range(max(x - half, 0), min(x + half + 1, nx)):
                    out[j, i] += weight[y - j + half, x - i + half]
    return out


@njit(cache=True)
def _scatter(bad, offsets):  # type: ignore[no-untyped-def]
    ny, nx = bad.shape
    out = bad.copy()
    for y in range(ny):
        for x in range(nx):
            if not bad[y, x]:
                continue
            inner = 0 < x < nx - 1 and 0 < y < ny - 1
            if inner and bad[y, x - 1] and bad[y, x + 1] and bad[y - 1, x] and bad[y + 1, x]:
                continue  # its neighbours cover all that it would
            for k in range(offsets.shape[0]):
                j, i = y + offsets[k, 0], x + offsets[k, 1]
                if 0 <= j < ny and 0 <= i < nx:
                    out[j, i] = True
    return out
