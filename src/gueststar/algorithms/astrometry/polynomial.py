"""Polynomials in two variables, by total order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def polynomial_powers(order: int) -> list[tuple[int, int]]:
    """Return the powers (i, j) of u**i v**j with i + j <= order: 1, u, v, u2, uv, v2, ..."""
    return [(total - j, j) for total in range(order + 1) for j in range(total + 1)]


def n_terms(order: int) -> int:
    """Return the number of coefficients of a polynomial of total order ``order``."""
    return (order + 1) * (order + 2) // 2


def order_of(coefficients: Floats) -> int:
    """Return the total order that a vector of coefficients (last axis) belongs to."""
    order = 0
    while n_terms(order) < coefficients.shape[-1]:
        order += 1
    return order


def design_matrix(u: Floats, v: Floats, order: int) -> Floats:
    """Return ``[n, n_terms]``: the terms at each point."""
    powers_u, powers_v = [np.ones_like(u)], [np.ones_like(v)]
    for _ in range(order):
        powers_u.append(powers_u[-1] * u)
        powers_v.append(powers_v[-1] * v)
    return np.stack([powers_u[i] * powers_v[j] for i, j in polynomial_powers(order)], axis=1)


def raise_order(coefficients: Floats, order: int) -> Floats:
    """Return the same polynomials ``[..., n]`` with zero coefficients up to ``order``."""
    wanted = n_terms(max(order, order_of(coefficients)))
    padding = [(0, 0)] * (coefficients.ndim - 1) + [(0, wanted - coefficients.shape[-1])]
    return np.pad(coefficients, padding)


def substitute(coefficients: Floats, matrix: Floats, shift: Floats | None = None) -> Floats:
    """Return the coefficients in (s, t) of polynomials ``[..., n]`` in (u, v) = matrix (s, t) + shift, exactly."""
    order = order_of(coefficients)
    offset = np.zeros(2) if shift is None else shift
    powers = polynomial_powers(order)
    result = np.zeros_like(coefficients)
    lines = [_line(matrix[k, 0], matrix[k, 1], offset[k]) for k in (0, 1)]
    for index, (i, j) in enumerate(powers):
        product = np.ones((1, 1))
        for line in [lines[0]] * i + [lines[1]] * j:
            product = _multiply(product, line)
        for target, (a, b) in enumerate(powers[: n_terms(i + j)]):
            if a < product.shape[0] and b < product.shape[1]:
                result[..., target] += coefficients[..., index] * product[a, b]
    return result


def _line(a: float, b: float, c: float) -> Floats:
    return np.array([[c, b], [a, 0.0]])


def _multiply(p: Floats, q: Floats) -> Floats:
    product = np.zeros((p.shape[0] + q.shape[0] - 1, p.shape[1] + q.shape[1] - 1))
    for (i, j), value in np.ndenumerate(q):
        product[i : i + p.shape[0], j : j + p.shape[1]] += value * p
    return product


@dataclass(frozen=True, eq=False)
class PlaneMap:
    """Pixels to a tangent plane: two polynomials of scaled pixel offsets.

    ``coefficients`` is ``[2, n_terms]`` (xi, eta) in arcsec; the variables are ``(x - x0) / unit`` and
    ``(y - y0) / unit``.
    """

    coefficients: Floats
    x0: float
    y0: float
    unit: float

    @property
    def order(self) -> int:
        """Total order."""
        return order_of(self.coefficients)

    @property
    def matrix(self) -> Floats:
        """The linear part at (x0, y0): 2 x 2, arcsec per pixel."""
        return self.coefficients[:, 1:3] / self.unit

    def scaled(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Return the polynomials' variables of pixel positions."""
        return (x - self.x0) / self.unit, (y - self.y0) / self.unit

    def __call__(self, x: Floats, y: Floats) -> Floats:
        """Return ``[n, 2]`` plane coordinates, arcsec."""
        u, v = self.scaled(x, y)
        return np.asarray(design_matrix(u, v, self.order) @ self.coefficients.T)

    def jacobian(self, x: Floats, y: Floats) -> Floats:
        """Return ``[n, 2, 2]`` derivatives, arcsec per pixel."""
        u, v = self.scaled(x, y)
        powers = polynomial_powers(self.order)
        du = np.stack([i * u ** max(i - 1, 0) * v**j for i, j in powers], axis=1)
        dv = np.stack([j * u**i * v ** max(j - 1, 0) for i, j in powers], axis=1)
        return np.stack([du @ self.coefficients.T, dv @ self.coefficients.T], axis=2) / self.unit

    def transformed(self, matrix: Floats, shift: Floats) -> PlaneMap:
        """Return the map followed by a linear transformation of the plane."""
        coefficients = matrix @ self.coefficients
        coefficients[:, 0] += shift
        return PlaneMap(coefficients, self.x0, self.y0, self.unit)

    def mirrored(self) -> PlaneMap:
        """Return the map of an image whose sky is mirrored along x.

        The optics' distortion stays where it is on the pixels; the linear part changes sign along x.
        """
        flip = self.matrix @ np.diag([-1.0, 1.0]) @ np.linalg.inv(self.matrix)
        return PlaneMap(flip @ self.coefficients, self.x0, self.y0, self.unit)
