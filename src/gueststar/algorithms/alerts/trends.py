"""Rise, colour and stacked flux of ragged light curves: many alerts at once, no loop over alerts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gueststar.algorithms.alerts.groups import (
    Floats,
    Groups,
    counts,
    largest,
    last_items,
    quotient,
    smallest,
    sums,
    taken,
)

SHORTEST_RISE_DAYS = 1.0 / 24.0
"""Detections that span less tell no rate."""
NIGHT_GAP_DAYS = 1.0 / 3.0
"""Detections further apart than this are of two nights: no site observes through a day that short."""


class Measured(NamedTuple):
    """A quantity of each alert with its 1-sigma error; NaN where it is not known."""

    value: Floats
    error: Floats


def rise_rates(group: Groups, n_groups: int, *, days: Floats, mag: Floats, mag_err: Floats) -> Measured:
    """Return by how much each group brightens, magnitudes per day; fainter with time is negative.

    A straight line is fitted with inverse variances as weights. The error is the formal one, scaled by the root of
    the reduced chi-square where that exceeds 1 (more than two points). Needs two detections, and a span of an hour.
    """
    weight = mag_err**-2.0
    total = sums(group, weight, n_groups)
    x = days - quotient(sums(group, weight * days, n_groups), total)[group]
    y = mag - quotient(sums(group, weight * mag, n_groups), total)[group]
    n = counts(group, n_groups)
    spread = sums(group, weight * x * x, n_groups)
    slope = quotient(sums(group, weight * x * y, n_groups), spread)
    residual = y - slope[group] * x
    chi2 = quotient(sums(group, weight * residual**2, n_groups), n - 2.0)
    error = np.sqrt(quotient(np.fmax(chi2, 1.0), spread))
    span = largest(group, days, n_groups) - smallest(group, days, n_groups)
    is_known = (n >= 2) & (span >= SHORTEST_RISE_DAYS)
    return Measured(np.where(is_known, -slope, np.nan), np.where(is_known, error, np.nan))


def nights_of(group: Groups, days: Floats) -> Groups:
    """Return the night of each item: nights are numbered from 0 through all groups, in order of group and time."""
    order = np.lexsort((days, group))
    is_new = np.ones(len(days), dtype=bool)
    is_new[1:] = (np.diff(group[order]) != 0) | (np.diff(days[order]) > NIGHT_GAP_DAYS)
    night = np.empty(len(days), dtype=np.intp)
    night[order] = np.cumsum(is_new) - 1
    return night


class Colour(NamedTuple):
    """A colour of each alert, from the last night that has both filters; NaN where there is none."""

    value: Floats
    error: Floats
    days: Floats
    """Mean time of that night's detections."""


def last_colours(
    group: Groups, n_groups: int, *, night: Groups, days: Floats, mag: Floats, mag_err: Floats, is_blue: np.ndarray,
    is_red: np.ndarray,
) -> Colour:  # fmt: skip
    """Return blue minus red magnitude of the last night of each group on which both were measured.

    Several measurements of a night and filter are averaged with inverse variances as weights.
    """
    n_nights = int(night.max()) + 1 if night.size else 0
    blue, red = (_nightly(night[pick], n_nights, mag[pick], mag_err[pick]) for pick in (is_blue, is_red))
    both = np.flatnonzero(np.isfinite(blue.value) & np.isfinite(red.value))
    of_night = np.zeros(n_nights, dtype=np.intp)
    of_night[night] = group
    time = quotient(sums(night, days, n_nights), counts(night, n_nights))
    last = last_items(of_night[both], time[both], n_groups)
    value, error = blue.value - red.value, np.hypot(blue.error, red.error)
    return Colour(taken(value[both], last), taken(error[both], last), taken(time[both], last))


def _nightly(night: Groups, n_nights: int, mag: Floats, mag_err: Floats) -> Measured:
    weight = mag_err**-2.0
    total = sums(night, weight, n_nights)
    return Measured(quotient(sums(night, weight * mag, n_nights), total), np.sqrt(quotient(np.ones(n_nights), total)))


def stacked_snr(group: Groups, n_groups: int, *, flux: Floats, flux_err: Floats) -> Floats:
    """Return the inverse-variance mean of each group's fluxes over its error; NaN for a group without fluxes."""
    weight = flux_err**-2.0
    total = sums(group, weight, n_groups)
    return quotient(sums(group, weight * flux, n_groups), np.sqrt(total))
