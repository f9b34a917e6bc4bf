"""Measure the named metrics of a night, or of the survey, and write them down."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar import __version__
from gueststar.algorithms.verification import astrometric, ellipticity, photometric, zero_points
from gueststar.algorithms.verification.estimate import Estimate, measured, nothing
from gueststar.algorithms.verification.stars import Detections
from gueststar.core.errors import ConfigError
from gueststar.operations.metrics.definitions import DEFINITIONS, design
from gueststar.operations.metrics.sample import (
    FieldStars,
    SampleConfig,
    catalog_stars,
    chosen_exposures,
    field_stars,
)
from gueststar.operations.metrics.shapes import image_correlations
from gueststar.operations.survey_pages.night_summary import NightSummary, Spread, summarise_nights
from gueststar.pipelines.alerts.packet import AlertConfig
from gueststar.store.metric_values import MetricValue, MetricValues
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo
from gueststar.store.source_tables import read_rows
from gueststar.store.survey_rows import science_nights

DISTANCES = {1: (5.0, 2.0), 2: (20.0, 2.0), 3: (200.0, 2.0)}
"""Number of AM -> distance of the stars and width of the range, arcmin."""

CHROMATIC_BAND = "r"
"""Band with which the others are compared."""


@dataclass(frozen=True)
class MeasureConfig:
    """On what metrics are measured."""

    sample: SampleConfig = field(default_factory=SampleConfig)
    """Stars and exposures."""
    max_shape_images: int = 24
    """Images of a band whose PSF residuals are measured, spread over all."""
    alert_reliability: float = AlertConfig().min_reliability
    """From which a detection can become an alert."""
    seed: int = 1
    """Of the random choice of pairs: the same catalogs give the same figures."""


@dataclass(frozen=True)
class _Found:
    """A metric that was measured, or not."""

    name: str
    scope: str
    estimate: Estimate
    data: dict[str, Any] = field(default_factory=dict)


def measure_survey(
    repo: SurveyRepo, *, night: int | None = None, version: str = __version__, now: float,
    config: MeasureConfig = MeasureConfig(), names: Sequence[str] = (),
) -> list[MetricValue]:  # fmt: skip
    """Measure all metrics (or ``names``) of a night, or of the survey, and write them into the ledger.

    Those that cannot be measured are among them, with no value and the reason. Raises ConfigError for a night without
    science exposures.
    """
    nights = science_nights(repo.ledger)
    if not nights or (night is not None and night not in nights):
        raise ConfigError(f"{repo.root} holds no science exposures{f' of night {night}' if night else ''}")
    history = MetricValues(repo.ledger)
    summaries = summarise_nights(repo, [night] if night is not None else nights)
    found = [*_of_stars(repo, night, config), *_of_ledger(summaries), *_of_alerts(repo, summaries, config)]
    values = [_value(item, night, version, now) for item in found if not names or item.name in names]
    history.add(values)
    return values


def _value(found: _Found, night: int | None, version: str, now: float) -> MetricValue:
    estimate = found.estimate
    data = {"error": estimate.error, **({"why": estimate.why} if estimate.why else {}), **found.data}
    return MetricValue(found.name, night, found.scope, estimate.value, estimate.n, version, now, data)


# From stars that were seen on many exposures


def _of_stars(repo: SurveyRepo, night: int | None, config: MeasureConfig) -> Iterator[_Found]:
    exposures = chosen_exposures(repo, night, config.sample)
    fields = [field_stars(repo, number, rows, config.sample) for number, rows in exposures.items()]
    stars = [item for item in fields if item is not None]
    for band in sorted({band for item in stars for band in item.bands}):
        rng = np.random.default_rng(config.seed)
        mine = [item for item in stars if band in item.bands]
        data = {"fields": [item.field for item in mine]}
        for name, estimate in _of_band(repo, mine, band, config, rng):
            yield _Found(name, f"band={band}", estimate, data)
        ids = [info.exposure_id for rows in exposures.values() for info, _ in rows if info.band == band]
        for name, estimate in _of_shapes(repo, ids, config):
            yield _Found(name, f"band={band}", estimate)


def _of_band(
    repo: SurveyRepo, stars: list[FieldStars], band: str, config: MeasureConfig, rng: np.random.Generator
) -> Iterator[tuple[str, Estimate]]:
    rows, units = _pooled([item.of_band(band) for item in stars])
    yield "PA1", photometric.repeatability(rows, rng=rng)
    yield "PF1", photometric.outlier_fraction(rows, limit_mmag=design("PA2", band))
    yield "PA2", photometric.outlier_limit(rows, percent=design("PF1", band))
    offsets = zero_points.image_offsets(rows._replace(image=units))
    yield "PA3", zero_points.uniformity(offsets)
    yield "PF2", zero_points.uniformity_outliers(offsets, limit_mmag=design("PA4"))
    yield "PA4", zero_points.uniformity_limit(offsets, percent=design("PF2"))
    for number, (arcmin, width) in DISTANCES.items():
        pairs = astrometric.distances(rows, arcmin=arcmin, width_arcmin=width, rng=rng)
        yield f"AM{number}", astrometric.distance_scatter(pairs, rng=rng)
        yield f"AF{number}", astrometric.distance_outliers(pairs, limit_mas=design(f"AD{number}"))
        yield f"AD{number}", astrometric.distance_limit(pairs, percent=design(f"AF{number}"))
    yield from _against_catalog(repo, stars, band, config)
    yield from _chromatic(stars, band, rng)


def _pooled(parts: list[tuple[Detections, NDArray[np.intp]]]) -> tuple[Detections, NDArray[np.intp]]:
    """Return the stars of several fields as one list: numbers of stars, exposures and images are set apart."""
    rows, units = [], []
    n_star = n_image = n_unit = 0
    for part, unit in parts:
        rows.append(part._replace(star=part.star + n_star, image=part.image + n_image))
        units.append(unit + n_unit)
        n_star, n_image = n_star + part.n_stars, n_image + part.n_images
        n_unit += int(unit.max(initial=-1)) + 1
    return Detections._make(np.concatenate(columns) for columns in zip(*rows, strict=True)), np.concatenate(units)


def _against_catalog(
    repo: SurveyRepo, stars: list[FieldStars], band: str, config: MeasureConfig
) -> Iterator[tuple[str, Estimate]]:
    found = [catalog_stars(repo, item, band, config.sample) for item in stars]
    here = [item for item in found if item is not None]
    if not here:
        for name in ("AA1", "PA6", "PA5"):
            yield name, nothing(0, "no reference catalog covers the fields")
        return
    yield (
        "AA1",
        astrometric.absolute_error(
            np.concatenate([item.offset_ra_mas for item in here]),
            np.concatenate([item.offset_dec_mas for item in here]),
        ),
    )
    yield "PA6", zero_points.scale_error(np.concatenate([item.difference_mag for item in here]))
    yield "PA5", _colour_error(repo, stars, band, config)


def _colour_error(repo: SurveyRepo, stars: list[FieldStars], band: str, config: MeasureConfig) -> Estimate:
    """Return the error of the colour between this band and r (or, for r, the first other band)."""
    others = sorted({name for item in stars for name in item.bands} - {band})
    if not others:
        return nothing(0, "the fields were observed in one band")
    other = CHROMATIC_BAND if CHROMATIC_BAND in others else others[0]
    differences = []
    for item in stars:
        if {band, other} <= set(item.bands):
            one, two = (catalog_stars(repo, item, name, config.sample) for name in (band, other))
            if one is not None and two is not None:
                _, first, second = np.intersect1d(one.star, two.star, return_indices=True)
                differences.append(one.difference_mag[first] - two.difference_mag[second])
    if not differences:
        return nothing(0, f"no field has stars of the catalog in both {band} and {other}")
    return zero_points.scale_error(np.concatenate(differences))


def _chromatic(stars: list[FieldStars], band: str, rng: np.random.Generator) -> Iterator[tuple[str, Estimate]]:
    both = [item for item in stars if {band, CHROMATIC_BAND} <= set(item.bands)]
    if band == CHROMATIC_BAND or not both:
        why = "it is the band that others are compared with" if band == CHROMATIC_BAND else "no field has r as well"
        yield "AB1", nothing(0, why)
        yield "ABF1", nothing(0, why)
        return
    arcmin, width = DISTANCES[1]
    differences = np.concatenate(
        [
            astrometric.chromatic_differences(
                item.of_band(band)[0], item.of_band(CHROMATIC_BAND)[0], arcmin=arcmin, width_arcmin=width, rng=rng
            )
            for item in both
        ]
    )
    yield "AB1", astrometric.chromatic_scatter(differences)
    yield "ABF1", astrometric.chromatic_outliers(differences, limit_mas=2.0 * design("AB1"))


def _of_shapes(repo: SurveyRepo, exposures: list[int], config: MeasureConfig) -> Iterator[tuple[str, Estimate]]:
    """Measure what PSF models leave on a sample of images."""
    units = [ref for visit in _spread_over(exposures, config.max_shape_images) for ref in _image_of(repo, visit)]
    ranges = ((0.0, 1.0), (5.0, np.inf))
    images = [image_correlations(repo, image, sources, ranges) for image, sources in units]
    near, far = ([item[k] for item in images] for k in range(2))
    yield "TE1", ellipticity.typical_correlation(near)
    yield "TE2", ellipticity.typical_correlation(far)
    yield "TE3", ellipticity.exceeded_correlation(near)
    yield "TE4", ellipticity.exceeded_correlation(far)


def _spread_over(numbers: list[int], most: int) -> list[int]:
    if not numbers:
        return []
    places = np.unique(np.linspace(0, len(numbers) - 1, min(most, len(numbers))).astype(int))
    return [numbers[int(place)] for place in places]


def _image_of(repo: SurveyRepo, visit: int) -> list[tuple[Any, Any]]:
    """Return one detector's image and catalog of a visit: another detector for each visit, where there are several."""
    row = repo.ledger.exposure(visit)
    detectors = row.detectors if row is not None else ()
    for step in range(len(detectors)):
        detector = detectors[(visit // 7 + step) % len(detectors)]
        data_id = DataId(visit=visit, detector=detector)
        image, sources = repo.find_one("science_image", data_id), repo.find_one("source", data_id)
        if image is not None and sources is not None:
            return [(image, sources)]
    return []


# From what the ledger holds


_OF_IMAGES = {
    "image_quality": "fwhm_arcsec", "depth": "limiting_mag", "completeness": "completeness_50_mag",
    "difference_completeness": "difference_completeness_50_mag",
}  # fmt: skip


def _of_ledger(summaries: list[NightSummary]) -> Iterator[_Found]:
    for name, metric in _OF_IMAGES.items():
        by_band: dict[str, list[Spread]] = defaultdict(list)
        for summary in summaries:
            for band, spread in summary.spreads.get(metric, {}).items():
                by_band[band].append(spread)
        for band, spreads in sorted(by_band.items()):
            yield _Found(name, f"band={band}", _typical(spreads))
        if not by_band:
            why = (
                "no artificial sources were put in, or too few to tell"
                if "completeness" in name
                else "no image was calibrated"
            )
            yield _Found(name, "", nothing(0, why))
    not_live = "the exposures were not taken live"
    yield _Found("received_p95", "", _worst(summaries, lambda s: s.received_p95_s, lambda s: s.received_s, not_live))
    yield _Found(
        "alert_p95", "", _worst(summaries, lambda s: s.alert_p95_s, lambda s: s.alert_s, "no image was associated")
    )
    exposures = sum(sum(found.values()) for s in summaries for found in s.exposures.values())
    lost = sum(summary.unexplained or 0 for summary in summaries)
    yield _Found("accounted", "", measured(100.0 * (exposures - lost) / exposures, 0.0, exposures))


def _typical(spreads: list[Spread]) -> Estimate:
    """Return the median over nights, weighed by their images."""
    n = np.array([item.n for item in spreads])
    medians = np.array([item.median for item in spreads])
    order = np.argsort(medians)
    middle = int(np.searchsorted(np.cumsum(n[order]), 0.5 * n.sum()))
    width = float(np.median([0.5 * (item.high - item.low) for item in spreads]))
    return measured(float(medians[order][middle]), 1.2533 * width / float(np.sqrt(n.sum())), int(n.sum()))


def _worst(
    summaries: list[NightSummary], p95: Callable[[NightSummary], float | None],
    spread: Callable[[NightSummary], Spread | None], why: str,
) -> Estimate:  # fmt: skip
    """Return the 95th percentile of a typical night; for one night it is that night's."""
    values = [(value, found.n) for s in summaries if (value := p95(s)) is not None and (found := spread(s)) is not None]
    if not values:
        return nothing(0, why)
    several = np.array([value for value, _ in values])
    error = 1.2533 * float(np.std(several, ddof=1) / np.sqrt(several.size)) if several.size > 1 else np.nan
    return measured(float(np.median(several)), error, sum(n for _, n in values))


def _of_alerts(repo: SurveyRepo, summaries: list[NightSummary], config: MeasureConfig) -> Iterator[_Found]:
    """Return the share of artefacts that the scores themselves expect among what could become alerts."""
    paths = [ref.path for s in summaries[-30:] for ref in repo.find("dia_source", day_obs=s.night)]
    rows = read_rows(paths, ("reliability", "snr"), at_least={"reliability": config.alert_reliability})
    scores = np.asarray(rows["reliability"], dtype=np.float64)
    if scores.size == 0:
        yield _Found("false_alerts", "", nothing(0, "no detection was scored"))
        return
    wrong = 1.0 - scores
    error = float(np.sqrt(np.sum(scores * wrong)) / scores.size)
    yield _Found("false_alerts", "", measured(100.0 * float(wrong.mean()), 100.0 * error, int(scores.size)))


def known_names() -> tuple[str, ...]:
    """Return the names of all metrics."""
    return tuple(metric.name for metric in DEFINITIONS)
