"""How a simulated night's products compare with what is really there.

Reads the truth tables that `gueststar simulate` writes. Everything is judged at the place and time where it was
simulated; nothing of the truth is known to the pipelines.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gueststar.algorithms.association.sky_index import separation_arcsec, unit_vectors
from gueststar.core.bits import SourceFlag
from gueststar.core.errors import ConfigError
from gueststar.formats.parquet import read_catalog
from gueststar.model.catalog import Catalog
from gueststar.model.metrics import METRICS_BY_NAME
from gueststar.model.photocal import NJY_ZERO_POINT
from gueststar.model.rights import Program
from gueststar.operations.report.account import Fate, Unit, account_of
from gueststar.operations.report.transparency import with_extinction
from gueststar.store.alerts.log import AlertLog
from gueststar.store.ledger import JobState
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo

STAR, GALAXY, TRANSIENT, ASTEROID, VARIABLE = range(5)
"""Kinds in the truth tables."""

MATCH_ARCSEC = 1.5
"""A detection this near to a true thing is of it."""

MIN_FLUX_SNR = 20.0
"""Fluxes of fainter detections say more of their noise, and are biased by having been found."""

MAGNITUDES = np.arange(15.0, 22.01, 0.5)
"""Edges of the bins of completeness."""

Floats = NDArray[np.float64]


class Image(NamedTuple):
    """One processed detector image with its truth."""

    unit: Unit
    truth: Catalog
    sources: Catalog
    dia_sources: Catalog | None
    reference_epochs: tuple[int, ...]


def compare_with_truth(repo: SurveyRepo, night: int, folder: Path) -> dict[str, Any]:
    """Return figures of a night against the truth in ``folder``: scatter, completeness, false alerts, asteroids."""
    observed = folder / "observed"
    if not observed.is_dir():
        raise ConfigError(f"{folder} holds no truth tables (it should be the 'truth' folder of gueststar simulate)")
    images = [image for unit in _measured(repo, night) if (image := _load(repo, unit, observed)) is not None]
    differenced = [image for image in images if image.dia_sources is not None]
    alerted = {e.candid for e in AlertLog(repo.root).entries(programs=tuple(Program), day_obs=night)}
    table = completeness(differenced, observed, alerted)
    purity = count_false(differenced, alerted)
    movers = asteroids_found(repo, night, differenced)
    summary = (
        calibration_figures(images, folder)
        | cloud_figures(images, folder)
        | _completeness_summary(table)
        | difference_flux_figures(differenced, observed)
        | purity
        | movers
    )
    return {"summary": summary, "completeness": table, "n_images": len(images), "n_differenced": len(differenced)}


def _measured(repo: SurveyRepo, night: int) -> list[Unit]:
    units = with_extinction(account_of(repo.ledger, night), repo).units
    science = [unit for unit in units if unit.exposure.info.observation_type == "science"]
    return [unit for unit in science if unit.fate is not Fate.FAILED or unit.stage != "science"]


def _load(repo: SurveyRepo, unit: Unit, observed: Path) -> Image | None:
    path = observed / f"{unit.exposure.id}.parquet"
    data_id = DataId(visit=unit.exposure.id, detector=unit.detector)
    if not path.exists() or not repo.exists("source", data_id):
        return None
    truth = read_catalog(path)
    truth = truth.select(truth["detector"] == unit.detector)
    found = repo.find_one("dia_source", data_id)
    epochs: tuple[int, ...] = ()
    if found is not None:
        jobs = repo.ledger.jobs(kind="difference", exposure_id=unit.exposure.id, detector=unit.detector)
        epochs = tuple(jobs[-1].metrics.get("reference", {}).get("epochs", ()))
    return Image(unit, truth, repo.get("source", data_id), repo.read(found) if found else None, epochs)


def nearest(catalog: Catalog, truth: Catalog) -> tuple[NDArray[np.intp], Floats]:
    """Return for each row of ``catalog`` the nearest row of ``truth`` and its distance, arcsec."""
    if truth.n_rows == 0 or catalog.n_rows == 0:
        return np.zeros(catalog.n_rows, dtype=np.intp), np.full(catalog.n_rows, np.inf)
    distance, index = cKDTree(unit_vectors(truth["ra"], truth["dec"])).query(
        unit_vectors(catalog["ra"], catalog["dec"])
    )
    return np.asarray(index), np.degrees(2.0 * np.arcsin(np.clip(distance / 2.0, 0.0, 1.0))) * 3600.0


def _robust(values: Iterable[float]) -> tuple[float, float]:
    array = np.asarray(list(values), dtype=np.float64)
    if array.size == 0:
        return float("nan"), float("nan")
    median = float(np.median(array))
    return median, float(1.4826 * np.median(np.abs(array - median)))


def calibration_figures(images: list[Image], folder: Path) -> dict[str, str]:
    """Return how bright isolated stars scatter against the truth in place and flux, and by how much they are off.

    Fluxes are judged, not zero points: the truth's is of all the light, ours of that in the PSF.
    """
    offsets, scatters, fluxes, errors, pulls = [], [], [], [], []
    truth_images = read_catalog(folder / "detector_images.parquet")
    for image in images:
        stars = image.truth.select((image.truth["kind"] == STAR) & ~image.truth["is_saturated"])
        spoiled = int(SourceFlag.SATURATED | SourceFlag.EDGE | SourceFlag.BLENDED | SourceFlag.BAD_PIXEL)
        good = (image.sources["snr"] > 100) & ((image.sources["flags"] & spoiled) == 0)
        sources = image.sources.select(good)
        index, distance = nearest(sources, stars)
        pairs = distance < MATCH_ARCSEC
        if pairs.sum() < 5:
            continue
        true, ours = stars.select(index[pairs]), sources.select(pairs)
        dra = (ours["ra"] - true["ra"]) * np.cos(np.radians(true["dec"])) * 3.6e6
        ddec = (ours["dec"] - true["dec"]) * 3.6e6
        offsets.append(float(np.hypot(np.median(dra), np.median(ddec))))
        scatters += [_robust(dra)[1], _robust(ddec)[1]]
        row = (truth_images["exposure_id"] == image.unit.exposure.id) & (
            truth_images["detector"] == image.unit.detector
        )
        zero_point = float((truth_images["zero_point"] - truth_images["cloud_mag"])[row][0])
        # In the camera's own system, without a term of colour, as psf_flux is.
        true_flux = true["flux"] * 10.0 ** (0.4 * (NJY_ZERO_POINT - zero_point))
        error, scatter = _robust(-2.5 * np.log10(ours["psf_flux"] / true_flux))
        fluxes.append(1000.0 * scatter)
        errors.append(error)
        pulls.append(error / float(str(image.unit.metrics["zero_point_err"])))
    if not fluxes:
        return {}
    return {
        "astrometric scatter of bright stars": f"{np.median(scatters):.0f} mas per axis ({len(fluxes)} images)",
        "astrometric offset": f"{np.median(offsets):.0f} mas (median), {np.max(offsets):.0f} mas (worst image)",
        "photometric scatter of bright stars": f"{np.median(fluxes):.1f} mmag (median of {len(fluxes)} images)",
        "photometric offset": f"{1000 * np.median(errors):+.1f} mmag, "
        f"scatter between images {1000 * _robust(errors)[1]:.1f} mmag, pull {_robust(pulls)[1]:.2f}",
    }


def cloud_figures(images: list[Image], folder: Path) -> dict[str, str]:
    """Return how well the extinction by clouds was told, and whether cloudy images were."""
    truth = read_catalog(folder / "detector_images.parquet")
    told, true = [], []
    for image in images:
        row = (truth["exposure_id"] == image.unit.exposure.id) & (truth["detector"] == image.unit.detector)
        value = image.unit.metrics.get("cloud_extinction_mag")
        if isinstance(value, int | float) and row.any():
            told.append(float(value))
            true.append(float(truth["cloud_mag"][row][0]))
    if not told:
        return {}
    error, scatter = _robust(np.subtract(told, true))
    limit = METRICS_BY_NAME["cloud_extinction_mag"].fair or 0.0
    is_told, is_cloudy = np.array(told) > limit, np.array(true) > limit
    return {
        "extinction by clouds": f"off by {1000 * error:+.0f} mmag, scatter {1000 * scatter:.0f} mmag "
        f"({len(told)} images)",
        "cloudy images told as such": f"{int((is_told & is_cloudy).sum())} of {int(is_cloudy.sum())}; "
        f"{int((is_told & ~is_cloudy).sum())} clear ones taken for cloudy",
    }


def completeness(images: list[Image], observed: Path, alerted: set[int]) -> list[dict[str, float]]:
    """Return transients found against the magnitude of their true difference flux."""
    before: dict[tuple[int, ...], dict[int, float]] = {}
    rows = []
    for image in images:
        assert image.dia_sources is not None
        if image.reference_epochs not in before:
            before[image.reference_epochs] = _mean_flux(image.reference_epochs, observed)
        in_reference = before[image.reference_epochs]
        true = image.truth.select((image.truth["kind"] == TRANSIENT) & ~image.truth["is_saturated"])
        now = 10.0 ** (0.4 * (NJY_ZERO_POINT - true["mag"]))
        change = now - np.array([in_reference.get(int(i), 0.0) for i in true["source_id"]])
        index, distance = nearest(true, image.dia_sources)
        found = distance < MATCH_ARCSEC
        for k in range(true.n_rows):
            if change[k] == 0.0:
                continue
            mag = NJY_ZERO_POINT - 2.5 * np.log10(abs(change[k]))
            candid = int(image.dia_sources["dia_source_id"][index[k]]) if found[k] else 0
            rows.append((float(mag), bool(found[k]), candid in alerted))
    return [_bin(rows, low, high) for low, high in itertools.pairwise(MAGNITUDES)]


def difference_flux_figures(images: list[Image], observed: Path) -> dict[str, str]:
    """Return how fluxes of new transients, with nothing of them in the reference, compare with the truth."""
    ratios, pulls = [], []
    for image in images:
        assert image.dia_sources is not None
        before = _mean_flux(image.reference_epochs, observed)
        is_new = ~np.isin(image.truth["source_id"], [number for number, flux in before.items() if flux > 0.0])
        true = image.truth.select((image.truth["kind"] == TRANSIENT) & is_new & ~image.truth["is_saturated"])
        index, distance = nearest(true, image.dia_sources)
        found = image.dia_sources.select(index[distance < MATCH_ARCSEC])
        flux = 10.0 ** (0.4 * (NJY_ZERO_POINT - true["mag"][distance < MATCH_ARCSEC]))
        is_clear = found["psf_flux"] > MIN_FLUX_SNR * found["psf_flux_err"]
        ratios += (found["psf_flux"] / flux)[is_clear].tolist()
        pulls += ((found["psf_flux"] - flux) / found["psf_flux_err"])[is_clear].tolist()
    if len(ratios) < 5:
        return {}
    ratio, scatter = _robust(ratios)
    return {
        "difference fluxes of new transients": f"{100 * (ratio - 1):+.1f} % (median of {len(ratios)} above "
        f"{MIN_FLUX_SNR:.0f} sigma), scatter {100 * scatter:.1f} %, pull {_robust(pulls)[1]:.2f}"
    }


def _bin(rows: list[tuple[float, bool, bool]], low: float, high: float) -> dict[str, float]:
    mine = [row for row in rows if low <= row[0] < high]
    return {
        "mag_low": float(low), "mag_high": float(high), "n": len(mine),
        "detected": sum(row[1] for row in mine), "alerted": sum(row[2] for row in mine),
    }  # fmt: skip


def _mean_flux(epochs: tuple[int, ...], observed: Path) -> dict[int, float]:
    """Return each transient's mean flux in nJy over the epochs of a reference."""
    total: dict[int, float] = defaultdict(float)
    for epoch in epochs:
        truth = read_catalog(observed / f"{epoch}.parquet")
        transients = truth.select(truth["kind"] == TRANSIENT)
        for number, mag in zip(transients["source_id"], transients["mag"], strict=True):
            total[int(number)] += 10.0 ** (0.4 * (NJY_ZERO_POINT - float(mag))) / len(epochs)
    return total


def _completeness_summary(table: list[dict[str, float]]) -> dict[str, str]:
    shown = []
    for row in table:
        if row["n"]:
            bin_name = f"{row['mag_low']:.1f}-{row['mag_high']:.1f}"
            shown.append(f"{bin_name}: {row['detected']:.0f} ({row['alerted']:.0f}) of {row['n']:.0f}")
    return {"transients detected (alerted), by magnitude": "; ".join(shown)} if shown else {}


def count_false(images: list[Image], alerted: set[int]) -> dict[str, str]:
    """Return the number of detections and alerts that nothing true explains, per detector image."""
    n_false = n_false_alerts = n_all = n_alerts = 0
    for image in images:
        assert image.dia_sources is not None
        changing = image.truth.select(np.isin(image.truth["kind"], (TRANSIENT, ASTEROID, VARIABLE)))
        index, distance = nearest(image.dia_sources, changing)
        reach = np.full(distance.shape, MATCH_ARCSEC)
        if changing.n_rows:
            reach += 0.5 * changing["trail"][index]
        is_false = distance > reach
        is_alert = np.isin(image.dia_sources["dia_source_id"], list(alerted))
        n_all += image.dia_sources.n_rows
        n_alerts += int(is_alert.sum())
        n_false += int(is_false.sum())
        n_false_alerts += int((is_false & is_alert).sum())
    if not images:
        return {}
    n = len(images)
    return {
        "false candidates per detector image": f"{n_false / n:.1f} (of {n_all / n:.1f} candidates)",
        "false alerts per detector image": f"{n_false_alerts / n:.2f} (of {n_alerts / n:.2f} alerts)",
    }


def asteroids_found(repo: SurveyRepo, night: int, images: list[Image]) -> dict[str, str]:
    """Return how many asteroids that could be linked were linked, what became of trails, how many links are wrong."""
    if not images:
        return {}
    seen: dict[int, list[int]] = defaultdict(list)
    trails: dict[int, int] = {}
    for image in images:
        for number, candid in _detected_asteroids(image):
            seen[number].append(candid)
        trails |= _trailed_asteroids(image)
    linkable = {number for number, hits in seen.items() if len(hits) >= 3}
    of = {candid: number for number, hits in seen.items() for candid in hits if candid}
    jobs = [job for job in repo.ledger.jobs(kind="tracklets", day_obs=night) if job.state is JobState.DONE]
    tracklets = jobs[-1].metrics.get("tracklets", []) if jobs else []
    linked, n_false, n_paired = set(), 0, 0
    for tracklet in tracklets:
        streak_ids = tracklet.get("streak_ids", ())
        owners = [of.get(int(candid), 0) for candid in tracklet["dia_source_ids"]]
        owners += [trails.get(int(streak), 0) for streak in streak_ids]
        best = max(set(owners), key=owners.count) if owners else 0
        is_right = bool(best) and owners.count(best) >= (0.6 * len(owners) if streak_ids else 3)
        n_false += not is_right
        if is_right and len(owners) >= 2:
            n_paired += sum(trails.get(int(streak), 0) == best for streak in streak_ids)
            linked |= {best} if len(owners) >= 3 else set()
    found = {
        "asteroids found": f"{len(linked & linkable)} of {len(linkable)} that were bright enough in 3 or more images; "
        f"{n_false} false of {len(tracklets)} tracklets"
    }
    if trails:
        found["trails of asteroids"] = f"{len(trails)}, {n_paired} linked with other exposures"
    return found


def _detected_asteroids(image: Image) -> list[tuple[int, int]]:
    """Return (source id, dia_source_id) of the asteroids bright enough to be detected; 0 of those that were not."""
    assert image.dia_sources is not None
    true = image.truth.select(image.truth["kind"] == ASTEROID)
    limit = float(str(image.unit.metrics.get("difference_limiting_mag", "nan")))
    bright = true.select(true["mag"] < limit)
    index, distance = nearest(bright, image.dia_sources)
    is_found = distance < MATCH_ARCSEC + 0.5 * bright["trail"]
    ids = image.dia_sources["dia_source_id"]
    return [
        (int(number), int(ids[row]) if found else 0)
        for number, row, found in zip(bright["source_id"], index, is_found, strict=True)
    ]


def _trailed_asteroids(image: Image) -> dict[int, int]:
    """Return the asteroid (its source id) of each likely streak that has one at its middle."""
    streaks = image.unit.metrics.get("streaks", {})
    rows = streaks.get("likely", ()) if isinstance(streaks, dict) else ()
    true = image.truth.select(image.truth["kind"] == ASTEROID)
    places = unit_vectors(true["ra"], true["dec"])
    found = {}
    for row in rows:
        ends = unit_vectors(np.array([row["ra_1"], row["ra_2"]]), np.array([row["dec_1"], row["dec_2"]]))
        distance = separation_arcsec(places, ends.sum(axis=0) / np.linalg.norm(ends.sum(axis=0)))
        if distance.size and distance.min() < MATCH_ARCSEC + 0.25 * row["length"]:
            found[int(row["streak_id"])] = int(true["source_id"][int(np.argmin(distance))])
    return found
