"""Fit many point sources at once: positions and fluxes, close ones together, all in one residual image.

The residual image (data minus all models) is the state. Sources closer than the linking length are solved
together by Gauss-Newton steps; groups are visited in turn, each seeing its neighbours already subtracted
(block Gauss-Seidel), until nothing moves: the fixed point is the simultaneous least-squares fit
(as DAOPHOT's ALLSTAR seeks: Stetson 1987, PASP 99, 191).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.detection.noise import NoiseModel
from gueststar.algorithms.psf.groups import Groups, group_sources
from gueststar.algorithms.psf.spline import (
    Scratch,
    SplinePsf,
    make_scratch,
    render,
    render_with_slopes,
    shifted_stamps,
)

Float32Image = NDArray[np.float32]
Floats32 = NDArray[np.float32]
Floats64 = NDArray[np.float64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True)
class FitConfig:
    """How sources are fitted."""

    fit_radius_fwhm: float = 1.3
    """Radius of the pixels that a source is fitted to, in FWHM."""
    link_fwhm: float = 1.6
    """Sources closer than this, in FWHM, are solved together."""
    max_group: int = 8
    """Largest number of sources solved together; larger groups are cut at their widest gaps."""
    max_sweeps: int = 8
    """Most visits to a source in one fit."""
    model_error: float = 0.005
    """Error of the PSF model, as a fraction of the model at each pixel; added to the noise in quadrature."""
    subtract_to_sigma: float = 0.1
    """Models are subtracted out to where they fall below this fraction of the sky noise."""
    max_shift_fwhm: float = 1.0
    """Furthest a source may move from where it was detected, in FWHM."""


class SourceState(NamedTuple):
    """What a fit knows of its sources; arrays of one length, altered by the sweeps."""

    x: Floats64
    y: Floats64
    flux: Floats64
    start_x: Floats64
    start_y: Floats64
    fit_radius: Floats64
    """Pixels."""
    is_fixed: Booleans
    """Position is held."""
    reach: NDArray[np.int64]
    """Half side of the box from which the source's model has been subtracted; -1: not yet."""
    is_settled: Booleans
    """The last step was small against the errors."""


class SourceErrors(NamedTuple):
    """Errors and quality of fitted sources, arrays of one length."""

    x_err: Floats64
    y_err: Floats64
    flux_err: Floats64
    chi2: Floats64
    """Reduced chi-square of the pixels within the fit radius, model error included in the noise."""
    sharpness: Floats64
    """Variance in excess of the PSF's, as a fraction of it: 0 for a point, positive if wider."""
    sharpness_err: Floats64
    sky_flux_err: Floats64
    """Error the flux would have from the noise of the sky alone."""
    n_pixels: NDArray[np.int64]
    """Usable pixels within the fit radius."""
    n_masked: NDArray[np.int64]
    """Masked pixels within it (and those outside the image)."""


def new_sources(
    x: Floats64,
    y: Floats64,
    *,
    fit_radius: float | Floats64,
    flux: Floats64 | None = None,
    is_fixed: Booleans | bool = False,
) -> SourceState:
    """Return the state of sources of which nothing has been subtracted yet."""
    n = len(x)
    return SourceState(
        np.array(x, dtype=np.float64),
        np.array(y, dtype=np.float64),
        np.zeros(n) if flux is None else np.array(flux, dtype=np.float64),
        np.array(x, dtype=np.float64),
        np.array(y, dtype=np.float64),
        np.broadcast_to(np.asarray(fit_radius, dtype=np.float64), n).copy(),
        np.broadcast_to(np.asarray(is_fixed, dtype=bool), n).copy(),
        np.full(n, -1, dtype=np.int64),
        np.zeros(n, dtype=bool),
    )


def joined(first: SourceState, second: SourceState) -> SourceState:
    """Return the sources of both states, the first's before the second's."""
    return SourceState._make(np.concatenate(pair) for pair in zip(first, second, strict=True))


def chosen(state: SourceState, index: Booleans | NDArray[np.int64]) -> SourceState:
    """Return some of the sources."""
    return SourceState._make(values[index] for values in state)


class Scene(NamedTuple):
    """The image that is being explained."""

    image: Float32Image
    residual: Float32Image
    """The image less the models subtracted so far; altered in place."""
    sky_variance: Float32Image
    is_masked: Booleans
    slope: float
    """Variance per unit of signal."""
    model_error: float


def make_scene(
    image: Float32Image, noise: NoiseModel, is_masked: Booleans, *, model_error: float = FitConfig.model_error
) -> Scene:
    """Return a scene of which nothing is explained yet. Pixels without a finite value or variance are masked."""
    unusable = is_masked | ~np.isfinite(image) | ~np.isfinite(noise.sky_variance)
    clean = np.where(unusable & ~np.isfinite(image), np.float32(0), image) if unusable.any() else image
    return Scene(clean, clean.copy(), noise.sky_variance, unusable, float(noise.slope), float(model_error))


def fit_in_place(
    scene: Scene, psf: SplinePsf, state: SourceState, *, fwhm: float, config: FitConfig = FitConfig()
) -> None:
    """Fit all sources that are not settled, altering ``state`` and ``scene.residual``.

    New sources (nothing subtracted) first get their flux at their place, the brightest first; then groups
    take Gauss-Newton steps until they settle or ``config.max_sweeps`` is reached.
    """
    if len(state.x) == 0:
        return
    profile = radial_envelope(psf)
    sigma = float(np.sqrt(np.median(scene.sky_variance[:: max(1, scene.image.shape[0] // 64)])))
    limit = config.subtract_to_sigma * sigma
    is_new = state.reach < 0
    if is_new.any():
        alone = single_groups(np.flatnonzero(is_new), state.flux)
        _sweep(scene, psf, state, alone.members, alone.starts, profile, limit, 0.0, True)
    groups = group_sources(
        x=state.x, y=state.y, flux=state.flux, link=config.link_fwhm * fwhm, max_size=config.max_group
    )
    for _ in range(config.max_sweeps):
        moved = _sweep(
            scene, psf, state, groups.members, groups.starts, profile, limit, config.max_shift_fwhm * fwhm, False
        )
        if moved == 0:
            break


def measure_errors(
    scene: Scene, psf: SplinePsf, state: SourceState, *, fwhm: float, config: FitConfig = FitConfig()
) -> SourceErrors:
    """Return the errors of fitted sources from the inverse of their group's normal matrix, and their quality."""
    n = len(state.x)
    out = np.full((7, n), np.nan)
    counts = np.zeros((2, n), dtype=np.int64)
    if n:
        groups = group_sources(
            x=state.x, y=state.y, flux=state.flux, link=config.link_fwhm * fwhm, max_size=config.max_group
        )
        _errors(scene, psf, state, groups.members, groups.starts, psf.half, (fwhm / 2.3548) ** 2, out, counts)
    return SourceErrors(*out, *counts)


def single_groups(index: NDArray[np.int64], flux: Floats64) -> Groups:
    """Return groups of one for the sources ``index``, the brightest first."""
    order = index[np.argsort(-flux[index], kind="stable")]
    return Groups(order.astype(np.int64), np.arange(order.size + 1, dtype=np.int64))


def radial_envelope(psf: SplinePsf) -> Floats64:
    """Return the PSF's largest absolute value beyond each whole radius, over the corners and middle of the image."""
    ny, nx = psf.shape
    x = np.array([0.0, nx - 1.0, 0.0, nx - 1.0, (nx - 1) / 2])
    y = np.array([0.0, 0.0, ny - 1.0, ny - 1.0, (ny - 1) / 2])
    stamps = np.abs(shifted_stamps(psf, x=x, y=y, dx=np.zeros(5), dy=np.zeros(5)))
    half = psf.half
    g = np.arange(-half, half + 1)
    box = np.maximum(np.abs(g)[:, None], np.abs(g)[None, :])
    rings = np.array([np.percentile(stamps[:, box == r], 75) for r in range(half + 1)])
    return np.asarray(np.maximum.accumulate(rings[::-1])[::-1], dtype=np.float64)


@njit(cache=True)
def _add_model(
    residual: Float32Image,
    psf: SplinePsf,
    x: float,
    y: float,
    flux: float,
    reach: int,
    scratch: Scratch,
    value: Floats32,
) -> None:
    ny, nx = residual.shape
    ix, iy = int(np.rint(x)), int(np.rint(y))
    render(psf, x, y, x - ix, y - iy, reach, scratch, value)
    for j in range(max(0, iy - reach), min(ny, iy + reach + 1)):
        for i in range(max(0, ix - reach), min(nx, ix + reach + 1)):
            residual[j, i] += flux * value[j - iy + reach, i - ix + reach]


@njit(cache=True)
def _reach_of(flux: float, fit_radius: float, profile: Floats64, limit: float) -> int:
    reach = min(int(np.ceil(fit_radius)) + 1, profile.size - 1)
    while reach < profile.size - 1 and abs(flux) * profile[reach] > limit:
        reach += 1
    return reach


@njit(cache=True)
def _pixel_weight(scene: Scene, j: int, i: int) -> float:
    if scene.is_masked[j, i]:
        return 0.0
    model = scene.image[j, i] - scene.residual[j, i]
    variance = scene.sky_variance[j, i] + scene.slope * max(model, 0.0) + (scene.model_error * model) ** 2
    return 1.0 / variance


@njit(cache=True)
def _sweep(
    scene: Scene,
    psf: SplinePsf,
    state: SourceState,
    members: NDArray[np.int64],
    starts: NDArray[np.int64],
    profile: Floats64,
    limit: float,
    max_shift: float,
    is_first: bool,
) -> int:
    """Let each unsettled group take one step (flux only if ``is_first``); return how many did not settle."""
    half = profile.size - 1
    largest = 1
    for g in range(starts.size - 1):
        largest = max(largest, starts[g + 1] - starts[g])
    box = min(int(np.ceil(np.max(state.fit_radius))), half)
    side = 2 * box + 1
    scratch = make_scratch(psf.coefficients.shape[0], half, psf.oversampling)
    stamp = np.empty((2 * half + 1, 2 * half + 1), np.float32)
    values = np.empty((largest, 3, side, side), np.float32)
    n_moving = 0
    for g in range(starts.size - 1):
        group = members[starts[g] : starts[g + 1]]
        is_done = True
        for s in group:
            is_done = is_done and state.is_settled[s]
        if is_done:
            continue
        matrix, vector = _normal_equations(scene, psf, state, group, values, scratch, half, is_first)
        step, variance = _solved(matrix, vector)
        if not _apply(scene, psf, state, group, step, variance, profile, limit, max_shift, is_first, scratch, stamp):
            n_moving += 1
    return n_moving


@njit(cache=True)
def _normal_equations(
    scene: Scene,
    psf: SplinePsf,
    state: SourceState,
    group: NDArray[np.int64],
    values: Floats32,
    scratch: Scratch,
    half: int,
    is_first: bool,
) -> tuple[Floats64, Floats64]:
    """Return the normal matrix and vector of (flux, x, y) of each member, over the union of their circles."""
    n = group.size
    matrix, vector = np.zeros((3 * n, 3 * n)), np.zeros(3 * n)
    ny, nx = scene.image.shape
    for a in range(n):
        s = group[a]
        ix, iy = int(np.rint(state.x[s])), int(np.rint(state.y[s]))
        box = min(int(np.ceil(state.fit_radius[s])), half)
        mine = values[a]
        render_with_slopes(
            psf, state.x[s], state.y[s], state.x[s] - ix, state.y[s] - iy, box, scratch, mine[0], mine[1], mine[2]
        )
    for a in range(n):
        s = group[a]
        xa, ya = int(np.rint(state.x[s])), int(np.rint(state.y[s]))
        box_a = min(int(np.ceil(state.fit_radius[s])), half)
        fa = 0.0 if is_first or state.is_fixed[s] else state.flux[s]
        for j in range(max(0, ya - box_a), min(ny, ya + box_a + 1)):
            for i in range(max(0, xa - box_a), min(nx, xa + box_a + 1)):
                if not _is_in_circle(state, group, i, j):
                    continue
                w = _pixel_weight(scene, j, i)
                if w == 0.0:
                    continue
                r = w * scene.residual[j, i]
                p0 = values[a, 0, j - ya + box_a, i - xa + box_a]
                p1 = fa * values[a, 1, j - ya + box_a, i - xa + box_a]
                p2 = fa * values[a, 2, j - ya + box_a, i - xa + box_a]
                vector[3 * a] += p0 * r
                vector[3 * a + 1] += p1 * r
                vector[3 * a + 2] += p2 * r
                for b in range(a + 1):
                    t = group[b]
                    xb, yb = int(np.rint(state.x[t])), int(np.rint(state.y[t]))
                    box_b = min(int(np.ceil(state.fit_radius[t])), half)
                    if abs(i - xb) > box_b or abs(j - yb) > box_b:
                        continue
                    fb = 0.0 if is_first or state.is_fixed[t] else state.flux[t]
                    q0 = w * values[b, 0, j - yb + box_b, i - xb + box_b]
                    q1 = w * fb * values[b, 1, j - yb + box_b, i - xb + box_b]
                    q2 = w * fb * values[b, 2, j - yb + box_b, i - xb + box_b]
                    matrix[3 * a, 3 * b] += p0 * q0
                    matrix[3 * a, 3 * b + 1] += p0 * q1
                    matrix[3 * a, 3 * b + 2] += p0 * q2
                    matrix[3 * a + 1, 3 * b] += p1 * q0
                    matrix[3 * a + 1, 3 * b + 1] += p1 * q1
                    matrix[3 * a + 1, 3 * b + 2] += p1 * q2
                    matrix[3 * a + 2, 3 * b] += p2 * q0
                    matrix[3 * a + 2, 3 * b + 1] += p2 * q1
                    matrix[3 * a + 2, 3 * b + 2] += p2 * q2
    for a in range(3 * n):
        for b in range(a):
            matrix[b, a] = matrix[a, b]
    return matrix, vector


@njit(cache=True)
def _is_in_circle(state: SourceState, group: NDArray[np.int64], i: int, j: int) -> bool:
    for s in group:
        radius = state.fit_radius[s]
        if (i - state.x[s]) ** 2 + (j - state.y[s]) ** 2 <= radius * radius:
            return True
    return False


@njit(cache=True)
def _solved(matrix: Floats64, vector: Floats64) -> tuple[Floats64, Floats64]:
    """Return the step and its variances; parameters without information stay where they are (variance NaN)."""
    n = vector.size
    step, variance = np.zeros(n), np.full(n, np.nan)
    used = np.empty(n, np.int64)
    m = 0
    for k in range(n):
        if matrix[k, k] > 0.0:
            used[m] = k
            m += 1
    if m == 0:
        return step, variance
    scaled, scale = np.empty((m, m)), np.empty(m)
    for a in range(m):
        scale[a] = 1.0 / np.sqrt(matrix[used[a], used[a]])
    for a in range(m):
        for b in range(m):
            scaled[a, b] = matrix[used[a], used[b]] * scale[a] * scale[b]
        scaled[a, a] += 1e-6
    inverse = np.linalg.inv(scaled)
    for a in range(m):
        total = 0.0
        for b in range(m):
            total += inverse[a, b] * scale[b] * vector[used[b]]
        step[used[a]] = scale[a] * total
        variance[used[a]] = inverse[a, a] * scale[a] * scale[a]
    return step, variance


@njit(cache=True)
def _apply(
    scene: Scene,
    psf: SplinePsf,
    state: SourceState,
    group: NDArray[np.int64],
    step: Floats64,
    variance: Floats64,
    profile: Floats64,
    limit: float,
    max_shift: float,
    is_first: bool,
    scratch: Scratch,
    stamp: Floats32,
) -> bool:
    """Move the members and their models in the residual image; return whether all steps were small."""
    is_small = not is_first
    for a in range(group.size):
        s = group[a]
        x, y, flux = state.x[s], state.y[s], state.flux[s]
        old = 0.0 if state.reach[s] < 0 else flux
        sigma = np.sqrt(variance[3 * a])
        new = old + step[3 * a]
        nx, ny = x, y
        if not is_first and new > 2.0 * sigma and np.isfinite(variance[3 * a + 1]):
            longest = max(abs(step[3 * a + 1]), abs(step[3 * a + 2]))
            shrink = 1.0 if longest <= 0.5 else 0.5 / longest
            nx, ny = x + shrink * step[3 * a + 1], y + shrink * step[3 * a + 2]
            far = np.hypot(nx - state.start_x[s], ny - state.start_y[s])
            if far > max_shift:
                nx = state.start_x[s] + (nx - state.start_x[s]) * max_shift / far
                ny = state.start_y[s] + (ny - state.start_y[s]) * max_shift / far
        if old != 0.0:
            _add_model(scene.residual, psf, x, y, old, state.reach[s], scratch, stamp)
        state.x[s], state.y[s], state.flux[s] = nx, ny, new
        state.reach[s] = _reach_of(new, state.fit_radius[s], profile, limit)
        _add_model(scene.residual, psf, nx, ny, -new, state.reach[s], scratch, stamp)
        is_still = abs(new - old) <= 0.05 * sigma + 1e-5 * abs(new)
        moved = max(abs(nx - x), abs(ny - y))
        error = np.sqrt(max(variance[3 * a + 1], variance[3 * a + 2]))
        is_still = is_still and (moved <= 0.0005 or moved <= 0.05 * error)
        is_small = is_small and is_still
    for s in group:
        state.is_settled[s] = is_small
    return is_small


@njit(cache=True)
def _errors(
    scene: Scene,
    psf: SplinePsf,
    state: SourceState,
    members: NDArray[np.int64],
    starts: NDArray[np.int64],
    half: int,
    psf_variance: float,
    out: Floats64,
    counts: NDArray[np.int64],
) -> None:
    largest = 1
    for g in range(starts.size - 1):
        largest = max(largest, starts[g + 1] - starts[g])
    box = min(int(np.ceil(np.max(state.fit_radius))), half)
    scratch = make_scratch(psf.coefficients.shape[0], half, psf.oversampling)
    values = np.empty((largest, 3, 2 * box + 1, 2 * box + 1), np.float32)
    stamp = np.empty((2 * half + 1, 2 * half + 1), np.float32)
    for g in range(starts.size - 1):
        group = members[starts[g] : starts[g + 1]]
        matrix, vector = _normal_equations(scene, psf, state, group, values, scratch, half, False)
        variance = _solved(matrix, vector)[1]
        for a in range(group.size):
            s = group[a]
            out[0, s], out[1, s] = np.sqrt(variance[3 * a + 1]), np.sqrt(variance[3 * a + 2])
            out[2, s] = np.sqrt(variance[3 * a])
            _quality(scene, psf, state, s, half, psf_variance, scratch, stamp, out, counts)


@njit(cache=True)
def _quality(
    scene: Scene,
    psf: SplinePsf,
    state: SourceState,
    s: int,
    half: int,
    psf_variance: float,
    scratch: Scratch,
    stamp: Floats32,
    out: Floats64,
    counts: NDArray[np.int64],
) -> None:
    ny, nx = scene.image.shape
    radius, flux = state.fit_radius[s], state.flux[s]
    box = min(int(np.ceil(radius)), half - 1)
    ix, iy = int(np.rint(state.x[s])), int(np.rint(state.y[s]))
    render(psf, state.x[s], state.y[s], state.x[s] - ix, state.y[s] - iy, box + 1, scratch, stamp)
    chi2, pp, pl, ll, lr, sky = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    n_used, n_lost = 0, 0
    for j in range(iy - box, iy + box + 1):
        for i in range(ix - box, ix + box + 1):
            if (i - state.x[s]) ** 2 + (j - state.y[s]) ** 2 > radius * radius:
                continue
            if j < 0 or i < 0 or j >= ny or i >= nx or scene.is_masked[j, i]:
                n_lost += 1
                continue
            n_used += 1
            w, r = _pixel_weight(scene, j, i), scene.residual[j, i]
            a, b = j - iy + box + 1, i - ix + box + 1
            p = stamp[a, b]
            # P + c * laplacian is P convolved with a kernel of variance 2 c along each axis.
            spread = stamp[a + 1, b] + stamp[a - 1, b] + stamp[a, b + 1] + stamp[a, b - 1] - 4 * p
            chi2 += w * r * r
            pp += w * p * p
            pl += w * p * spread
            ll += w * spread * spread
            lr += w * spread * r
            sky += p * p / scene.sky_variance[j, i]
    counts[0, s], counts[1, s] = n_used, n_lost
    if n_used > 3:
        out[3, s] = chi2 / (n_used - 3)
    power = ll - pl * pl / pp if pp > 0 else 0.0
    if power > 0 and flux > 0:
        out[4, s] = 2.0 * lr / (flux * power) / psf_variance
        out[5, s] = 2.0 / (flux * np.sqrt(power)) / psf_variance
    if sky > 0:
        out[6, s] = 1.0 / np.sqrt(sky)


def release_in_place(scene: Scene, psf: SplinePsf, state: SourceState, which: Booleans) -> None:
    """Put the light of some sources back into ``scene.residual``, as if they had never been subtracted."""
    _release(scene.residual, psf, state, np.flatnonzero(which), psf.half)


@njit(cache=True)
def _release(residual: Float32Image, psf: SplinePsf, state: SourceState, rows: NDArray[np.int64], half: int) -> None:
    scratch = make_scratch(psf.coefficients.shape[0], half, psf.oversampling)
    stamp = np.empty((2 * half + 1, 2 * half + 1), np.float32)
    for s in rows:
        if state.reach[s] >= 0:
            _add_model(residual, psf, state.x[s], state.y[s], state.flux[s], state.reach[s], scratch, stamp)
            state.reach[s] = -1
