"""Sums in ellipses against the share of every pixel by itself."""

from __future__ import annotations

import numpy as np
import pytest

from gueststar.algorithms.photometry.total import _ellipse_sums
from gueststar.algorithms.streaks.readout import _part_sums


@pytest.mark.parametrize("seed", range(8))
def test_pixels_of_an_ellipse_count_by_the_share_of_them_that_it_holds(seed: int) -> None:
    random = np.random.default_rng(seed)
    xx, yy = random.uniform(0.5, 9.0, 2)
    xy = random.uniform(-0.9, 0.9) * np.sqrt(xx * yy)
    det = xx * yy - xy * xy
    a, b, c, limit = yy / det, xx / det, -2.0 * xy / det, random.uniform(3.5, 10.0) ** 2
    data = random.normal(size=(81, 81)).astype(np.float32)
    x, y = random.uniform(36.0, 44.0, 2)
    fine = np.arange(-2, 3) * 0.2
    u, v = np.arange(81)[:, None] + fine - x, np.arange(81)[:, None] + fine - y
    inside = a * u[None, :, None, :] ** 2 + b * v[:, None, :, None] ** 2 + c * u[None, :, None, :] * v[:, None, :, None]
    share = (inside <= limit).mean(axis=(2, 3))
    reach = np.sqrt(limit * max(xx, yy)) + 1.0
    flux, variance = _ellipse_sums(data, data**2, x, y, a, b, c, limit, reach)
    assert flux == pytest.approx((share * data).sum(), abs=1e-4)
    assert variance == pytest.approx((share * data**2).sum(), rel=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_parts_of_rows_and_columns_are_summed_alike(axis: int) -> None:
    random = np.random.default_rng(1)
    image, usable = random.normal(size=(61, 77)).astype(np.float32), random.random((61, 77)) < 0.8
    sums, counts = _part_sums(image, usable, np.float32(1.5), 5, axis)
    clipped = np.where(usable, np.clip(image, -1.5, 1.5), 0.0)
    lines, seen = (clipped, usable) if axis == 0 else (clipped.T, usable.T)
    part = np.arange(lines.shape[1]) * 5 // lines.shape[1]
    for k in range(5):
        np.testing.assert_allclose(sums[:, k], lines[:, part == k].sum(axis=1), atol=1e-5)
        np.testing.assert_array_equal(counts[:, k], seen[:, part == k].sum(axis=1))
