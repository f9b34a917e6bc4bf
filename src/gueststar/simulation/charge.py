"""Charge that moves: repulsion while it is collected, and what stays behind when it is read out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Image = NDArray[np.float32]
Floats = NDArray[np.float64]

REACH = 12
"""Pixels over which charge acts."""

STEPS = 16
"""The exposure is collected in this many steps; the charge of each acts on the next."""


def boundary_shifts(strength: float) -> tuple[Floats, Floats]:
    """Return by how much an electron at the origin moves the right and the upper boundary of a pixel, in pixels.

    ``[dy, dx]`` with the origin at index (REACH, REACH). Boundaries move towards the charge, along y 0.8 times as far
    as along x, as the stops between columns and the clocks between rows differ. ``strength`` is about the area that a
    pixel loses for each electron of its own.
    """
    offset = np.arange(-REACH, REACH + 1)
    dy, dx = np.meshgrid(offset.astype(np.float64), offset.astype(np.float64), indexing="ij")
    right = -(dx + 0.5) / ((dx + 0.5) ** 2 + dy**2 + 0.5) ** 2
    upper = -0.8 * (dy + 0.5) / (dx**2 + (dy + 0.5) ** 2 + 0.5) ** 2
    area = _area(right, upper)[REACH, REACH]
    return right * strength / -area, upper * strength / -area


def area_changes(strength: float, max_lag: int) -> Floats:
    """Return the true change of a pixel's area per electron, ``[lag_y, lag_x]`` from zero."""
    area = _area(*boundary_shifts(strength))
    return area[REACH : REACH + max_lag + 1, REACH : REACH + max_lag + 1]


def collect_with_repulsion(light: Image, strength: float, random: np.random.Generator) -> Image:
    """Return collected electrons (photon noise in) where ``light`` would fall if charge did not repel.

    Each step's light is moved across the pixels' boundaries by the charge that is already there, and then counted; half
    of the last step's charge is added ahead, so that the whole comes out as with infinitely many steps.
    """
    ny, nx = light.shape
    shape = (fft.next_fast_len(ny + 2 * REACH), fft.next_fast_len(nx + 2 * REACH))
    kernels = [fft.rfft2(np.roll(_padded(shift, shape), (-REACH, -REACH), axis=(0, 1))) for shift in
               boundary_shifts(strength)]  # fmt: skip
    portion = np.maximum(light, 0.0).astype(np.float64) / STEPS
    across_x, across_y = 0.5 * (portion[:, :-1] + portion[:, 1:]), 0.5 * (portion[:-1] + portion[1:])
    charge, latest = np.zeros((ny, nx)), portion
    for _ in range(STEPS):
        transformed = fft.rfft2(charge + 0.5 * latest, shape)
        right, upper = (fft.irfft2(transformed * kernel, shape)[:ny, :nx] for kernel in kernels)
        expected = portion.copy()
        moved_x, moved_y = right[:, :-1] * across_x, upper[:-1] * across_y
        expected[:, :-1] += moved_x
        expected[:, 1:] -= moved_x
        expected[:-1] += moved_y
        expected[1:] -= moved_y
        latest = random.poisson(np.maximum(expected, 0.0)).astype(np.float64)
        charge += latest
    return charge.astype(np.float32)


def trail_in_place(read: Image, inefficiency: float, *, first_transfers: int = 1, axis: int = 1) -> None:
    """Leave a fraction of each pixel's charge behind for the one that is read after it.

    ``read`` is in the order of reading along ``axis``, overscan included; the pixel at index k was transferred
    ``first_transfers + k`` times, each time losing the fraction ``inefficiency``.
    """
    values = read if axis == 1 else read.T
    n_transfers = first_transfers + np.arange(values.shape[1])
    lost = values * (1.0 - (1.0 - inefficiency) ** n_transfers).astype(np.float32)
    values -= lost
    values[:, 1:] += lost[:, :-1]


def _area(right: Floats, upper: Floats) -> Floats:
    area = np.zeros_like(right)
    area[1:, 1:] = right[1:, 1:] - right[1:, :-1] + upper[1:, 1:] - upper[:-1, 1:]
    return area


def _padded(kernel: Floats, shape: tuple[int, int]) -> Floats:
    whole = np.zeros(shape)
    whole[: kernel.shape[0], : kernel.shape[1]] = kernel
    return whole
