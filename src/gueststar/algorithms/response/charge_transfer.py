"""Charge that the transfer to the output leaves behind, from what flats leave in the overscan (EPER; Janesick 2001)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.stats.robust import clipped_mean, weighted_clipped_mean
from gueststar.core.bits import MaskPlane

Image = NDArray[np.float32]


@dataclass(frozen=True)
class ChargeTransferConfig:
    """How charge transfer is measured, and which pixels suffer too much."""

    trail_pixels: int = 3
    """Overscan pixels behind the last light-sensitive one in which deferred charge is looked for."""
    min_overscan: int = 8
    """Shorter overscans cannot tell deferred charge from the zero level."""
    min_level: float = 0.02
    """Flats whose last pixels are fainter than this fraction of saturation are left out."""
    level_tolerance: float = 0.005
    """Fraction by which the flats' levels may be wrong."""
    min_significance: float = 4.0
    """Inefficiencies below this many of their errors are taken for zero."""
    max_inefficiency: float = 1e-3
    """Larger ones are not believed: the section is misplaced, or light reaches the overscan."""
    flag_sigma: float = 2.0
    """Pixels that a brighter one's deferred charge may change by more than so many sigma of their noise are SUSPECT."""


class DeferredCharge(NamedTuple):
    """What one flat left behind in one amplifier along one axis."""

    level: float
    """Signal of the last light-sensitive pixels, ADU above zero."""
    deferred: float
    """Charge found in the overscan pixels behind them, ADU."""
    error: float
    n_transfers: int
    """How often the last pixels' charge was moved."""

    @property
    def inefficiency(self) -> float:
        """Fraction of the charge that one transfer leaves behind."""
        return self.deferred / (self.level * self.n_transfers)


class ChargeTransfer(NamedTuple):
    """Inefficiency of one amplifier along one axis."""

    inefficiency: float
    """Fraction of the charge that one transfer leaves behind; zero where insignificant."""
    error: float
    is_significant: bool
    n_flats: int


def measure_deferred_charge(
    data: Image, overscan: Image, *, config: ChargeTransferConfig = ChargeTransferConfig()
) -> DeferredCharge:
    """Measure the charge that trails a flat's last pixels into the overscan.

    Both are ADU with the zero level removed or not (it cancels if it is in both), turned so that reading goes along
    the second axis: the last column of ``data`` is read right before the first of ``overscan``, row by row.
    Raises ValueError for an overscan too short to tell.
    """
    n_trail, width = config.trail_pixels, overscan.shape[1]
    if width < config.min_overscan or data.shape[0] != overscan.shape[0]:
        raise ValueError(f"overscan of {overscan.shape} pixels behind data of {data.shape}: too short")
    quiet = overscan[:, n_trail + 2 :]
    zero = np.nanmean(quiet, axis=1, dtype=np.float64)
    trail = np.sum(overscan[:, :n_trail], axis=1, dtype=np.float64) - n_trail * zero
    deferred = clipped_mean(trail)
    last = clipped_mean(data[:, -1] - zero.astype(np.float32)).mean
    return DeferredCharge(last, deferred.mean, deferred.sigma / math.sqrt(max(deferred.n, 1)), data.shape[1])


def mean_inefficiency(
    flats: Sequence[DeferredCharge], *, saturation: float, config: ChargeTransferConfig = ChargeTransferConfig()
) -> ChargeTransfer:
    """Average the inefficiency over flats (ADU; ``saturation`` above zero).

    Raises ValueError with the reason where no flat is bright enough, or what comes out is no charge transfer.
    """
    usable = [f for f in flats if f.level >= config.min_level * saturation and math.isfinite(f.error) and f.error > 0]
    if not usable:
        raise ValueError(f"no flat is brighter than {config.min_level * saturation:.4g} ADU in its last pixels")
    scale = np.array([f.level * f.n_transfers for f in usable])
    values = np.array([f.inefficiency for f in usable])
    mean = weighted_clipped_mean(values, (np.array([f.error for f in usable]) / scale) ** 2)
    noise = mean.error * (math.sqrt(max(mean.chi2_per_dof, 1.0)) if mean.n > 1 else 1.0)
    error = math.hypot(noise, config.level_tolerance * mean.mean)
    if mean.mean > config.max_inefficiency:
        raise ValueError(
            f"{mean.mean:.2g} of the charge seems lost in each transfer, more than {config.max_inefficiency:g}: "
            "is light in the overscan section?"
        )
    is_significant = mean.mean >= config.min_significance * error
    return ChargeTransfer(mean.mean if is_significant else 0.0, error, is_significant, mean.n)


def mark_deferred_charge_in_place(
    mask: NDArray[np.int32],
    counts: Image,
    inefficiency: float,
    *,
    noise: float,
    first_transfers: int = 1,
    config: ChargeTransferConfig = ChargeTransferConfig(),
) -> int:
    """Mark SUSPECT the pixels that hold much of what brighter ones before them left behind; return their number.

    ``counts`` (electrons) are in the order of reading along the second axis; index k is transferred
    ``first_transfers + k`` times. A pixel is changed by at most what a brighter one before it lost beyond its own loss;
    the limit is ``flag_sigma`` times its noise, ``noise`` (electrons, of reading) and Poisson's. Within stars the
    change is part of the image's PSF and below that; behind sharp edges (saturated stars, cosmic rays) it is not.
    """
    return int(
        _mark_deferred(
            mask, counts, inefficiency, first_transfers, np.float32(noise**2), np.float32(config.flag_sigma**2),
            config.trail_pixels, int(MaskPlane.SUSPECT),
        )
    )  # fmt: skip


@numba.njit(cache=True)
def _mark_deferred(mask, counts, inefficiency, first_transfers, read_variance, sigma_squared, n_trail, suspect):  # type: ignore[no-untyped-def]
    ny, nx = counts.shape
    n_marked = 0
    for y in range(ny):
        row = counts[y]
        for x in range(nx - 1):
            transfers = first_transfers + x
            fraction = inefficiency * transfers
            if (row[x] * fraction) ** 2 <= sigma_squared * read_variance:
                continue
            for k in range(1, min(n_trail + 1, nx - x)):
                change = (row[x] - row[x + k]) * fraction
                if change > 0 and change**2 > sigma_squared * (read_variance + max(row[x + k], np.float32(0.0))):
                    if mask[y, x + k] & suspect == 0:
                        n_marked += 1
                    mask[y, x + k] |= suspect
    return n_marked
