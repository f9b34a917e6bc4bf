"""The reference catalog that earlier surveys would have given: honest errors, incomplete, some hidden variables."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gueststar.model.catalog import Catalog, concatenate
from gueststar.model.columns import REFCAT
from gueststar.simulation.scenario import RefcatPlan
from gueststar.simulation.seeds import generator_for
from gueststar.simulation.stars import positions_at

Floats = NDArray[np.float64]

BRIGHT_LIMIT = 9.0
PROPER_MOTION_ERROR = 0.15
"""At the faint end this grows tenfold, mas/yr."""


def make_refcat(plan: RefcatPlan, stars: Catalog, galaxies: Catalog, variables: Catalog, *, seed: int) -> Catalog:
    """Return the reference catalog: noise is added at just the errors that it states."""
    random = generator_for(seed, "refcat")
    parts = [
        _entries(plan, stars, random, is_extended=False, limit=plan.complete_to),
        _entries(plan, galaxies, random, is_extended=True, limit=plan.complete_to - 0.7),
    ]
    refcat = concatenate(parts)
    flagged = variables["source_id"][variables["is_flagged"]]
    refcat = refcat.replace(is_variable=np.isin(refcat["ref_id"], flagged))
    return refcat.select(np.argsort(refcat["ref_id"], kind="stable"))


def _entries(
    plan: RefcatPlan, table: Catalog, random: np.random.Generator, *, is_extended: bool, limit: float
) -> Catalog:
    chance = 1.0 / (1.0 + np.exp(np.clip((table["mag_r"] - limit) / 0.12, -50, 50)))
    kept = table.select((random.random(table.n_rows) < chance) & (table["mag_r"] > BRIGHT_LIMIT))
    n = kept.n_rows
    # Photon noise doubles the variance 3 magnitudes above the limit.
    growth = np.sqrt(1.0 + 10.0 ** (0.4 * (kept["mag_r"] - limit + 3.0)))
    position_error = plan.position_error_mas * growth * (8.0 if is_extended else 1.0)
    if is_extended:
        ra, dec, motion = kept["ra"], kept["dec"], np.zeros((2, n))
    else:
        ra, dec = positions_at(kept, plan.epoch)
        motion = np.array([kept["pm_ra"], kept["pm_dec"]]) + PROPER_MOTION_ERROR * growth * random.normal(size=(2, n))
    shift = position_error * random.normal(size=(2, n)) / 3.6e6
    columns = {
        "ref_id": kept["source_id"],
        "ra": (ra + shift[0] / np.cos(np.radians(dec))) % 360.0, "dec": dec + shift[1],
        "ra_err": position_error, "dec_err": position_error, "pm_ra": motion[0], "pm_dec": motion[1],
        "epoch": np.full(n, plan.epoch),
        "is_extended": np.full(n, is_extended), "is_variable": np.zeros(n, dtype=bool),
    }  # fmt: skip
    for band, factor in zip("griz", (1.3, 1.0, 1.0, 1.4), strict=True):
        error = plan.magnitude_error * growth * factor * (3.0 if is_extended else 1.0)
        columns[f"mag_{band}"] = kept[f"mag_{band}"] + error * random.normal(size=n)
        columns[f"mag_{band}_err"] = error
    return REFCAT.catalog(columns)
