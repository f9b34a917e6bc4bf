"""An image that is being explained by point sources, and what is known of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gueststar.algorithms.detection.noise import NoiseModel, split_variance

Booleans = NDArray[np.bool_]
Float32Image = NDArray[np.float32]
Floats64 = NDArray[np.float64]


class SourceState(NamedTuple):
    """What a fit knows of its sources; arrays of one length, altered by the sweeps."""

    x: Floats64
    y: Floats64
    flux: Floats64
    flux_err: Floats64
    """Error of the flux at the last step; infinite before the first."""
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
    is_exact: Booleans
    """Bright: rendered with the PSF of its very position, not with that of its tile."""


def new_sources(
    x: Floats64,
    y: Floats64,
    *,
    fit_radius: float | Floats64,
    flux: Floats64 | None = None,
    is_fixed: Booleans | bool = False,
) -> SourceState:
    """Return the state of sources of which nothing has been subtracted yet.

    ``flux`` need only order them by brightness.
    """
    n = len(x)
    return SourceState(
        x=np.array(x, dtype=np.float64),
        y=np.array(y, dtype=np.float64),
        flux=np.zeros(n) if flux is None else np.array(flux, dtype=np.float64),
        flux_err=np.full(n, np.inf),
        start_x=np.array(x, dtype=np.float64),
        start_y=np.array(y, dtype=np.float64),
        fit_radius=np.broadcast_to(np.asarray(fit_radius, dtype=np.float64), n).copy(),
        is_fixed=np.broadcast_to(np.asarray(is_fixed, dtype=bool), n).copy(),
        reach=np.full(n, -1, dtype=np.int64),
        is_settled=np.zeros(n, dtype=bool),
        is_exact=np.zeros(n, dtype=bool),
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
    """Infinite where masked."""
    is_masked: Booleans
    slope: float
    """Variance per unit of signal."""
    model_error: float
    """Error of the PSF model, as a fraction of the model at each pixel; added to the noise in quadrature."""


class FreshScene(NamedTuple):
    """An image of which nothing is explained yet; made once for all who look for its sources."""

    noise: NoiseModel
    scene: Scene
    """Its residual image may be in any state."""


def fresh_scene(
    image: Float32Image, variance: Float32Image, is_masked: Booleans, *, model_error: float = 0.0
) -> FreshScene:
    """Return the noise of an image, told from that of its sources, and the scene in which these are to be fitted.

    Pixels without a finite value or variance are masked there.
    """
    noise, shape = split_variance(image, variance, is_masked), image.shape
    clean, residual, sky = np.empty(shape, np.float32), np.empty(shape, np.float32), np.empty(shape, np.float32)
    unusable = np.empty(shape, np.bool_)
    _fill_scene(image, noise.sky_variance, is_masked, clean, residual, sky, unusable)
    return FreshScene(noise, Scene(clean, residual, sky, unusable, float(noise.slope), float(model_error)))


@njit(cache=True, error_model="numpy")
def _fill_scene(
    image: Float32Image,
    variance: Float32Image,
    is_masked: Booleans,
    clean: Float32Image,
    residual: Float32Image,
    sky: Float32Image,
    unusable: Booleans,
) -> None:
    """Fill all planes row by row, so that memory is passed through once."""
    for y in range(image.shape[0]):
        _copy_finite(image[y], clean[y])
        residual[y] = clean[y]
        _mark_unusable(image[y], variance[y], is_masked[y], unusable[y])
        _copy_usable(variance[y], unusable[y], sky[y])


@njit(cache=True, error_model="numpy", _nrt=False)
def _copy_finite(data: NDArray[np.float32], clean: NDArray[np.float32]) -> None:
    zero, infinite = np.float32(0), np.float32(np.inf)
    for x in range(clean.size):
        clean[x] = data[x] if abs(data[x]) < infinite else zero


@njit(cache=True, error_model="numpy", _nrt=False)
def _mark_unusable(
    data: NDArray[np.float32],
    noise: NDArray[np.float32],
    masked: NDArray[np.bool_],
    unusable: NDArray[np.bool_],
) -> None:
    infinite = np.float32(np.inf)
    for x in range(unusable.size):
        unusable[x] = masked[x] | (not ((abs(data[x]) < infinite) & (noise[x] < infinite)))


@njit(cache=True, error_model="numpy", _nrt=False)
def _copy_usable(noise: NDArray[np.float32], lost: NDArray[np.bool_], sky: NDArray[np.float32]) -> None:
    infinite = np.float32(np.inf)
    for x in range(sky.size):
        sky[x] = infinite if lost[x] else noise[x]
