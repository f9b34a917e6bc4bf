"""Artificial stars and trails: where they go, and their light with its noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Bools = NDArray[np.bool_]
Float32Image = NDArray[np.float32]
Floats = NDArray[np.float64]


def choose_places(
    is_allowed: Bools, n: int, *, separation: float, random: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return up to ``n`` positions (x, y), uniform over the allowed pixels and within them.

    No two are nearer to each other than ``separation`` pixels; fewer come back where the image has no room.
    """
    y, x = np.nonzero(is_allowed)
    if x.size == 0 or n == 0:
        return np.zeros(0), np.zeros(0)
    rows = random.choice(x.size, size=min(4 * n, x.size), replace=False)
    places = np.column_stack([x[rows], y[rows]]) + random.uniform(-0.5, 0.5, (rows.size, 2))
    kept = places[is_apart(places[:, 0], places[:, 1], separation=separation)][:n]
    return kept[:, 0], kept[:, 1]


def is_apart(x: Floats, y: Floats, *, separation: float) -> Bools:
    """Return which places remain when each that lies within ``separation`` of an earlier one is left out."""
    is_taken = np.zeros(x.size, dtype=bool)
    if x.size == 0:
        return is_taken
    places = np.column_stack([x, y])
    neighbours = cKDTree(places).query_ball_point(places, separation)
    for k in range(x.size):
        is_taken[k] = not any(is_taken[j] for j in neighbours[k] if j < k)
    return is_taken


def points_along(
    *, x: Floats, y: Floats, length: Floats, angle_deg: Floats, step: float = 0.5
) -> tuple[NDArray[np.intp], Floats, Floats, Floats]:
    """Return the points that make up trails: (source, x, y, share of its light); one point for a star (length 0)."""
    n = np.maximum(1, np.ceil(length / step).astype(np.intp) + 1)
    source = np.repeat(np.arange(x.size), n)
    place = np.concatenate([np.linspace(-0.5, 0.5, k) if k > 1 else np.zeros(1) for k in n]) if x.size else np.zeros(0)
    angle = np.radians(angle_deg[source])
    along = place * length[source]
    return source, x[source] + along * np.cos(angle), y[source] + along * np.sin(angle), 1.0 / n[source]


def add_light_in_place(light: Floats, stamps: NDArray[np.floating], *, x: Floats, y: Floats, flux: Floats) -> None:
    """Add stamps, made for the sub-pixel phases of (x, y), times ``flux`` about the nearest pixels.

    There is no negative light: what noise a stamp has below zero is cut, and its sum made one.
    """
    ny, nx = light.shape
    stamps = np.maximum(stamps, 0.0)
    stamps = stamps / stamps.sum(axis=(1, 2), keepdims=True)
    half = stamps.shape[1] // 2
    for stamp, px, py, total in zip(stamps, np.rint(x).astype(int), np.rint(y).astype(int), flux, strict=True):
        y0, y1 = max(0, py - half), min(ny, py + half + 1)
        x0, x1 = max(0, px - half), min(nx, px + half + 1)
        if y0 < y1 and x0 < x1:
            part = stamp[y0 - py + half : y1 - py + half, x0 - px + half : x1 - px + half]
            light[y0:y1, x0:x1] += total * part


def with_photon_noise(light: Floats, *, random: np.random.Generator) -> Float32Image:
    """Return a Poisson realisation of expected electrons."""
    return random.poisson(np.maximum(light, 0.0)).astype(np.float32)
