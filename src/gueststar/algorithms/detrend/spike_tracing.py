"""Follow diffraction spikes outwards from a star, piece by piece.

What is called for every pixel or piece is compiled without reference counts (``_nrt=False``), see `psf.newton`.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from gueststar.algorithms.stats.select import median_of_few_in_place

_SEGMENT = 8
"""Pixels of a spike that are judged together."""
_BESIDE = (2.5, 5.0)
"""Pixels from a spike's axis where the light beside it is measured, on both sides."""
_FLANK = 6
"""Half pixels from a line to where the light beside it is measured when a star's place is sought."""
_MOST_MISSED = 3
"""Pieces of a spike in a row that may not stand out before it has ended."""
_LATEST = 6
"""Pieces from a saturated star on that may be hidden before a spike is seen."""
_MOST_PIECES = 64
"""Pieces out to which the spikes of a star are taken to be alike."""
_WIDEST = 15.0
"""Pixels, at most, between the middle of the saturated pixels and the star."""


@numba.njit(cache=True, error_model="numpy", _nrt=False)
def excess(image, level, is_excluded, y, x):  # type: ignore[no-untyped-def]
    """Return the light above the sky at a place between pixels; NaN where it cannot be known."""
    ny, nx = image.shape
    v, u = math.floor(y), math.floor(x)
    if v < 0 or u < 0 or v >= ny - 1 or u >= nx - 1:
        return np.nan
    if is_excluded[v, u] or is_excluded[v, u + 1] or is_excluded[v + 1, u] or is_excluded[v + 1, u + 1]:
        return np.nan
    b, a = y - v, x - u
    below = (1.0 - a) * image[v, u] + a * image[v, u + 1]
    above = (1.0 - a) * image[v + 1, u] + a * image[v + 1, u + 1]
    return (1.0 - b) * below + b * above - level[v, u]


@numba.njit(cache=True, error_model="numpy")
def follow_all_in_place(  # type: ignore[no-untyped-def]
    is_spike, image, level, rms, is_excluded, x, y, radius, angles, reach, first_significance, significance, contrast
):
    """Set ``is_spike`` on the spikes of all stars and return how many stars have spikes.

    All spikes of a star meet in it: its place is where they are brightest together, so that a neighbour on one of them
    does not draw that one to itself. They are alike, too: where more than half of them were followed, the others are
    taken to be as long and as bright, though neighbours may hide them.
    """
    n_stars, values = 0, np.empty(_SEGMENT)
    for s in range(x.size):
        heart_x, heart_y = _common_heart(image, level, rms, is_excluded, x[s], y[s], radius[s], angles, reach)
        first, light, n_arms = radius[s] + 2.0, np.zeros(_MOST_PIECES), 0
        for angle in angles:
            turned, offset = _aligned(image, level, rms, is_excluded, heart_x, heart_y, first, angle, reach)
            for trial, across in ((turned, offset), (angle, 0.0)):
                is_seen = _follow(
                    is_spike, light, values, image, level, rms, is_excluded, heart_x, heart_y, first, trial, across,
                    _LATEST, first_significance, significance, contrast,
                )  # fmt: skip
                if is_seen:
                    n_arms += 1
                    break
        n_stars += n_arms > 0
        if 2 * n_arms > angles.size:
            for angle in angles:
                c, d = math.cos(angle), math.sin(angle)
                for k in range(_MOST_PIECES):
                    start, brightest = first + k * _SEGMENT, contrast * light[k]
                    if brightest > 0.0:
                        _mark(is_spike, image, level, rms, heart_x, heart_y, start, c, d, 0.0, brightest)
    return n_stars


@numba.njit(cache=True, error_model="numpy")
def enter_in_place(  # type: ignore[no-untyped-def]
    is_spike, image, level, rms, is_excluded, angles, first_significance, significance, contrast
):
    """Set ``is_spike`` on spikes that come in over the border."""
    light, values = np.zeros(_MOST_PIECES), np.empty(_SEGMENT)
    ny, nx = image.shape
    for angle in angles:
        for k in range(nx + ny):
            x, y = float(k), 0.0 if math.sin(angle) > 0.0 else ny - 1.0
            if k >= nx:
                x, y = 0.0 if math.cos(angle) > 0.0 else nx - 1.0, float(k - nx)
            _follow(
                is_spike, light, values, image, level, rms, is_excluded, x, y, 2.0, angle, 0.0, 0,
                first_significance, significance, contrast,
            )  # fmt: skip


@numba.njit(cache=True, error_model="numpy", _nrt=False)
def _line_light(image, level, rms, is_excluded, x, y, first, c, d, offset, reach):  # type: ignore[no-untyped-def]
    """Return the mean logarithm of the light, in units of the noise, along a line out to ``reach``.

    Of the logarithm, so that a star that lies on the line in one place does not rule.
    """
    total, product, n = 0.0, 1.0, 0
    for r in range(0, reach, 3):
        u = x + (first + r) * c - offset * d
        v = y + (first + r) * d + offset * c
        value = excess(image, level, is_excluded, v, u)
        if not math.isnan(value):
            product *= 1.0 + max(value / rms[int(v), int(u)], 0.0)
            n += 1
            if product > 1e200:
                total, product = total + math.log(product), 1.0
    return (total + math.log(product)) / n if n >= reach // 12 else 0.0


@numba.njit(cache=True, error_model="numpy")
def _common_heart(image, level, rms, is_excluded, x, y, radius, angles, reach):  # type: ignore[no-untyped-def]
    """Return the place from which the lines in all directions are brightest together, against those beside them.

    The middle of saturated pixels may be off the star by much of their ``radius``: charge bled, or stars merged.
    """
    widest = 2 * math.ceil(min(max(radius, 1.5), _WIDEST))  # all in half pixels
    half = widest + _FLANK
    sharp = np.zeros((angles.size, 2 * half + 1))
    for k in range(angles.size):
        c, d = math.cos(angles[k]), math.sin(angles[k])
        light = np.empty(2 * half + 1)
        for j in range(-half, half + 1):
            light[j + half] = _line_light(image, level, rms, is_excluded, x, y, radius + 2.0, c, d, 0.5 * j, reach)
        for j in range(_FLANK, 2 * half + 1 - _FLANK):
            sharp[k, j] = max(light[j] - max(light[j - _FLANK], light[j + _FLANK]), 0.0)
    best, best_x, best_y = -np.inf, x, y
    along_x, along_y = np.cos(angles), np.sin(angles)
    for j in range(-widest, widest + 1):
        for i in range(-widest, widest + 1):
            total = -1e-3 * math.hypot(i, j)  # of equals the nearest
            for k in range(angles.size):
                across = round(j * along_x[k] - i * along_y[k])
                if abs(across) <= widest:
                    total += sharp[k, across + half]
            if total > best:
                best, best_x, best_y = total, x + 0.5 * i, y + 0.5 * j
    return best_x, best_y


@numba.njit(cache=True, error_model="numpy", _nrt=False)
def _aligned(image, level, rms, is_excluded, x, y, first, angle, reach):  # type: ignore[no-untyped-def]
    """Return the angle and the offset across, near those given, at which a spike is brightest."""
    best, best_angle, best_offset = -np.inf, angle, 0.0
    for i in range(-2, 3):
        turned = angle + math.radians(0.5 * i)
        c, d = math.cos(turned), math.sin(turned)
        for j in range(-2, 3):
            light = _line_light(image, level, rms, is_excluded, x, y, first, c, d, 0.5 * j, reach)
            if light > best:
                best, best_angle, best_offset = light, turned, 0.5 * j
    return best_angle, best_offset


@numba.njit(cache=True, error_model="numpy", _nrt=False)
def _segment(values, image, level, rms, is_excluded, x, y, start, c, d, offset):  # type: ignore[no-untyped-def]
    """Return median light along a piece of a spike, and by how many sigma it exceeds that on its brighter side.

    Near by and farther out, whichever shows it better: a neighbour may lie beside it, and blurred spikes are wide.
    """
    on_axis, n = _median_along(values, image, level, is_excluded, x, y, start, c, d, offset)
    if n < _SEGMENT // 2:
        return np.nan, 0.0
    middle = start + 0.5 * _SEGMENT
    v, u = round(y + middle * d + offset * c), round(x + middle * c - offset * d)
    noise = rms[min(max(v, 0), rms.shape[0] - 1), min(max(u, 0), rms.shape[1] - 1)]
    error = 1.2533 * math.sqrt((noise**2 + max(on_axis, 0.0)) / n)
    if on_axis < error:
        return on_axis, 0.0
    beside = np.inf
    for distance in _BESIDE:
        left, _ = _median_along(values, image, level, is_excluded, x, y, start, c, d, offset - distance)
        right, _ = _median_along(values, image, level, is_excluded, x, y, start, c, d, offset + distance)
        if not math.isnan(left) and not math.isnan(right):
            beside = min(beside, max(left, right))
    return on_axis, (on_axis - beside) / error


@numba.njit(cache=True, error_model="numpy", _nrt=False)
def _median_along(values, image, level, is_excluded, x, y, start, c, d, offset):  # type: ignore[no-untyped-def]
    """Return the median light along a piece of a line and on how many places it is known."""
    n = 0
    for r in range(_SEGMENT):
        value = excess(image, level, is_excluded, y + (start + r) * d + offset * c, x + (start + r) * c - offset * d)
        if not math.isnan(value):
            values[n] = value
            n += 1
    return (median_of_few_in_place(values[:n]) if n > 0 else np.nan), n


@numba.njit(cache=True, error_model="numpy", _nrt=False)
def _follow(  # type: ignore[no-untyped-def]
    is_spike, light, values, image, level, rms, is_excluded, x, y, first, angle, offset, n_late,
    first_significance, significance, contrast,
):  # fmt: skip
    """Mark one spike, from the distance ``first`` outwards, and return whether there is one.

    Two pieces in a row must stand out clearly, no more than ``n_late`` pieces later, for it to begin. ``light`` keeps
    the brightest that was seen of each piece, those that were hidden included.
    """
    c, d = math.cos(angle), math.sin(angle)
    n_seen, n_missed, inner, start, is_marked = 0, 0, np.inf, first, False
    while n_missed <= (_MOST_MISSED if n_seen > 1 else n_late):
        middle, height = _segment(values, image, level, rms, is_excluded, x, y, start, c, d, offset)
        is_lit = height > (significance if n_seen > 1 else first_significance)
        if is_lit and (n_seen < 2 or n_missed == 0 or middle < inner):  # what is brighter again is something else
            # Pieces that another star hid count too; light falls outwards, by no more than four times a piece.
            brightest = contrast * min(inner, 4.0 * middle)
            back = n_missed if n_seen > 1 else n_seen - 1  # the first waits for the second
            for k in range(back + (n_seen == 1), -1, -1):
                _mark(is_spike, image, level, rms, x, y, start - k * _SEGMENT, c, d, offset, brightest)
                piece = round((start - first) / _SEGMENT) - k
                if piece < _MOST_PIECES:
                    light[piece] = max(light[piece], middle)
                is_marked = True
            n_seen, n_missed, inner = n_seen + 1, 0 if n_seen > 0 else n_missed, middle
            for shifted in (offset - 0.5, offset + 0.5):  # its angle may be a little off
                there, _ = _segment(values, image, level, rms, is_excluded, x, y, start, c, d, shifted)
                if there > middle:
                    middle, offset = there, shifted
        else:
            n_missed += 1
            if n_seen == 1:
                n_seen, inner = 0, np.inf
        start += _SEGMENT
    return is_marked


@numba.njit(cache=True, error_model="numpy", _nrt=False)
def _mark(is_spike, image, level, rms, x, y, start, c, d, offset, brightest):  # type: ignore[no-untyped-def]
    """Mark the pixels within 1.5 of a piece of a spike that are no brighter than it can be."""
    ny, nx = image.shape
    for i in range(2 * _SEGMENT):
        for j in range(-3, 4):
            u = round(x + (start + 0.5 * i) * c - (offset + 0.5 * j) * d)
            v = round(y + (start + 0.5 * i) * d + (offset + 0.5 * j) * c)
            if 0 <= v < ny and 0 <= u < nx and not is_spike[v, u]:
                is_spike[v, u] = image[v, u] - level[v, u] < brightest + 5.0 * rms[v, u]
