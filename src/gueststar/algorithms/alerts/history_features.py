"""Ready-made features of an alert's history, from what is inside its packet and nothing else.

So a feature can never tell more than the packet does: whoever may read the one may read the other, and the same packet
gives the same features in the stream and in the archive. Unknown is NaN.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.alerts.groups import (
    Floats,
    Groups,
    counts,
    largest,
    last_items,
    means,
    smallest,
    sums,
    taken,
)
from gueststar.algorithms.alerts.sky_frames import angle_arcsec, ecliptic, galactic, unit_vectors
from gueststar.algorithms.alerts.trends import last_colours, nights_of, rise_rates, stacked_snr

WINDOW_DAYS = 30.0
"""What is older than this before the alert does not count, however long the packet's history is."""
RISE_WINDOW_DAYS = 7.0
MOVER_ARCSEC = 5.0
STAR_SCORE = 0.5
"""Catalogue sources below are taken for galaxies (hosts), the others for stars."""
FILTERS = {1: "g", 2: "r", 3: "i"}
"""Filter numbers of packets."""


class Feature(NamedTuple):
    """One ready-made feature."""

    name: str
    unit: str
    kind: Literal["number", "integer", "boolean"]
    doc: str


def _per_filter(name: str, unit: str, doc: str) -> tuple[Feature, ...]:
    return tuple(Feature(f"{name}_{band}", unit, "number", doc.format(band=band)) for band in FILTERS.values())


FEATURES: tuple[Feature, ...] = (
    Feature("is_positive", "", "boolean", "The alert's own detection is brighter than the reference"),
    Feature("is_mover", "", "boolean", "A known Solar-System object lies within 5 arcsec"),
    Feature("n_det_30d", "", "integer", "Detections in the 30 days before, the alert's own included"),
    Feature("n_det_7d", "", "integer", "Detections in the 7 days before, the alert's own included"),
    Feature("n_det_1d", "", "integer", "Detections in the day before, the alert's own included"),
    Feature("n_positive_30d", "", "integer", "Of n_det_30d, those brighter than the reference"),
    Feature("n_negative_30d", "", "integer", "Of n_det_30d, those fainter than the reference"),
    Feature("n_nights_30d", "", "integer", "Nights with detections; 8 hours without one end a night"),
    Feature("n_filters_30d", "", "integer", "Filters with detections"),
    Feature("n_limits_30d", "", "integer", "Exposures of the place without a detection in the 30 days before"),
    Feature("first_jd", "d", "number", "First detection in the 30 days before, Julian date UTC"),
    Feature("days_since_first", "d", "number", "From the first detection in the 30 days before to the alert"),
    Feature("days_since_previous", "d", "number", "From the detection before to the alert; unknown for a first one"),
    Feature("age_days", "d", "number", "From the first detection ever (jdstarthist) to the alert"),
    Feature("last_limit_mag", "mag", "number", "5-sigma limit of the last exposure without a detection"),
    Feature("days_since_limit", "d", "number", "From the last exposure without a detection to the alert"),
    Feature("first_limit_mag", "mag", "number", "5-sigma limit of the last exposure before the first detection"),
    Feature("days_limit_to_first", "d", "number", "From that exposure to the first detection"),
    Feature("rise_rate", "mag/d", "number", "Brightening in the alert's filter, 7 days before; fading is negative"),
    Feature("rise_rate_err", "mag/d", "number", "1-sigma error of rise_rate"),
    *_per_filter("rise_rate", "mag/d", "Brightening in {band}, 7 days before; fading is negative"),
    *_per_filter("rise_rate_err", "mag/d", "1-sigma error of rise_rate_{band}"),
    Feature("peak_mag", "mag", "number", "Brightest positive detection of 30 days in the alert's filter"),
    Feature("days_since_peak", "d", "number", "From that detection to the alert"),
    *_per_filter("peak_mag", "mag", "Brightest positive detection of 30 days in {band}"),
    Feature("below_peak", "mag", "number", "magpsf minus peak_mag of a positive detection; 0 at the peak"),
    Feature("amplitude", "mag", "number", "Faintest minus brightest positive detection in the alert's filter"),
    *_per_filter("amplitude", "mag", "Faintest minus brightest positive detection of 30 days in {band}"),
    Feature("colour_g_r", "mag", "number", "g - r of positive detections on the last night with both"),
    Feature("colour_g_r_err", "mag", "number", "1-sigma error of colour_g_r"),
    Feature("days_since_g_r", "d", "number", "From that night's detections (mean time) to the alert"),
    Feature("colour_r_i", "mag", "number", "r - i of positive detections on the last night with both"),
    Feature("colour_r_i_err", "mag", "number", "1-sigma error of colour_r_i"),
    Feature("mean_rb", "", "number", "Mean rb of the detections of 30 days, the alert's own included"),
    Feature("least_rb", "", "number", "Least rb of the detections of 30 days, the alert's own included"),
    Feature("offset_arcsec", "arcsec", "number", "From the mean place of the detections before to the alert's"),
    Feature("n_forced_30d", "", "integer", "Forced fluxes in the 30 days before, without those on bad pixels"),
    *_per_filter("forced_snr", "", "Mean of the usable forced fluxes in {band}, in units of its error"),
    Feature("forced_snr_before", "", "number", "The same in the alert's filter, before the first detection"),
    Feature("host_distance", "arcsec", "number", "To the nearest of the three catalogue sources with sgscore < 0.5"),
    Feature("host_score", "", "number", "sgscore of that source, 0 for a galaxy"),
    Feature("host_mag_r", "mag", "number", "r magnitude of that source"),
    Feature("star_distance", "arcsec", "number", "To the nearest of the three catalogue sources with sgscore >= 0.5"),
    Feature("galactic_longitude", "deg", "number", "Of the alert, 0 to 360"),
    Feature("galactic_latitude", "deg", "number", "Of the alert, -90 to 90"),
    Feature("ecliptic_longitude", "deg", "number", "Of the alert (J2000), 0 to 360"),
    Feature("ecliptic_latitude", "deg", "number", "Of the alert (J2000), -90 to 90"),
)  # fmt: skip
"""All features, in the order of the table."""


class Alerts(NamedTuple):
    """What is used of the alerts themselves; arrays of one value an alert, NaN where unknown."""

    jd: Floats
    """Julian date UTC, days."""
    filter_number: NDArray[np.int64]
    ra: Floats
    """ICRS, degrees."""
    dec: Floats
    mag: Floats
    mag_err: Floats
    is_positive: Floats
    """1, 0, or NaN where it is not told."""
    reliability: Floats
    first_jd: Floats
    """First detection ever, Julian date."""
    mover_arcsec: Floats
    """To the nearest known Solar-System object; infinite where there is none, NaN where nobody looked."""
    neighbour_arcsec: Floats
    """``[n, 3]``, to the nearest catalogue sources."""
    neighbour_score: Floats
    """``[n, 3]``, 0 galaxy to 1 star."""
    neighbour_mag: Floats
    """``[n, 3]``, r magnitudes."""


class Detections(NamedTuple):
    """Earlier detections of all alerts; arrays of one value an item."""

    alert: Groups
    """Row of the alert."""
    jd: Floats
    filter_number: NDArray[np.int64]
    ra: Floats
    dec: Floats
    mag: Floats
    mag_err: Floats
    is_positive: Floats
    reliability: Floats


class Limits(NamedTuple):
    """Earlier exposures without a detection."""

    alert: Groups
    jd: Floats
    mag: Floats
    """5-sigma limit."""


class ForcedFluxes(NamedTuple):
    """Forced fluxes of all alerts, the usable ones."""

    alert: Groups
    jd: Floats
    filter_number: NDArray[np.int64]
    flux: Floats
    """Of one unit throughout, signed."""
    flux_err: Floats


Items = TypeVar("Items", Detections, Limits, ForcedFluxes)


def picked(items: Items, chosen: NDArray[np.bool_]) -> Items:
    """Return the chosen items."""
    return type(items)._make(column[chosen] for column in items)


def history_features(alerts: Alerts, detections: Detections, limits: Limits, forced: ForcedFluxes) -> dict[str, Floats]:
    """Return every feature of `FEATURES` for every alert, NaN where it is not known.

    Items later than the alert or more than `WINDOW_DAYS` before it do not count. Magnitudes without a finite positive
    error take no part in rates and colours; items of unknown sign are in no count of signs.
    """
    n = len(alerts.jd)
    items = _with_own(alerts, _recent(detections, alerts.jd))
    limits, forced = _recent(limits, alerts.jd), _recent(forced, alerts.jd)
    first = smallest(items.alert, items.jd, n)
    features = _counts(items, limits, alerts) | _times(items, alerts, first)
    features |= _limits(limits, alerts, first) | _brightness(items, alerts)
    features |= _colours(items, alerts) | _forced(forced, alerts, first) | _surroundings(alerts)
    features["mean_rb"], features["least_rb"] = _scores(items, n)
    features["offset_arcsec"] = _offset(items, alerts)
    return {feature.name: features[feature.name] for feature in FEATURES}


def _recent(items: Items, alert_jd: Floats) -> Items:
    """Return the items that lie in their alert's window."""
    before = alert_jd[items.alert] - items.jd
    return picked(items, (before >= 0.0) & (before <= WINDOW_DAYS))


def _with_own(alerts: Alerts, items: Detections) -> Detections:
    """Return the detections with the alerts' own behind them."""
    own = Detections(
        np.arange(len(alerts.jd)), alerts.jd, alerts.filter_number, alerts.ra, alerts.dec, alerts.mag, alerts.mag_err,
        alerts.is_positive, alerts.reliability,
    )  # fmt: skip
    return Detections._make(np.concatenate(pair) for pair in zip(items, own, strict=True))


def _counts(items: Detections, limits: Limits, alerts: Alerts) -> dict[str, Floats]:
    n = len(alerts.jd)
    before = alerts.jd[items.alert] - items.jd
    features = {f"n_det_{days}d": counts(items.alert[before <= days], n) for days in (30, 7, 1)}
    features["n_positive_30d"] = counts(items.alert[items.is_positive == 1.0], n)
    features["n_negative_30d"] = counts(items.alert[items.is_positive == 0.0], n)
    night = nights_of(items.alert, items.jd)
    of_night = np.zeros(int(night.max(initial=-1)) + 1, dtype=np.intp)
    of_night[night] = items.alert
    features["n_nights_30d"] = counts(of_night, n)
    pairs = np.unique(np.column_stack((items.alert, items.filter_number)), axis=0)
    features["n_filters_30d"] = counts(pairs[:, 0].astype(np.intp), n)
    features["n_limits_30d"] = counts(limits.alert, n)
    return features


def _times(items: Detections, alerts: Alerts, first: Floats) -> dict[str, Floats]:
    n = len(alerts.jd)
    is_before = items.jd < alerts.jd[items.alert]
    previous = largest(items.alert[is_before], items.jd[is_before], n)
    return {
        "first_jd": first,
        "days_since_first": alerts.jd - first,
        "days_since_previous": alerts.jd - previous,
        "age_days": alerts.jd - alerts.first_jd,
    }


def _limits(limits: Limits, alerts: Alerts, first: Floats) -> dict[str, Floats]:
    n = len(alerts.jd)
    last = last_items(limits.alert, limits.jd, n)
    earlier = np.flatnonzero(limits.jd < first[limits.alert])
    before = last_items(limits.alert[earlier], limits.jd[earlier], n)
    return {
        "last_limit_mag": taken(limits.mag, last),
        "days_since_limit": alerts.jd - taken(limits.jd, last),
        "first_limit_mag": taken(limits.mag[earlier], before),
        "days_limit_to_first": first - taken(limits.jd[earlier], before),
    }


def _measured(items: Detections) -> Detections:
    """Return the positive detections with a magnitude and an error."""
    is_good = (items.is_positive == 1.0) & np.isfinite(items.mag) & (items.mag_err > 0) & np.isfinite(items.mag_err)
    return picked(items, is_good)


def _brightness(items: Detections, alerts: Alerts) -> dict[str, Floats]:
    """Return rise, peak and amplitude by filter, and those of the alert's own filter under their plain names."""
    n = len(alerts.jd)
    good = _measured(items)
    features: dict[str, Floats] = {}
    by_filter = dict.fromkeys(
        ("rise_rate", "rise_rate_err", "peak_mag", "amplitude", "days_since_peak"), np.full(n, np.nan)
    )
    for number, band in FILTERS.items():
        own = picked(good, good.filter_number == number)
        found = _of_one_filter(own, alerts)
        is_own = alerts.filter_number == number
        by_filter = {name: np.where(is_own, found[name], values) for name, values in by_filter.items()}
        features |= {f"{name}_{band}": values for name, values in found.items()}
    features |= by_filter
    features["below_peak"] = np.where(alerts.is_positive == 1.0, alerts.mag - features["peak_mag"], np.nan)
    return features


def _of_one_filter(good: Detections, alerts: Alerts) -> dict[str, Floats]:
    n = len(alerts.jd)
    before = alerts.jd[good.alert] - good.jd
    late = before <= RISE_WINDOW_DAYS
    rise = rise_rates(good.alert[late], n, days=-before[late], mag=good.mag[late], mag_err=good.mag_err[late])
    brightest = last_items(good.alert, -good.mag, n)
    peak = taken(good.mag, brightest)
    return {
        "rise_rate": rise.value, "rise_rate_err": rise.error, "peak_mag": peak,
        "days_since_peak": alerts.jd - taken(good.jd, brightest),
        "amplitude": largest(good.alert, good.mag, n) - peak,
    }  # fmt: skip


def _colours(items: Detections, alerts: Alerts) -> dict[str, Floats]:
    n = len(alerts.jd)
    good = _measured(items)
    night = nights_of(good.alert, good.jd)
    features: dict[str, Floats] = {}
    for blue, red in ((1, 2), (2, 3)):
        colour = last_colours(
            good.alert, n, night=night, days=good.jd, mag=good.mag, mag_err=good.mag_err,
            is_blue=good.filter_number == blue, is_red=good.filter_number == red,
        )  # fmt: skip
        name = f"{FILTERS[blue]}_{FILTERS[red]}"
        features |= {f"colour_{name}": colour.value, f"colour_{name}_err": colour.error}
        features[f"days_since_{name}"] = alerts.jd - colour.days
    return features


def _forced(forced: ForcedFluxes, alerts: Alerts, first: Floats) -> dict[str, Floats]:
    n = len(alerts.jd)
    features = {"n_forced_30d": counts(forced.alert, n)}
    for number, band in FILTERS.items():
        features[f"forced_snr_{band}"] = _stacked(forced, forced.filter_number == number, n)
    is_own = forced.filter_number == alerts.filter_number[forced.alert]
    features["forced_snr_before"] = _stacked(forced, is_own & (forced.jd < first[forced.alert]), n)
    return features


def _stacked(forced: ForcedFluxes, chosen: NDArray[np.bool_], n: int) -> Floats:
    return stacked_snr(forced.alert[chosen], n, flux=forced.flux[chosen], flux_err=forced.flux_err[chosen])


def _scores(items: Detections, n: int) -> tuple[Floats, Floats]:
    is_known = np.isfinite(items.reliability)
    return (
        means(items.alert[is_known], items.reliability[is_known], n),
        smallest(items.alert[is_known], items.reliability[is_known], n),
    )


def _offset(items: Detections, alerts: Alerts) -> Floats:
    """Return the distance from the mean place (of unit vectors, so that a pole is like any place) of those before."""
    n = len(alerts.jd)
    is_before = (items.jd < alerts.jd[items.alert]) & np.isfinite(items.ra) & np.isfinite(items.dec)
    group = items.alert[is_before]
    vectors = unit_vectors(items.ra[is_before], items.dec[is_before])
    mean = np.column_stack([sums(group, vectors[:, axis], n) for axis in range(3)])
    mean /= np.where(counts(group, n) > 0, np.linalg.norm(mean, axis=1), np.nan)[:, None]
    return angle_arcsec(unit_vectors(alerts.ra, alerts.dec), mean)


def _surroundings(alerts: Alerts) -> dict[str, Floats]:
    galactic_longitude, galactic_latitude = galactic(alerts.ra, alerts.dec)
    ecliptic_longitude, ecliptic_latitude = ecliptic(alerts.ra, alerts.dec)
    is_host = alerts.neighbour_score < STAR_SCORE
    host_distance, host = _nearest(alerts, is_host)
    star_distance, _ = _nearest(alerts, alerts.neighbour_score >= STAR_SCORE)
    rows = np.arange(len(alerts.jd))
    is_known = np.isfinite(host_distance)
    return {
        "is_positive": alerts.is_positive,
        "is_mover": np.where(np.isnan(alerts.mover_arcsec), np.nan, alerts.mover_arcsec <= MOVER_ARCSEC),
        "host_distance": host_distance,
        "host_score": np.where(is_known, alerts.neighbour_score[rows, host], np.nan),
        "host_mag_r": np.where(is_known, alerts.neighbour_mag[rows, host], np.nan),
        "star_distance": star_distance,
        "galactic_longitude": galactic_longitude,
        "galactic_latitude": galactic_latitude,
        "ecliptic_longitude": ecliptic_longitude,
        "ecliptic_latitude": ecliptic_latitude,
    }


def _nearest(alerts: Alerts, is_wanted: NDArray[np.bool_]) -> tuple[Floats, Groups]:
    """Return the distance of the nearest wanted neighbour, NaN where there is none, and which it is."""
    distance = np.where(is_wanted & np.isfinite(alerts.neighbour_arcsec), alerts.neighbour_arcsec, np.inf)
    which = np.argmin(distance, axis=1)
    least = distance[np.arange(len(which)), which]
    return np.where(np.isfinite(least), least, np.nan), which
