"""Streaks on the difference image: found, fitted, scored, and told apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.streaks.features import NAMES, StreakFeatures, measure_features
from gueststar.algorithms.streaks.kind import KindConfig, judge_kind
from gueststar.algorithms.streaks.line_fit import Pixels, trusted_pixels
from gueststar.algorithms.streaks.search import (
    FoundStreak,
    StreakSearchConfig,
    find_streaks,
    fit_known,
    share_on,
)
from gueststar.algorithms.streaks.strip_picture import strip_picture
from gueststar.algorithms.streaks.trace import Segment
from gueststar.algorithms.streaks.vet import DEFAULT_MODEL, StreakModel, score
from gueststar.core.bits import UNUSABLE, MaskPlane, SourceFlag
from gueststar.core.ids import content_id
from gueststar.model.catalog import Catalog
from gueststar.model.columns import STREAK
from gueststar.model.image import CalibratedImage
from gueststar.model.photocal import NJY_ZERO_POINT
from gueststar.model.streaks import StreakCutouts
from gueststar.model.wcs import Wcs
from gueststar.pipelines.difference._stars import fine_psf_of
from gueststar.pipelines.difference.detect import DetectionContext
from gueststar.pipelines.difference.subtract import DifferenceResult

_SPOILED = UNUSABLE | MaskPlane.REFERENCE_MASKED


@dataclass(frozen=True)
class StreaksConfig:
    """How streaks are found, scored and told apart."""

    is_searched: bool = True
    """False: no search; trails that the science image masks are listed all the same."""
    search: StreakSearchConfig = field(default_factory=StreakSearchConfig)
    """Of the search and the fits."""
    kind: KindConfig = field(default_factory=KindConfig)
    """Of what an asteroid may look like."""
    min_reliability: float = 0.6
    """Streaks of lower score are kept, and counted as artefacts."""
    flag_reach_fwhm: float = 2.0
    """Detections this near to a reliable satellite get the flag SATELLITE, FWHM."""
    half_cutout: int = 15
    """Pixels either side of a streak in its cut-out."""


class Streaks(NamedTuple):
    """What `FindStreaks` makes."""

    catalog: Catalog
    """`STREAK` rows, the most significant first; negative ones and unlikely ones included."""
    cutouts: StreakCutouts
    """Of the reliable ones."""
    metrics: dict[str, Any]


class _Row(NamedTuple):
    streak: FoundStreak
    features: StreakFeatures
    is_masked_trail: bool


class FindStreaks:
    """Find and measure the streaks of a difference image."""

    def __init__(self, config: StreaksConfig = StreaksConfig(), *, model: StreakModel = DEFAULT_MODEL) -> None:
        self.config, self.model = config, model

    def run(
        self,
        result: DifferenceResult,
        science: CalibratedImage,
        reference_warped: CalibratedImage | None,
        *,
        context: DetectionContext,
    ) -> Streaks:
        """Return the streaks, with the trails that were masked on the science image among them.

        Without a reference, features of it say nothing.
        """
        psf, fwhm = fine_psf_of(result.difference.psf), result.difference.psf.central_fwhm
        pixels = _pixels_of(result)
        reference = None if reference_warped is None else reference_warped.pixels.image
        rows = self._masked_trails(science, reference_warped)
        metrics: dict[str, Any] = {"n_masked_trails": len(rows)}
        if self.config.is_searched:
            found = find_streaks(result.score, pixels, psf, fwhm=fwhm, config=self.config.search)
            for streak in found.streaks:
                if not _is_listed(streak, rows, fwhm):
                    features = measure_features(
                        streak, pixels, psf, fwhm=fwhm, inflation=result.inflation, reference=reference
                    )
                    rows.append(_Row(streak, features, False))
            metrics |= {
                "n_candidates": found.n_candidates, "n_examined": found.n_examined,
                "line_noise": found.line_noise, "is_complete": found.is_complete,
            }  # fmt: skip
        catalog = self._catalog(rows, science, context)
        return Streaks(catalog, self._cutouts(catalog, rows, result, science), metrics | _counts(catalog, self.config))

    def flagged(self, dia_sources: Catalog, streaks: Catalog, *, fwhm: float) -> Catalog:
        """Return detections with SATELLITE set on those that lie on a reliable satellite, ``fwhm`` in pixels."""
        sure = (streaks["kind"] == "satellite") & (streaks["reliability"] >= self.config.min_reliability)
        near = np.zeros(dia_sources.n_rows, bool)
        for k in np.flatnonzero(sure & streaks["is_positive"]):
            line = Segment(*(float(streaks[name][k]) for name in ("x_1", "y_1", "x_2", "y_2")))
            near |= _is_near(dia_sources["x"], dia_sources["y"], line, self.config.flag_reach_fwhm * fwhm)
        return dia_sources.replace(flags=dia_sources["flags"] | np.where(near, int(SourceFlag.SATELLITE), 0))

    def _masked_trails(self, science: CalibratedImage, reference: CalibratedImage | None) -> list[_Row]:
        """Return the trails that were masked on the science image, fitted on it with the reference taken off."""
        trails = _trails_of(science.metadata)
        if not trails:
            return []
        image = science.pixels.image if reference is None else science.pixels.image - reference.pixels.image
        usable = science.pixels.is_usable(UNUSABLE & ~MaskPlane.SATELLITE)
        if reference is not None:
            usable &= reference.pixels.is_usable()
        pixels = Pixels(image, science.pixels.variance, usable, 1.0)
        psf, fwhm = fine_psf_of(science.psf), science.psf.central_fwhm
        rows = []
        for streak in fit_known(pixels, psf, trails, fwhm=fwhm, config=self.config.search):
            if streak is not None:
                features = measure_features(streak, pixels, psf, fwhm=fwhm, inflation=None, reference=None)
                rows.append(_Row(streak, features, True))
        return rows

    def _catalog(self, rows: list[_Row], science: CalibratedImage, context: DetectionContext) -> Catalog:
        rows = rows[: self.config.search.max_streaks]
        listed = [self._columns_of(row, number, science, context) for number, row in enumerate(rows)]
        if not listed:
            return STREAK.empty()
        return STREAK.catalog({column.name: [row[column.name] for row in listed] for column in STREAK.columns})

    def _columns_of(
        self, row: _Row, number: int, science: CalibratedImage, context: DetectionContext
    ) -> Mapping[str, Any]:
        exposure_s = 2.0 * (context.mjd_tai - context.mjd_start) * 86400.0
        place = _on_sky(row.streak, science.wcs)
        flux, error = _flux_of(row.streak, science)
        features = row.features
        motion = judge_kind(
            length_arcsec=place["length"], exposure_s=exposure_s, is_end_seen=row.streak.is_end_seen,
            flux_scatter=features.flux_scatter, flux_scatter_snr=features.flux_scatter_snr,
            broadening=features.broadening, broadening_err=features.broadening_err, config=self.config.kind,
        )  # fmt: skip
        return {
            "streak_id": content_id("streak", context.visit, context.detector, number),
            "visit": context.visit, "detector": context.detector, "band_id": context.band_id,
            "program": context.program, "mjd_begin": context.mjd_start,
            "mjd_end": context.mjd_start + exposure_s / 86400.0,
            **place,
            "rate": motion.rate, "flux": flux, "flux_err": error,
            "mag": NJY_ZERO_POINT - 2.5 * np.log10(flux) if flux > 0 else np.nan,
            "chi2": row.streak.fit.chi2,
            **{name: getattr(features, name) for name in NAMES},
            "is_positive": row.streak.sign > 0, "is_masked_trail": row.is_masked_trail,
            "reliability": score(features, self.model), "kind": motion.kind, "reason": motion.reason,
        }  # fmt: skip

    def _cutouts(
        self, catalog: Catalog, rows: list[_Row], result: DifferenceResult, science: CalibratedImage
    ) -> StreakCutouts:
        kept = np.flatnonzero((catalog["reliability"] >= self.config.min_reliability) & catalog["is_positive"])
        stamps, scales = [], []
        for k in kept:
            segment = rows[int(k)].streak.fit.segment
            pair = [
                strip_picture(image, segment, half_width=self.config.half_cutout)
                for image in (result.difference.pixels.image, science.pixels.image)
            ]
            stamps.append(np.stack([picture.stamp for picture in pair]))
            scales.append(pair[0].pixels_per_column)
        return StreakCutouts(catalog["streak_id"][kept], tuple(stamps), np.array(scales, np.float32))


def _pixels_of(result: DifferenceResult) -> Pixels:
    """Return the difference as fits need it: noise of mismatch in the variance, what the score leaves out unusable."""
    pixels = result.difference.pixels
    variance, usable = trusted_pixels(
        pixels.variance, result.inflation, pixels.mask, result.score, np.int32(int(_SPOILED))
    )
    return Pixels(pixels.image, variance, usable, float(result.metrics.get("pixel_noise_ratio") or 1.0))


def _trails_of(metadata: Mapping[str, Any]) -> list[Segment]:
    """Return the satellite trails that the science image's metadata tell of."""
    detrend = metadata.get("metrics", {}).get("detrend", {})
    return [Segment(*map(float, trail[:4])) for trail in detrend.get("satellite_trails", [])]


def _is_listed(streak: FoundStreak, rows: list[_Row], fwhm: float) -> bool:
    """Return whether a streak lies along a masked trail: what is left beside the mask, or another piece of it."""
    trails = [row.streak.fit.segment for row in rows if row.is_masked_trail]
    return any(share_on(streak.fit.segment, trail, width=6.0 * fwhm) > 0.7 for trail in trails)


def _is_near(x: NDArray[np.float64], y: NDArray[np.float64], line: Segment, distance: float) -> NDArray[np.bool_]:
    """Return which places lie within a distance of a segment."""
    ux, uy = line.direction
    along = (x - line.x1) * ux + (y - line.y1) * uy
    across = -(x - line.x1) * uy + (y - line.y1) * ux
    beyond = np.maximum(np.maximum(-along, along - line.length), 0.0)
    return np.asarray(np.hypot(across, beyond) <= distance)


def _on_sky(streak: FoundStreak, wcs: Wcs) -> dict[str, Any]:
    """Return the columns of place: ends, length and direction on the sky, with errors."""
    fit, scale = streak.fit, wcs.pixel_scale_arcsec
    x, y = np.array([fit.segment.x1, fit.segment.x2]), np.array([fit.segment.y1, fit.segment.y2])
    ra, dec = wcs.pixel_to_sky(x=x, y=y)
    length, angle = _arc(ra, dec)
    return {
        "x_1": x[0], "y_1": y[0], "x_2": x[1], "y_2": y[1],
        "ra_1": ra[0], "dec_1": dec[0], "ra_2": ra[1], "dec_2": dec[1],
        "is_end_1_seen": streak.is_end_seen[0], "is_end_2_seen": streak.is_end_seen[1],
        "along_1_err": fit.end_err[0] * scale * streak.noise, "along_2_err": fit.end_err[1] * scale * streak.noise,
        "across_1_err": fit.across_err[0] * scale * streak.noise,
        "across_2_err": fit.across_err[1] * scale * streak.noise,
        "length": length, "length_err": fit.length_err * scale * streak.noise,
        "position_angle_deg": angle, "position_angle_err": np.degrees(fit.angle_err) * streak.noise,
    }  # fmt: skip


def _arc(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> tuple[float, float]:
    """Return the length in arcsec of the arc between two places, and its position angle at the middle (0 to 180)."""
    a, d = np.radians(ra), np.radians(dec)
    ends = np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=1)
    length = 2.0 * np.arcsin(np.clip(np.linalg.norm(ends[1] - ends[0]) / 2.0, 0.0, 1.0))
    middle = ends.sum(axis=0) / np.linalg.norm(ends.sum(axis=0))
    east = np.array([-middle[1], middle[0], 0.0]) / max(float(np.hypot(middle[0], middle[1])), 1e-12)
    north = np.cross(middle, east)
    along = ends[1] - ends[0]
    return float(np.degrees(length) * 3600.0), float(np.degrees(np.arctan2(along @ east, along @ north)) % 180.0)


def _flux_of(streak: FoundStreak, science: CalibratedImage) -> tuple[float, float]:
    """Return the flux of all that is seen of a streak and its error, nJy."""
    factor = streak.fit.segment.length * science.photocal.njy_per_unit
    flux = streak.flux_per_pixel * factor
    return float(flux), abs(float(flux)) / max(streak.snr, 1e-6)


def _counts(catalog: Catalog, config: StreaksConfig) -> dict[str, Any]:
    """Return how many streaks of each kind are reliable, and how many negative ones tell of false ones."""
    reliable = (catalog["reliability"] >= config.min_reliability) & catalog["is_positive"]
    return {
        "n_streaks": int(reliable.sum()),
        **{
            f"n_{kind}": int((reliable & (catalog["kind"] == kind)).sum())
            for kind in ("satellite", "asteroid", "unclear")
        },
        "n_unlikely": int((catalog["is_positive"] & ~reliable).sum()),
        "n_negative": int((~catalog["is_positive"] & (catalog["reliability"] >= config.min_reliability)).sum()),
    }
