"""Variable stars: pulsators, eclipsing binaries and flare stars among the stars of the field."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gueststar.core.ids import content_id
from gueststar.model.catalog import Catalog, Column, Schema, concatenate
from gueststar.simulation.footprint import Footprint
from gueststar.simulation.scenario import VariablePlan
from gueststar.simulation.seeds import generator_for

Floats = NDArray[np.float64]

VARIABLE = Schema(
    "true_variable",
    (
        Column("source_id", "i8", "", "the star (same identifier as in true_star)"),
        Column("kind", "U16", "", "rr_lyrae, eclipsing or flare"),
        Column("ra", "f8", "deg", "right ascension at epoch 2016.0"),
        Column("dec", "f8", "deg", "declination at epoch 2016.0"),
        Column("mag_r", "f8", "mag", "r magnitude of the star's table entry"),
        Column("period_d", "f8", "day", "period; for flare stars the mean time between flares"),
        Column("epoch_mjd_tai", "f8", "day", "time of phase 0 (maximum, primary eclipse, first flare)"),
        Column("amplitude", "f8", "mag", "peak to peak in r (flares: of the brightest flare)"),
        Column("is_flagged", "?", "", "the reference catalog calls it variable"),
    ),
)

AMPLITUDE_FACTOR = {
    "rr_lyrae": {"g": 1.3, "r": 1.0, "i": 0.8, "z": 0.7},
    "eclipsing": {"g": 1.03, "r": 1.0, "i": 0.97, "z": 0.95},
    "flare": {"g": 1.6, "r": 1.0, "i": 0.5, "z": 0.3},
}
"""Amplitude in a band over that in r."""


def make_variables(plan: VariablePlan, stars: Catalog, *, footprints: tuple[Footprint, ...], seed: int) -> Catalog:
    """Return variables chosen among ``stars``: ``plan.n`` in each of ``footprints``."""
    parts = [VARIABLE.empty()]
    taken: set[int] = set()
    for number, footprint in enumerate(footprints):
        random = generator_for(seed, "variables", number)
        low, high = plan.magnitudes
        candidates = np.flatnonzero((stars["mag_r"] > low) & (stars["mag_r"] < high))
        inside = footprint.contains(stars["ra"][candidates], stars["dec"][candidates])
        candidates = candidates[inside]
        candidates = candidates[~np.isin(stars["source_id"][candidates], sorted(taken))]
        chosen = random.permutation(candidates)[: plan.n]
        taken.update(int(i) for i in stars["source_id"][chosen])
        parts.append(_variables_of(stars.select(chosen), plan, random))
    return concatenate(parts)


def _variables_of(stars: Catalog, plan: VariablePlan, random: np.random.Generator) -> Catalog:
    n = stars.n_rows
    red = stars["mag_g"] - stars["mag_r"] > 1.1
    kind = np.where(red, "flare", np.where(random.random(n) < 0.5, "rr_lyrae", "eclipsing"))
    period = np.select(
        [kind == "rr_lyrae", kind == "eclipsing"],
        [np.clip(random.normal(0.55, 0.08, n), 0.3, 0.8), 10.0 ** random.uniform(-0.5, 0.5, n)],
        random.uniform(0.1, 0.5, n),
    )
    amplitude = np.select(
        [kind == "rr_lyrae", kind == "eclipsing"],
        [random.uniform(0.4, 1.1, n), random.uniform(0.2, 1.2, n)],
        random.uniform(0.5, 2.5, n),
    )
    return VARIABLE.catalog(
        {
            "source_id": stars["source_id"], "kind": kind, "ra": stars["ra"], "dec": stars["dec"],
            "mag_r": stars["mag_r"], "period_d": period, "epoch_mjd_tai": 60000.0 + period * random.random(n),
            "amplitude": amplitude, "is_flagged": random.random(n) < plan.flagged_fraction,
        }
    )  # fmt: skip


def magnitude_changes(variables: Catalog, *, mjd_tai: float, band: str) -> Floats:
    """Return how much fainter (positive) each variable is than its table magnitude at a time."""
    changes = np.zeros(variables.n_rows)
    for k in range(variables.n_rows):
        kind = str(variables["kind"][k])
        size = float(variables["amplitude"][k]) * AMPLITUDE_FACTOR[kind].get(band, 1.0)
        elapsed = (mjd_tai - float(variables["epoch_mjd_tai"][k])) / float(variables["period_d"][k])
        if kind == "rr_lyrae":
            changes[k] = size * _sawtooth(elapsed % 1.0)
        elif kind == "eclipsing":
            changes[k] = size * _eclipses(elapsed % 1.0)
        else:
            flux = _flare_flux(elapsed, float(variables["period_d"][k]), size, int(variables["source_id"][k]))
            changes[k] = -2.5 * np.log10(1.0 + flux)
    return changes


def _sawtooth(phase: float) -> float:
    """RRab light curve about its mean: steep rise over a tenth of the period, slow decline."""
    rise = 0.12
    level = 1.0 - (1.0 - phase / (1.0 - rise)) ** 1.6 if phase < 1.0 - rise else 1.0 - (phase - 1.0 + rise) / rise
    return level - 0.62


def _eclipses(phase: float) -> float:
    """Two eclipses of a detached pair and a small ellipsoidal wave; 1 at the primary's middle."""
    distance = min(phase, 1.0 - phase)
    primary = np.exp(-((distance / 0.045) ** 4))
    secondary = 0.4 * np.exp(-(((phase - 0.5) / 0.045) ** 4))
    return float(primary + secondary + 0.03 * np.cos(4 * np.pi * phase))


def _flare_flux(elapsed: float, period_d: float, largest_mag: float, source_id: int) -> float:
    """Flare light over the star's: each flare rises in a minute and decays in some twenty minutes.

    Sizes and moments follow from the star's identifier and the flare's number.
    """
    total = 0.0
    for number in (int(np.floor(elapsed)) - 1, int(np.floor(elapsed))):
        random = np.random.Generator(np.random.PCG64(content_id("flare", source_id, number)))
        size = (10.0 ** (0.4 * largest_mag) - 1.0) * random.random() ** 3
        since = (elapsed - number - random.random()) * period_d * 1440.0
        if since >= 0.0:
            total += size * (1.0 - np.exp(-since / 0.7)) * np.exp(-since / random.uniform(5.0, 30.0))
    return float(total)
