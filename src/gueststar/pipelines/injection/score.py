"""What the pipeline found of artificial sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.algorithms.stats.completeness import fit_completeness
from gueststar.algorithms.stats.robust import median_and_sigma
from gueststar.algorithms.vetting.drift import bin_counts
from gueststar.model.catalog import Catalog
from gueststar.model.columns import INJECTED
from gueststar.pipelines.difference.train import SCORE_EDGES
from gueststar.pipelines.injection.inject import InjectedImage
from gueststar.pipelines.injection.place import InjectionConfig, Place
from gueststar.pipelines.injection.surroundings import Surroundings

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

BIN_MAG = 0.5
"""Width of the magnitude bins, which begin at whole multiples, so that bins of different images add up."""


@dataclass(frozen=True)
class Detections:
    """What was found on the image with artificial sources, and on the real one alone."""

    sources: Catalog | None = None
    """SOURCE catalog of the image with artificial sources; None: none was made."""
    real_sources: Catalog | None = None
    """SOURCE catalog of the real image."""
    candidates: Catalog | None = None
    """DIA_SOURCE catalog with artificial sources, vetted; None: no difference was made."""
    real_candidates: Catalog | None = None
    likely: Bools | None = None
    """Which of ``candidates`` would be let through to become alerts."""
    is_differenced: Bools | None = None
    """``[y, x]``: where the difference image can be used."""


class Score(NamedTuple):
    """Artificial sources one by one, and in figures."""

    catalog: Catalog
    """INJECTED."""
    metrics: dict[str, Any]


class ScoreInjections:
    """Match artificial sources to what was found, and measure completeness and flux errors."""

    def __init__(self, config: InjectionConfig | None = None) -> None:
        self.config = config or InjectionConfig()

    def run(self, injected: InjectedImage, found: Detections, around: Surroundings | None = None) -> Score:
        """Return the score; positions are matched in pixels, fluxes compared in nJy."""
        put_in = injected.sources
        unknown = np.full(put_in.x.size, np.nan)
        around = around or Surroundings(unknown, unknown)
        ra, dec = injected.image.wcs.pixel_to_sky(x=put_in.x, y=put_in.y)
        source = self._match(injected, found.sources)
        columns: dict[str, Any] = {
            "injected_id": np.arange(put_in.x.size), "x": put_in.x, "y": put_in.y, "ra": ra, "dec": dec,
            "mag": put_in.magnitude, "flux": put_in.flux, "trail_length": put_in.trail_length,
            "trail_angle_deg": put_in.trail_angle_deg, "place": put_in.place,
            "surface_mag": around.surface_mag, "bright_star_arcsec": around.bright_star_arcsec,
            "is_source_found": source >= 0,
            "source_flux": _taken(found.sources, "psf_flux", source),
            "source_flux_err": _taken(found.sources, "psf_flux_err", source),
            "is_source_by_chance": self._match(injected, found.real_sources) >= 0,
        }  # fmt: skip
        columns |= self._candidate_columns(injected, found)
        catalog = INJECTED.catalog(columns)
        return Score(catalog, injection_metrics(catalog, self.config))

    def _candidate_columns(self, injected: InjectedImage, found: Detections) -> dict[str, Any]:
        n = injected.sources.x.size
        names = {"candidate_flux": "psf_flux", "candidate_flux_err": "psf_flux_err", "candidate_snr": "snr"}
        names |= {"reliability": "reliability"}
        if found.candidates is None or found.is_differenced is None or found.likely is None:
            flags = ("is_differenced", "is_candidate_found", "is_likely_alert", "is_candidate_by_chance")
            return {name: np.full(n, np.nan) for name in names} | {name: np.zeros(n, bool) for name in flags}
        row = self._match(injected, found.candidates)
        ny, nx = found.is_differenced.shape
        ix = np.clip(np.rint(injected.sources.x).astype(int), 0, nx - 1)
        iy = np.clip(np.rint(injected.sources.y).astype(int), 0, ny - 1)
        return {name: _taken(found.candidates, column, row) for name, column in names.items()} | {
            "is_differenced": found.is_differenced[iy, ix],
            "is_candidate_found": row >= 0,
            "is_likely_alert": np.append(found.likely, False)[row],
            "is_candidate_by_chance": self._match(injected, found.real_candidates) >= 0,
        }

    def _match(self, injected: InjectedImage, catalog: Catalog | None) -> NDArray[np.intp]:
        """Return the nearest row within the radius (and half a trail) of the right sign and flux; -1: there is none."""
        put_in = injected.sources
        matched = np.full(put_in.x.size, -1)
        if catalog is None or catalog.n_rows == 0 or put_in.x.size == 0:
            return matched
        radius = max(1.0, self.config.match_radius_fwhm * injected.image.psf.central_fwhm) + 0.5 * put_in.trail_length
        tree = cKDTree(np.column_stack([catalog["x"], catalog["y"]]))
        places = np.column_stack([put_in.x, put_in.y])
        factor = self.config.flux_factor
        for k, near in enumerate(tree.query_ball_point(places, radius)):
            rows = np.array(near, dtype=np.intp)
            share = catalog["psf_flux"][rows] / put_in.flux[k]  # negative where the signs differ
            # A trail's PSF flux is only part of its light.
            low = 1.0 / factor if put_in.trail_length[k] == 0 else 1e-9
            rows = rows[(share > low) & (share < factor)]
            if rows.size:
                distance = np.hypot(catalog["x"][rows] - put_in.x[k], catalog["y"][rows] - put_in.y[k])
                matched[k] = rows[np.argmin(distance)]
        return matched


def _taken(catalog: Catalog | None, name: str, row: NDArray[np.intp]) -> Floats:
    """Return a column at rows, NaN where the row is -1."""
    if catalog is None:
        return np.full(row.size, np.nan)
    return np.append(np.asarray(catalog[name], dtype=np.float64), np.nan)[row]


def injection_metrics(catalog: Catalog, config: InjectionConfig) -> dict[str, Any]:
    """Return completeness, flux errors and magnitude bins of artificial stars as plain values.

    Trails, and what has faded, are counted apart: the catalogs cannot show those, the difference does. On the
    difference only sources where it can be used count. Completeness is of those that lie anywhere; those put beside
    hosts and bright stars are counted by what they lie on and near to (``classes``), together with the others.
    """
    is_star = catalog["trail_length"] == 0
    everywhere = catalog.select(is_star & (catalog["flux"] > 0))
    stars = everywhere.select(everywhere["place"] == int(Place.ANYWHERE))
    trails, fading = catalog.select(~is_star), catalog.select(is_star & (catalog["flux"] < 0))
    on_difference = stars.select(stars["is_differenced"])
    source = _recovery(stars, "is_source_found", "source_flux", config) | {
        "n_by_chance": int(stars["is_source_by_chance"].sum())
    }
    metrics: dict[str, Any] = {
        "n_injected": stars.n_rows,
        "n_trails": trails.n_rows,
        "completeness_50_mag": source["magnitude_50"],
        "injection_flux_bias": source["flux_bias"],
        "source": source,
        "trails": {"n": trails.n_rows, "n_source": int(trails["is_source_found"].sum()),
                   "n_candidate": int(trails["is_candidate_found"].sum())},
        "fading": {"n": int(fading["is_differenced"].sum()), "n_candidate": int(fading["is_candidate_found"].sum())},
        "bins": _bins(stars),
        "classes": completeness_classes(everywhere),
    }  # fmt: skip
    if on_difference.n_rows:
        difference = _recovery(on_difference, "is_candidate_found", "candidate_flux", config) | {
            "n_by_chance": int(on_difference["is_candidate_by_chance"].sum())
        }
        alert = fit_completeness(np.asarray(on_difference["mag"], np.float64), on_difference["is_likely_alert"])
        metrics["difference"] = difference | {"alert_magnitude_50": _plain(alert.magnitude_50)}
        metrics["injected_scores"] = _scores(on_difference)
        metrics["difference_completeness_50_mag"] = difference["magnitude_50"]
        metrics["difference_injection_flux_bias"] = difference["flux_bias"]
    return metrics


def _scores(on_difference: Catalog) -> dict[str, Any]:
    """Return how detected artificial stars were scored: numbers in bins of reliability, and of likely alerts."""
    found = on_difference.select(on_difference["is_candidate_found"] & np.isfinite(on_difference["reliability"]))
    counts = bin_counts(found["reliability"].astype(np.float64)[:, None], [SCORE_EDGES])[0]
    return {
        "n": found.n_rows,
        "n_likely": int(found["is_likely_alert"].sum()),
        "edges": SCORE_EDGES.tolist(),
        "counts": counts.tolist(),
    }


def _recovery(stars: Catalog, found: str, flux: str, config: InjectionConfig) -> dict[str, Any]:
    fit = fit_completeness(np.asarray(stars["mag"], dtype=np.float64), stars[found])
    error_known = stars[f"{flux}_err"] > 0
    is_bright = stars[found] & error_known & (stars["flux"] > config.bright_snr * stars[f"{flux}_err"])
    error = stars[flux][is_bright] - stars["flux"][is_bright]
    bias, pull = error / stars["flux"][is_bright], error / stars[f"{flux}_err"][is_bright]
    return {
        "magnitude_50": _plain(fit.magnitude_50),
        "magnitude_50_err": _plain(fit.magnitude_50_err),
        "plateau": _plain(fit.plateau),
        "width": _plain(fit.width),
        "n": stars.n_rows,
        "n_found": int(stars[found].sum()),
        "n_flux": int(is_bright.sum()),
        "flux_bias": _plain(np.median(bias) if bias.size else np.nan),
        "flux_bias_err": _plain(1.2533 * median_and_sigma(bias)[1] / np.sqrt(bias.size) if bias.size > 2 else np.nan),
        "pull_median": _plain(np.median(pull) if pull.size else np.nan),
        "pull_sigma": _plain(median_and_sigma(pull)[1] if pull.size > 2 else np.nan),
    }


def _bins(stars: Catalog) -> list[dict[str, float]]:
    number = np.floor(np.asarray(stars["mag"], dtype=np.float64) / BIN_MAG).astype(int)
    rows = []
    for k in np.unique(number):
        mine = stars.select(number == k)
        rows.append(
            {
                "mag_low": float(k * BIN_MAG),
                "mag_high": float((k + 1) * BIN_MAG),
                "n": mine.n_rows,
                "n_source": int(mine["is_source_found"].sum()),
                "n_differenced": int(mine["is_differenced"].sum()),
                "n_candidate": int((mine["is_candidate_found"] & mine["is_differenced"]).sum()),
                "n_alert": int((mine["is_likely_alert"] & mine["is_differenced"]).sum()),
            }
        )
    return rows


SURFACE_EDGES = (20.0, 21.0, 22.0, 23.0, 24.0)
"""Classes of the brightness that sources lie on, mag per square arcsec; besides them, where only noise is seen."""
DISTANCE_EDGES = (5.0, 10.0, 20.0, 40.0, 80.0)
"""Classes of the distance to the nearest bright star, arcsec; besides them, where there is none."""


def completeness_classes(stars: Catalog) -> list[dict[str, Any]]:
    """Return counts by what sources lie on and by how near a bright star is, in bins of magnitude.

    ``by`` is ``surface`` or ``distance``, ``low`` and ``high`` the limits of the class: None where it is open, both
    None where only noise is seen, or no bright star is there.
    """
    rows: list[dict[str, Any]] = []
    for by, column, edges in (
        ("surface", "surface_mag", SURFACE_EDGES), ("distance", "bright_star_arcsec", DISTANCE_EDGES),
    ):  # fmt: skip
        value = np.asarray(stars[column], dtype=np.float64)
        number = np.where(np.isfinite(value), np.searchsorted(edges, value, side="right"), -1)
        for k in np.unique(number):
            low = edges[k - 1] if k > 0 else None
            high = edges[k] if 0 <= k < len(edges) else None
            mine = stars.select(number == k)
            rows += [{"by": by, "low": low, "high": high} | row for row in _bins(mine)]
    return rows


def _plain(value: float | np.floating) -> float | None:
    return float(value) if np.isfinite(value) else None
