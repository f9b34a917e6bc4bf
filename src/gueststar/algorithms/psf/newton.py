"""Gauss-Newton steps of point sources and of small groups of them, compiled.

What is called for every source allocates nothing and is compiled without reference counts (``_nrt=False``): numba would
count each array of a scene, a state and the work arrays up and down, atomically, wherever one is handed on, which took
a good part of a step. Such a function cannot return an array, which numba checks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.psf.scene import Scene, SourceState
from gueststar.algorithms.psf.spline import Scratch, SplinePsf, add_change, make_scratch, render, render_with_slopes

Floats32 = NDArray[np.float32]
Floats64 = NDArray[np.float64]
Integers = NDArray[np.int64]

RIDGE = 1e-6
"""Added to the unit diagonal of normal matrices, so that coincident sources do not stop the rest."""


WING_SLOPE = 2.0
"""How steep a PSF is in its wings: its change per pixel, as a multiple of its value, is no more than this."""


class Limits(NamedTuple):
    """What the steps keep to."""

    profile: Floats64
    """The PSF's largest value at each whole distance; its length gives the half side of stamps."""
    faintest: float
    """Models are subtracted out to where they fall below this value."""
    exact_above: float
    """Sources of more flux are rendered exactly."""
    max_shift: float
    """Furthest a source may move from where it was detected, pixels."""
    settled_at: float
    """Steps below this fraction of the errors are small."""


class Work(NamedTuple):
    """Work arrays."""

    scratch: Scratch
    stamp: Floats32
    values: Floats32
    """``[members, 3, side, side]``: PSF and its slopes of each member of a group."""
    before: Floats32
    """A second stamp: a model before its step."""
    flat: Floats32
    """``[6, pixels]``: what is collected of the pixels of a source, or of a group."""
    columns: Floats32
    """``[3 * members, pixels]``: derivatives by flux, x and y of each member at the pixels of a group."""
    matrix: Floats64
    """``[2, (3 * members) ** 2]``: the normal matrix of a group, and the scaled part of it that is inverted."""
    vectors: Floats64
    """``[4, 3 * members]``: right-hand side, step, its variance, and the scale of each parameter."""
    rows: Integers
    """``[4, 3 * members]``: parameters that are solved for; whole positions and boxes of the members."""


@njit(cache=True, error_model="numpy")
def make_work(psf: SplinePsf, state: SourceState, starts: Integers, half: int) -> Work:
    """Return work arrays for the groups that ``starts`` delimits."""
    largest = 1
    for g in range(starts.size - 1):
        largest = max(largest, starts[g + 1] - starts[g])
    box = 1
    for s in range(state.x.size):
        box = max(box, box_of(state, s, half))
    side = 2 * half + 1
    return Work(
        make_scratch(psf.coefficients.shape[0], half, psf.oversampling),
        np.empty((side, side), np.float32),
        np.empty((largest, 3, 2 * box + 1, 2 * box + 1), np.float32),
        np.empty((side, side), np.float32),
        np.empty((6, largest * (2 * box + 1) ** 2), np.float32),
        np.empty((3 * largest, largest * (2 * box + 1) ** 2), np.float32),
        np.empty((2, 9 * largest * largest)),
        np.empty((4, 3 * largest)),
        np.empty((4, 3 * largest), np.int64),
    )


@njit(cache=True, error_model="numpy", _nrt=False)
def box_of(state: SourceState, s: int, half: int) -> int:
    """Return the half side of the box that holds a source's fit radius."""
    return min(int(np.ceil(state.fit_radius[s])), half)


@njit(cache=True, error_model="numpy", _nrt=False)
def add_model(residual: Floats32, psf: SplinePsf, state: SourceState, s: int, sign: float, work: Work) -> None:
    """Add ``sign`` times a source's model to the residual image, over its reach."""
    ny, nx = residual.shape
    x, y, reach, flux = state.x[s], state.y[s], state.reach[s], np.float32(sign * state.flux[s])
    ix, iy = int(np.rint(x)), int(np.rint(y))
    render(psf, x, y, x - ix, y - iy, reach, state.is_exact[s], work.scratch, work.stamp)
    i0, i1 = max(0, ix - reach), min(nx, ix + reach + 1)
    for j in range(max(0, iy - reach), min(ny, iy + reach + 1)):
        line, row = work.stamp[j - iy + reach, i0 - ix + reach : i1 - ix + reach], residual[j, i0:i1]
        for i in range(row.size):
            row[i] += flux * line[i]


@njit(cache=True, error_model="numpy", _nrt=False)
def reach_of(flux: float, fit_radius: float, limits: Limits) -> int:
    """Return the half side of the box out to which a source of this flux must be subtracted."""
    last = limits.profile.size - 1
    reach = min(int(np.ceil(fit_radius)) + 1, last)
    while reach < last and abs(flux) * limits.profile[reach] > limits.faintest:
        reach += 1
    return reach


@njit(cache=True, error_model="numpy", _nrt=False)
def pixel_weight(scene: Scene, j: int, i: int) -> float:
    """Return the inverse variance of a pixel, the Poisson noise and the error of the model there included.

    It is 0 where the pixel is masked: the sky's variance is infinite there.
    """
    model = scene.image[j, i] - scene.residual[j, i]
    variance = scene.sky_variance[j, i] + scene.slope * max(model, 0.0) + (scene.model_error * model) ** 2
    return 1.0 / variance


@njit(cache=True, error_model="numpy", _nrt=False)
def take_first_fluxes(
    scene: Scene, psf: SplinePsf, state: SourceState, order: Integers, limits: Limits, work: Work
) -> None:
    """Give each new source the flux that fits at its place, one after another, and subtract it."""
    half = limits.profile.size - 1
    ny, nx = scene.image.shape
    for s in order:
        x, y, box = state.x[s], state.y[s], box_of(state, s, half)
        ix, iy = int(np.rint(x)), int(np.rint(y))
        render(psf, x, y, x - ix, y - iy, box, False, work.scratch, work.stamp)
        pp, pr, radius2 = 0.0, 0.0, state.fit_radius[s] ** 2
        for j in range(max(0, iy - box), min(ny, iy + box + 1)):
            for i in range(max(0, ix - box), min(nx, ix + box + 1)):
                if (i - x) ** 2 + (j - y) ** 2 > radius2:
                    continue
                w, p = pixel_weight(scene, j, i), work.stamp[j - iy + box, i - ix + box]
                pp += w * p * p
                pr += w * p * scene.residual[j, i]
        state.flux[s] = pr / pp if pp > 0.0 else 0.0
        state.flux_err[s] = 1.0 / np.sqrt(pp) if pp > 0.0 else np.inf
        state.is_exact[s] = state.flux[s] > limits.exact_above
        state.reach[s] = reach_of(state.flux[s], state.fit_radius[s], limits)
        add_model(scene.residual, psf, state, s, -1.0, work)


@njit(cache=True, error_model="numpy", _nrt=False)
def subtract_all(scene: Scene, psf: SplinePsf, state: SourceState, order: Integers, limits: Limits, work: Work) -> None:
    """Subtract each source's model as it stands."""
    for s in order:
        state.is_exact[s] = state.flux[s] > limits.exact_above
        state.reach[s] = reach_of(state.flux[s], state.fit_radius[s], limits)
        add_model(scene.residual, psf, state, s, -1.0, work)


@njit(cache=True, error_model="numpy", _nrt=False)
def sweep(
    scene: Scene, psf: SplinePsf, state: SourceState, members: Integers, starts: Integers, limits: Limits, work: Work
) -> int:
    """Let each unsettled group take one step; return how many groups have not settled."""
    half = limits.profile.size - 1
    n_moving = 0
    for g in range(starts.size - 1):
        group = members[starts[g] : starts[g + 1]]
        is_done = True
        for s in group:
            is_done = is_done and state.is_settled[s]
        if is_done:
            continue
        solve_group(scene, psf, state, group, half, work)
        step, variance = work.vectors[1], work.vectors[2]
        is_small = True
        for a in range(group.size):
            part = slice(3 * a, 3 * a + 3)
            is_still = _move(scene, psf, state, group[a], step[part], variance[part], limits, work)
            is_small = is_small and is_still
        for s in group:
            state.is_settled[s] = is_small
        if not is_small:
            n_moving += 1
    return n_moving


@njit(cache=True, error_model="numpy", _nrt=False)
def solve_group(scene: Scene, psf: SplinePsf, state: SourceState, group: Integers, half: int, work: Work) -> None:
    """Write the step of (flux, x, y) of each member and its variance into ``work``; NaN for what is held or unknown."""
    for a in range(group.size):
        s = group[a]
        x, y = state.x[s], state.y[s]
        values = work.values[a]
        render_with_slopes(
            psf, x, y, x - np.rint(x), y - np.rint(y), box_of(state, s, half), state.is_exact[s], work.scratch,
            values[0], values[1], values[2],
        )  # fmt: skip
    n = 3 * group.size
    matrix, vector = work.matrix[0, : n * n].reshape(n, n), work.vectors[0, :n]
    if group.size == 1:
        _equations_of_one(scene, state, group[0], half, work, matrix, vector)
    else:
        _equations_of_many(scene, state, group, half, work, matrix, vector)
    _solve(matrix, vector, work)


@njit(cache=True, error_model="numpy", _nrt=False)
def _position_scale(state: SourceState, s: int) -> float:
    return 0.0 if state.is_fixed[s] else state.flux[s]


@njit(cache=True, error_model="numpy", _nrt=False)
def _equations_of_one(
    scene: Scene, state: SourceState, s: int, half: int, work: Work, matrix: Floats64, vector: Floats64
) -> None:
    f, flat = _position_scale(state, s), work.flat
    values = work.values[0]
    n = _gather(scene, state, s, box_of(state, s, half), values[0], values[1], values[2], flat)
    a00, a01, a02, a11, a12, a22, b0, b1, b2 = _weighted_products(
        flat[0, :n], flat[1, :n], flat[2, :n], flat[3, :n], flat[4, :n], flat[5, :n],
        np.float32(scene.slope), np.float32(scene.model_error),
    )  # fmt: skip
    matrix[0, 0], matrix[1, 1], matrix[2, 2] = a00, f * f * a11, f * f * a22
    matrix[0, 1] = matrix[1, 0] = f * a01
    matrix[0, 2] = matrix[2, 0] = f * a02
    matrix[1, 2] = matrix[2, 1] = f * f * a12
    vector[0], vector[1], vector[2] = b0, f * b1, f * b2


@njit(cache=True, error_model="numpy", _nrt=False)
def _gather(
    scene: Scene,
    state: SourceState,
    s: int,
    box: int,
    first: Floats32,
    second: Floats32,
    third: Floats32,
    flat: Floats32,
) -> int:
    """Collect the pixels within the fit radius of a source; return how many there are.

    The rows of ``flat`` become the sky's variance, the residual, the model subtracted, and the values of three stamps.
    """
    ny, nx = scene.image.shape
    x, y, radius2 = state.x[s], state.y[s], state.fit_radius[s] ** 2
    ix, iy, n = int(np.rint(x)), int(np.rint(y)), 0
    for j in range(max(0, iy - box), min(ny, iy + box + 1)):
        chord2 = radius2 - (j - y) ** 2
        if chord2 < 0.0:
            continue
        chord = np.sqrt(chord2)
        i0 = max(0, ix - box, int(np.ceil(x - chord)))
        k, m = j - iy + box, i0 - ix + box
        for i in range(i0, min(nx, ix + box + 1, int(np.floor(x + chord)) + 1)):
            r = scene.residual[j, i]
            flat[0, n], flat[1, n], flat[2, n] = scene.sky_variance[j, i], r, scene.image[j, i] - r
            flat[3, n], flat[4, n], flat[5, n] = first[k, m], second[k, m], third[k, m]
            n, m = n + 1, m + 1
    return n


@njit(cache=True, error_model="numpy", _nrt=False, fastmath={"reassoc", "contract"})
def _weighted_products(
    sky: Floats32,
    residual: Floats32,
    model: Floats32,
    p0: Floats32,
    p1: Floats32,
    p2: Floats32,
    slope: float,
    model_error: float,
) -> tuple[float, float, float, float, float, float, float, float, float]:
    """Return the sums of weight times p_a p_b (a <= b), then of weight times residual times p_a.

    Sums may be taken in any order; nothing is assumed of NaN.
    """
    zero, one = np.float32(0), np.float32(1)
    a00, a01, a02, a11, a12, a22, b0, b1, b2 = zero, zero, zero, zero, zero, zero, zero, zero, zero
    for k in range(sky.size):
        error = model_error * model[k]
        w = one / (sky[k] + slope * max(model[k], zero) + error * error)
        q0, q1, q2, r = w * p0[k], w * p1[k], w * p2[k], residual[k]
        a00 += q0 * p0[k]
        a01 += q0 * p1[k]
        a02 += q0 * p2[k]
        a11 += q1 * p1[k]
        a12 += q1 * p2[k]
        a22 += q2 * p2[k]
        b0 += q0 * r
        b1 += q1 * r
        b2 += q2 * r
    return float(a00), float(a01), float(a02), float(a11), float(a12), float(a22), float(b0), float(b1), float(b2)


@njit(cache=True, error_model="numpy", _nrt=False)
def _equations_of_many(
    scene: Scene, state: SourceState, group: Integers, half: int, work: Work, matrix: Floats64, vector: Floats64
) -> None:
    """Add up over the union of the members' circles; a member counts within its own box."""
    n = _gather_union(scene, state, group, half, work)
    weight, pulled = work.flat[0, :n], work.flat[1, :n]
    for a in range(3 * group.size):
        line = work.columns[a, :n]
        vector[a] = _product(pulled, line)
        _multiply(line, weight, work.flat[2, :n])
        for b in range(a + 1):
            matrix[a, b] = _product(work.flat[2, :n], work.columns[b, :n])
            matrix[b, a] = matrix[a, b]


@njit(cache=True, error_model="numpy", _nrt=False)
def _gather_union(scene: Scene, state: SourceState, group: Integers, half: int, work: Work) -> int:
    """Collect weight, weight times residual, and each member's derivatives at the pixels of the union of circles.

    Return how many pixels there are.
    """
    ny, nx = scene.image.shape
    m, n = group.size, 0
    ix, iy, box = work.rows[1], work.rows[2], work.rows[3]
    left, right, low, high = nx, -1, ny, -1
    for a in range(m):
        ix[a], iy[a] = int(np.rint(state.x[group[a]])), int(np.rint(state.y[group[a]]))
        box[a] = box_of(state, group[a], half)
        left, right = min(left, ix[a] - box[a]), max(right, ix[a] + box[a])
        low, high = min(low, iy[a] - box[a]), max(high, iy[a] + box[a])
    for j in range(max(0, low), min(ny, high + 1)):
        for i in range(max(0, left), min(nx, right + 1)):
            if not _is_in_circle(state, group, i, j):
                continue
            w = pixel_weight(scene, j, i)
            if w == 0.0:
                continue
            work.flat[0, n], work.flat[1, n] = w, w * scene.residual[j, i]
            for a in range(m):
                dx, dy = i - ix[a] + box[a], j - iy[a] + box[a]
                is_near = 0 <= dx <= 2 * box[a] and 0 <= dy <= 2 * box[a]
                f = _position_scale(state, group[a])
                work.columns[3 * a, n] = work.values[a, 0, dy, dx] if is_near else 0.0
                work.columns[3 * a + 1, n] = f * work.values[a, 1, dy, dx] if is_near else 0.0
                work.columns[3 * a + 2, n] = f * work.values[a, 2, dy, dx] if is_near else 0.0
            n += 1
    return n


@njit(cache=True, error_model="numpy", _nrt=False, fastmath={"reassoc", "contract"})
def _product(one: Floats32, other: Floats32) -> float:
    total = 0.0
    for k in range(one.size):
        total += float(one[k]) * float(other[k])
    return total


@njit(cache=True, error_model="numpy", _nrt=False)
def _multiply(one: Floats32, other: Floats32, out: Floats32) -> None:
    for k in range(out.size):
        out[k] = one[k] * other[k]


@njit(cache=True, error_model="numpy", _nrt=False)
def _is_in_circle(state: SourceState, group: Integers, i: int, j: int) -> bool:
    is_inside = False
    for s in group:
        is_inside = is_inside or (i - state.x[s]) ** 2 + (j - state.y[s]) ** 2 <= state.fit_radius[s] ** 2
    return is_inside


@njit(cache=True, error_model="numpy", _nrt=False)
def _solve(matrix: Floats64, vector: Floats64, work: Work) -> None:
    """Write the step and its variances; parameters without information stay where they are (variance NaN)."""
    n, m = vector.size, 0
    step, variance, scale, used = work.vectors[1], work.vectors[2], work.vectors[3], work.rows[0]
    for k in range(n):
        step[k], variance[k] = 0.0, np.nan
        if matrix[k, k] > 0.0:
            used[m] = k
            m += 1
    scaled = work.matrix[1, : m * m].reshape(m, m)
    for a in range(m):
        scale[a] = 1.0 / np.sqrt(matrix[used[a], used[a]])
    for a in range(m):
        for b in range(m):
            scaled[a, b] = matrix[used[a], used[b]] * scale[a] * scale[b]
        scaled[a, a] += RIDGE
    _invert_in_place(scaled)
    for a in range(m):
        total = 0.0
        for b in range(m):
            total += scaled[a, b] * scale[b] * vector[used[b]]
        step[used[a]] = scale[a] * total
        variance[used[a]] = scaled[a, a] * scale[a] * scale[a]


@njit(cache=True, error_model="numpy", _nrt=False)
def _invert_in_place(matrix: Floats64) -> None:
    """Invert a small symmetric positive definite matrix by Gauss-Jordan elimination (no pivoting is needed)."""
    n = matrix.shape[0]
    for k in range(n):
        pivot = 1.0 / matrix[k, k]
        matrix[k, k] = 1.0
        for c in range(n):
            matrix[k, c] *= pivot
        for r in range(n):
            if r != k:
                factor = matrix[r, k]
                matrix[r, k] = 0.0
                for c in range(n):
                    matrix[r, c] -= factor * matrix[k, c]


@njit(cache=True, error_model="numpy", _nrt=False)
def _move(
    scene: Scene,
    psf: SplinePsf,
    state: SourceState,
    s: int,
    step: Floats64,
    variance: Floats64,
    limits: Limits,
    work: Work,
) -> bool:
    """Take a step, in the residual image too; return whether it was small against the errors."""
    x, y, flux = state.x[s], state.y[s], state.flux[s]
    sigma = np.sqrt(variance[0])
    new_x, new_y, new = x, y, flux + step[0]
    if new > 2.0 * sigma and np.isfinite(variance[1]):
        longest = max(abs(step[1]), abs(step[2]))
        shrink = 1.0 if longest <= 0.5 else 0.5 / longest
        new_x, new_y = x + shrink * step[1], y + shrink * step[2]
        away_x, away_y = new_x - state.start_x[s], new_y - state.start_y[s]
        far = np.hypot(away_x, away_y)
        if far > limits.max_shift:
            new_x = state.start_x[s] + away_x * limits.max_shift / far
            new_y = state.start_y[s] + away_y * limits.max_shift / far
    moved = max(abs(new_x - x), abs(new_y - y))
    # In the wings a model changes little: beyond where that is a fifth of what is subtracted at all, it is left.
    change = abs(new - flux) + WING_SLOPE * abs(flux) * moved
    reach = reach_of(5.0 * change, state.fit_radius[s], limits)
    _replace_model(scene.residual, psf, state, s, new_x, new_y, new, min(reach, state.reach[s]), work)
    state.x[s], state.y[s], state.flux[s], state.flux_err[s] = new_x, new_y, new, sigma
    error = np.sqrt(max(variance[1], variance[2]))
    is_still = abs(new - flux) <= limits.settled_at * sigma + 1e-5 * abs(new)
    return bool(is_still and (moved <= 0.0005 or moved <= limits.settled_at * error))


@njit(cache=True, error_model="numpy", _nrt=False)
def _replace_model(
    residual: Floats32,
    psf: SplinePsf,
    state: SourceState,
    s: int,
    x: float,
    y: float,
    flux: float,
    reach: int,
    work: Work,
) -> None:
    """Subtract a source at (x, y) with ``flux`` from the residual image instead of as it stands, over ``reach``."""
    ix, iy = int(np.rint(state.x[s])), int(np.rint(state.y[s]))
    if ix != int(np.rint(x)) or iy != int(np.rint(y)):
        add_model(residual, psf, state, s, 1.0, work)
        state.x[s], state.y[s], state.flux[s] = x, y, flux
        add_model(residual, psf, state, s, -1.0, work)
        return
    add_change(
        psf, state.x[s], state.y[s], np.float32(state.flux[s]), x, y, np.float32(flux),
        ix, iy, reach, state.is_exact[s], work.scratch, residual,
    )  # fmt: skip


@njit(cache=True, error_model="numpy", _nrt=False)
def release(scene: Scene, psf: SplinePsf, state: SourceState, rows: Integers, work: Work) -> None:
    """Put the light of some sources back into the residual image."""
    for s in rows:
        if state.reach[s] >= 0:
            add_model(scene.residual, psf, state, s, 1.0, work)
            state.reach[s] = -1


@njit(cache=True, error_model="numpy", _nrt=False)
def measure_groups(
    scene: Scene,
    psf: SplinePsf,
    state: SourceState,
    members: Integers,
    starts: Integers,
    is_wanted: NDArray[np.bool_],
    half: int,
    psf_variance: float,
    work: Work,
    out: Floats64,
    counts: Integers,
) -> None:
    """Write errors and quality into ``out[7, n]`` and ``counts[2, n]``, of groups with a member that is wanted."""
    for g in range(starts.size - 1):
        group = members[starts[g] : starts[g + 1]]
        is_one_wanted = False
        for s in group:
            is_one_wanted = is_one_wanted or is_wanted[s]
        if not is_one_wanted:
            continue
        solve_group(scene, psf, state, group, half, work)
        variance = work.vectors[2]
        for a in range(group.size):
            s = group[a]
            out[0, s], out[1, s] = np.sqrt(variance[3 * a + 1]), np.sqrt(variance[3 * a + 2])
            out[2, s] = np.sqrt(variance[3 * a])
            _quality(scene, psf, state, s, half, psf_variance, work, out, counts)


@njit(cache=True, error_model="numpy", _nrt=False)
def _quality(
    scene: Scene,
    psf: SplinePsf,
    state: SourceState,
    s: int,
    half: int,
    psf_variance: float,
    work: Work,
    out: Floats64,
    counts: Integers,
) -> None:
    x, y, flux, stamp = state.x[s], state.y[s], state.flux[s], work.stamp
    box = min(box_of(state, s, half), half - 1)
    ix, iy = int(np.rint(x)), int(np.rint(y))
    render(psf, x, y, x - ix, y - iy, box + 1, state.is_exact[s], work.scratch, stamp)
    side, spread = 2 * box + 1, work.before
    for a in range(side):
        for b in range(side):
            # P + c * laplacian is P convolved with a kernel of variance 2 c along each axis.
            around = stamp[a + 2, b + 1] + stamp[a, b + 1] + stamp[a + 1, b + 2] + stamp[a + 1, b]
            spread[a, b] = around - 4 * stamp[a + 1, b + 1]
    inner = stamp[1 : side + 1, 1 : side + 1]
    n, flat = _gather(scene, state, s, box, inner, spread, spread, work.flat), work.flat
    n_used = 0
    for k in range(n):
        n_used += flat[0, k] < np.inf
    chi2, sky = _misfit(
        flat[0, :n], flat[1, :n], flat[2, :n], flat[3, :n], np.float32(scene.slope), np.float32(scene.model_error)
    )
    pp, pl, _, ll, _, _, _, lr, _ = _weighted_products(
        flat[0, :n], flat[1, :n], flat[2, :n], flat[3, :n], flat[4, :n], flat[5, :n],
        np.float32(scene.slope), np.float32(scene.model_error),
    )  # fmt: skip
    counts[0, s], counts[1, s] = n_used, _pixels_in_circle(x, y, state.fit_radius[s], box) - n_used
    if n_used > 3:
        out[3, s] = chi2 / (n_used - 3)
    power = ll - pl * pl / pp if pp > 0 else 0.0
    if power > 0 and flux > 0:
        out[4, s] = 2.0 * lr / (flux * power) / psf_variance
        out[5, s] = 2.0 / (flux * np.sqrt(power)) / psf_variance
    if sky > 0:
        out[6, s] = 1.0 / np.sqrt(sky)


@njit(cache=True, error_model="numpy", _nrt=False, fastmath={"reassoc", "contract"})
def _misfit(
    sky: Floats32, residual: Floats32, model: Floats32, p: Floats32, slope: float, model_error: float
) -> tuple[float, float]:
    """Return the sums of squared residual over variance, and of squared PSF over the variance of the sky alone."""
    zero = np.float32(0)
    chi2, information = zero, zero
    for k in range(sky.size):
        error = model_error * model[k]
        chi2 += residual[k] * residual[k] / (sky[k] + slope * max(model[k], zero) + error * error)
        information += p[k] * p[k] / sky[k]
    return float(chi2), float(information)


@njit(cache=True, error_model="numpy", _nrt=False)
def _pixels_in_circle(x: float, y: float, radius: float, box: int) -> int:
    """Return how many pixels, were the image without end, lie in a circle and no further than ``box`` along an axis."""
    ix, iy, n = int(np.rint(x)), int(np.rint(y)), 0
    for j in range(iy - box, iy + box + 1):
        chord2 = radius**2 - (j - y) ** 2
        if chord2 >= 0.0:
            chord = np.sqrt(chord2)
            n += min(ix + box, int(np.floor(x + chord))) - max(ix - box, int(np.ceil(x - chord))) + 1
    return n
