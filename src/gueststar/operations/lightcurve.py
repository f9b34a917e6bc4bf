"""The light curve at a place, from the catalogs that a reader may see."""

from __future__ import annotations

import numpy as np

from gueststar.core.errors import ConfigError, DataError
from gueststar.model.catalog import Catalog
from gueststar.operations.report import figures
from gueststar.pipelines.lightcurves.light_curve import Epoch, LightCurveConfig, MakeLightCurve
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo


def light_curve_at(
    repo: SurveyRepo, *, ra: float, dec: float, band: str | None, radius_arcsec: float, flux: str
) -> Catalog:
    """Return the light curve at a place in one band, of the exposures of a survey as its reader sees it.

    Raises ConfigError where the band is not told and several were observed, DataError where nothing is there.
    """
    product = "aperture_source" if flux.startswith("ap_") else "source"
    epochs = []
    for row in repo.ledger.exposures(observation_type="science"):
        if row.info.band is None or band not in (None, row.info.band):
            continue
        for detector in row.detectors:
            found = repo.find_one(product, DataId(visit=row.id, detector=detector))
            if found is not None:
                epochs.append(Epoch(row.id, detector, row.info.mjd_tai, row.info.band, repo.read(found)))
    bands = sorted({epoch.band for epoch in epochs})
    if len(bands) > 1:
        raise ConfigError(f"several bands were observed: choose one with --band ({', '.join(bands)})")
    if not epochs:
        raise DataError(f"no catalog{f' in {band}' if band else ''} that {repo.sight.reader.name} may see")
    config = LightCurveConfig(radius_arcsec=radius_arcsec, flux=flux)
    return MakeLightCurve(config).run(epochs, ra=ra, dec=dec)


def draw_light_curve(curve: Catalog) -> bytes:
    """Return a PNG of relative magnitude against time."""
    figure, (ax,) = figures.blank(6.5, 3.0)
    start = float(np.floor(curve["mjd_tai"].min()))
    ax.errorbar(
        curve["mjd_tai"] - start, curve["relative_mag"], curve["relative_mag_err"],
        fmt="o", ms=3, lw=0.8, color=figures.ACCENT,
    )  # fmt: skip
    ax.invert_yaxis()
    ax.set_xlabel(f"MJD (TAI) - {start:.0f}", fontsize=8)
    ax.set_ylabel(f"relative magnitude ({curve['band'][0]})", fontsize=8)
    return figures.png(figure)
