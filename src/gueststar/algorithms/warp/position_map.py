"""Where the pixels of one grid lie on another: a coarse map of nodes, interpolated cubically."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Transform = Callable[[Floats, Floats], tuple[Floats, Floats]]
"""Takes target pixel positions (x, y) to source pixel positions; NaN where there is none."""


class PositionMap(NamedTuple):
    """Source positions at the nodes of a target grid.

    Node ``[j, i]`` is the target pixel ``(x, y) = ((i - 1) * step, (j - 1) * step)``: one ring of nodes lies
    outside the image, so that every pixel has four nodes about it on each axis.
    """

    x: Floats
    """Source x at the nodes, ``[n_y, n_x]``."""
    y: Floats
    """Source y at the nodes."""
    area: Floats
    """Source pixels per target pixel (absolute Jacobian determinant) at the nodes."""
    step: int
    """Target pixels between nodes."""
    shape: tuple[int, int]
    """(ny, nx) of the target image."""

    @property
    def scale(self) -> float:
        """Source pixels per target pixel along one axis, median over the image."""
        finite = self.area[np.isfinite(self.area)]
        return float(np.sqrt(np.median(finite))) if finite.size else 1.0


def build_position_map(
    transform: Transform, shape: tuple[int, int], *, step: int = 64, tolerance: float = 1e-3
) -> PositionMap:
    """Return a map of ``transform`` whose interpolation is right to ``tolerance`` source pixels.

    The node step is halved (down to 4 pixels) until the interpolated positions agree with the transform
    at the middles between nodes. Nodes without a source position are NaN, and so is what depends on them.
    """
    while True:
        result = _sample(transform, shape, step)
        if step <= 4 or _worst_error(result, transform) <= tolerance:
            return result
        step //= 2


def map_positions(position_map: PositionMap, *, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return the interpolated source positions of target positions (x, y)."""
    x, y = np.atleast_1d(np.asarray(x, dtype=np.float64)), np.atleast_1d(np.asarray(y, dtype=np.float64))
    return (
        _interpolate(position_map.x, position_map.step, x, y),
        _interpolate(position_map.y, position_map.step, x, y),
    )


def map_jacobians(position_map: PositionMap, *, x: Floats, y: Floats) -> Floats:
    """Return ``[n, 2, 2]`` derivatives d(source x, y) / d(target x, y) at target positions."""
    h = 0.5
    right, left = map_positions(position_map, x=x + h, y=y), map_positions(position_map, x=x - h, y=y)
    up, down = map_positions(position_map, x=x, y=y + h), map_positions(position_map, x=x, y=y - h)
    columns = [np.stack([a - b for a, b in zip(p, m, strict=True)], axis=-1) for p, m in ((right, left), (up, down))]
    return np.stack(columns, axis=-1) / (2 * h)


@njit(cache=True)
def cubic_weights(t: float) -> tuple[float, float, float, float]:
    """Return the Lagrange weights of four nodes at -1, 0, 1, 2 for the place t in 0..1."""
    return (
        -t * (t - 1.0) * (t - 2.0) / 6.0,
        (t + 1.0) * (t - 1.0) * (t - 2.0) / 2.0,
        -(t + 1.0) * t * (t - 2.0) / 2.0,
        (t + 1.0) * t * (t - 1.0) / 6.0,
    )


def _sample(transform: Transform, shape: tuple[int, int], step: int) -> PositionMap:
    n_y, n_x = (-(-(size - 1) // step) + 3 for size in shape)
    x, y = np.meshgrid((np.arange(n_x) - 1.0) * step, (np.arange(n_y) - 1.0) * step)
    source_x, source_y = (a.reshape(n_y, n_x) for a in transform(x.ravel(), y.ravel()))
    xy, xx = np.gradient(source_x, step)
    yy, yx = np.gradient(source_y, step)
    return PositionMap(source_x, source_y, np.abs(xx * yy - xy * yx), step, shape)


def _worst_error(position_map: PositionMap, transform: Transform) -> float:
    """Return the largest error at the middles between nodes, source pixels; 0 where nothing is finite."""
    step = position_map.step
    n_y, n_x = position_map.x.shape
    x, y = np.meshgrid((np.arange(n_x - 3) + 0.5) * step, (np.arange(n_y - 3) + 0.5) * step)
    true_x, true_y = transform(x.ravel(), y.ravel())
    got_x, got_y = map_positions(position_map, x=x.ravel(), y=y.ravel())
    error = np.hypot(got_x - true_x, got_y - true_y)
    finite = error[np.isfinite(error)]
    return float(finite.max()) if finite.size else 0.0


@njit(cache=True)
def _interpolate(nodes: Floats, step: int, x: Floats, y: Floats) -> Floats:
    n_y, n_x = nodes.shape
    result = np.empty(x.size)
    for k in range(x.size):
        i = min(max(int(np.floor(x[k] / step)), 0), n_x - 4)
        j = min(max(int(np.floor(y[k] / step)), 0), n_y - 4)
        wx = cubic_weights(x[k] / step - i)
        wy = cubic_weights(y[k] / step - j)
        total = 0.0
        for b in range(4):
            for a in range(4):
                total += wy[b] * wx[a] * nodes[j + b, i + a]
        result[k] = total
    return result
