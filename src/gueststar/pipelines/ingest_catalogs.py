"""A user's own catalogs: which exposures their rows are of, and the rows as the survey's own catalogs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.time import Time
from numpy.typing import NDArray

from gueststar.algorithms.astrometry.tangent import tangent_deproject, tangent_project
from gueststar.cameras import header_facts
from gueststar.cameras.cards import Cards
from gueststar.cameras.header_position import boresight
from gueststar.core import ids, times
from gueststar.core.errors import DataError
from gueststar.formats.foreign_table import TIMES, ForeignTable, read_foreign_table
from gueststar.formats.raw import RawExtension, RawFile
from gueststar.model.camera import Camera
from gueststar.model.catalog import Catalog
from gueststar.model.columns import DIA_SOURCE, SOURCE
from gueststar.model.exposure import ExposureInfo
from gueststar.model.photocal import NJY_ZERO_POINT
from gueststar.model.rights import Program
from gueststar.model.visit import VisitRecord
from gueststar.pipelines.exposure_facts import exposure_of, with_cards
from gueststar.store.repo import SurveyRepo

LIMIT_CARDS = ("LIMMAG", "DIFFMAGLIM", "DIFMAGLI", "MAGLIM", "MAGLIMIT")
RELIABILITY_CARDS = ("RELIABILITY", "RELIABIL", "RB")
MARGIN_ARCSEC = 10.0
"""How far beyond its outermost detections an image is taken to reach where nothing tells its outline."""


@dataclass(frozen=True, eq=False)
class Entered:
    """What a user's file brings of one detector of one exposure."""

    info: ExposureInfo
    detector: int
    catalog: Catalog | None = None
    """Rows, of a catalog."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def catalog_entries(
    repo: SurveyRepo,
    product: str,
    path: Path,
    *,
    detector: int | None,
    cards: Mapping[str, Any],
    columns: Mapping[str, str],
) -> tuple[Entered, ...]:
    """Return a table's rows by exposure and detector; DataError names what is missing and how to tell it."""
    table = read_foreign_table(path, columns=columns)
    if table.n_rows == 0:
        raise DataError(f"{path} has no rows with a position")
    told = ", ".join(f"{ours} <- {theirs}" for ours, theirs in table.mapping.items())
    entries = []
    for info, number, rows in _exposures(repo, path, table, detector=detector, cards=cards):
        own = replace(table, columns={name: values[rows] for name, values in table.columns.items()})
        if product == "source":
            entries.append(Entered(info, number, _sources(own, info, number)))
        else:
            entries.append(_dia_entry(repo, path, own, info, number, {**cards, **table.cards}))
    first = replace(entries[0], notes=(f"columns {told}", *table.notes, *entries[0].notes))
    return (first, *entries[1:])


def _exposures(
    repo: SurveyRepo, path: Path, table: ForeignTable, *, detector: int | None, cards: Mapping[str, Any]
) -> Iterator[tuple[ExposureInfo, int, NDArray[np.intp]]]:
    """Yield exposure, detector and rows: from columns of the table, else from its cards."""
    columns, everything = table.columns, np.arange(table.n_rows)
    visits = columns.get("visit", np.full(table.n_rows, table.cards.get("VISIT", -1)))
    detectors = columns.get("detector", np.full(table.n_rows, table.cards.get("DETECTOR", -1)))
    if detector is not None:
        detectors = np.full(table.n_rows, detector)
    known = {int(v): row.info for v in np.unique(visits) if v > 0 and (row := repo.ledger.exposure(int(v))) is not None}
    has_times = any(name in columns for name in TIMES)
    if len(known) == np.unique(visits).size:
        for visit, number in sorted({(int(v), int(d)) for v, d in zip(visits, detectors, strict=True)}):
            yield (
                known[visit],
                _detector(repo.camera, path, number),
                np.flatnonzero((visits == visit) & (detectors == number)),
            )
    elif has_times:
        yield from _by_time(repo.camera, path, table, detectors, {**cards, **table.cards})
    elif (visits > 0).any():
        absent = next(int(v) for v in np.unique(visits) if int(v) not in known)
        raise DataError(
            f"{path} is of exposure {absent}, which is not in the repository; tell its time: --columns mjd_utc=NAME"
        )
    elif not any(key in {**cards, **table.cards} for key in repo.camera.header.time.keywords):
        raise DataError(
            f"{path} tells no time of its exposures: --columns mjd_utc=NAME (or mjd_tai, mjd_start, jd_utc, date_obs)"
        )
    else:
        header = RawFile(path, dict(table.cards), (RawExtension(0, "", dict(table.cards), None),))
        info, number = exposure_of(repo.camera, with_cards(header, cards), detector=detector)
        yield info, number, everything


def _detector(camera: Camera, path: Path, number: int) -> int:
    if number < 0:
        if len(camera.detectors) > 1:
            raise DataError(f"{path} does not tell its detector: --detector ID, or --columns detector=NAME")
        number = camera.detectors[0].id
    if number not in camera.detectors_by_id:
        raise DataError(f"{path} is of detector {number}, which {camera.name} does not have")
    return number


def _by_time(
    camera: Camera, path: Path, table: ForeignTable, detectors: NDArray[Any], cards: Mapping[str, Any]
) -> Iterator[tuple[ExposureInfo, int, NDArray[np.intp]]]:
    """Yield the exposures that a column of times tells apart."""
    stated = Cards(str(path), cards, camera.header.numbers_as_strings)
    name = next(name for name in TIMES if name in table.columns)
    moments = table.columns[name]
    if "exposure_s" in table.columns:
        lengths = table.columns["exposure_s"].astype(np.float64)
    else:
        lengths = np.full(table.n_rows, header_facts.exposure_time(camera, stated, "science"))
    starts = _starts(path, name, moments, lengths)
    numbers = np.round((starts - 50000.0) * 8_640_000.0).astype(np.int64)
    for exposure, number in sorted({(int(e), int(d)) for e, d in zip(numbers, detectors, strict=True)}):
        rows = np.flatnonzero((numbers == exposure) & (detectors == number))
        info = _info(camera, path, table, rows, float(starts[rows[0]]), float(lengths[rows[0]]), stated)
        yield info, _detector(camera, path, number), rows


def _starts(path: Path, name: str, moments: NDArray[Any], lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the starts of the exposures, MJD TAI."""
    try:
        if name == "mjd_tai":
            starts = moments - lengths / 2.0 / 86400.0
        elif name == "mjd_start":
            starts = moments
        else:
            form = {"mjd_utc": "mjd", "jd_utc": "jd", "date_obs": "isot"}[name]
            values = [str(m).strip().rstrip("Z") for m in moments] if form == "isot" else moments
            starts = Time(values, format=form, scale="utc").tai.mjd
    except ValueError as problem:
        raise DataError(f"{path}: {name} {moments[0]!r} is no time: {' '.join(str(problem).split())[:80]}") from None
    starts = np.asarray(starts, dtype=np.float64)
    if bad := [float(m) for m, s in zip(moments, starts, strict=True) if not 45000.0 < s < 100000.0]:
        raise DataError(f"{path}: {name} {bad[0]} is no time of an exposure")
    return starts


def _info(
    camera: Camera, path: Path, table: ForeignTable, rows: NDArray[np.intp], start: float, length: float, cards: Cards
) -> ExposureInfo:
    """Return the facts of one exposure: from columns, else from cards."""
    columns = {
        name: table.columns[name][rows[0]]
        for name in ("filter", "band_id", "program", "field")
        if name in table.columns
    }
    if "filter" in columns:
        glass = camera.filter_named(str(columns["filter"]))
    elif "band_id" in columns:
        glass = next((item for item in camera.filters if item.fid == int(columns["band_id"])), None)
    else:
        glass = header_facts.filter_used(camera, cards)
    if glass is None:
        told = columns.get("filter", columns.get("band_id"))
        raise DataError(
            f"{path}: filter {str(told)!r} is unknown to {camera.name}, "
            f"which has {[item.physical_filter for item in camera.filters]}"
        )
    program = Program(int(columns["program"])) if "program" in columns else header_facts.program(camera, cards)[0]
    pointing = boresight(cards, camera.header) or _middle(table.columns["ra"][rows], table.columns["dec"][rows])
    return ExposureInfo(
        camera=camera.name, observation_type="science", mjd_start=start, exposure_s=length,
        day_obs=times.day_obs(start, longitude_deg=camera.site.longitude_deg), program=program,
        physical_filter=glass.physical_filter, band=glass.band, ra=pointing[0], dec=pointing[1],
        field=int(columns["field"]) if "field" in columns and columns["field"] > 0 else None,
    )  # fmt: skip


def _middle(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean place of points on the sky, degrees."""
    a, d = np.radians(ra), np.radians(dec)
    x, y, z = (np.mean(part) for part in (np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)))
    return float(np.degrees(np.arctan2(y, x)) % 360.0), float(np.degrees(np.arctan2(z, np.hypot(x, y))))


def _sources(table: ForeignTable, info: ExposureInfo, detector: int) -> Catalog:
    """Return the rows as a source catalog."""
    filled: dict[str, Any] = {"source_id": ids.source_ids(info.exposure_id, detector, table.n_rows)}
    return SOURCE.catalog(filled | _filled(table, SOURCE.columns[1:]))


def _filled(table: ForeignTable, columns: Any) -> dict[str, Any]:
    """Return columns of a schema, NaN or 0 where the table has none."""
    n = table.n_rows
    return {
        column.name: table.columns.get(column.name, np.full(n, np.nan if column.dtype.startswith("f") else 0))
        for column in columns
    }


def _dia_entry(
    repo: SurveyRepo, path: Path, table: ForeignTable, info: ExposureInfo, number: int, cards: Mapping[str, Any]
) -> Entered:
    """Return the rows as detections on a difference image, numbered as the wire numbers them."""
    camera, stated = repo.camera, Cards(str(path), cards, repo.camera.header.numbers_as_strings)
    detector, glass = camera.detector(number), camera.filter_named(info.physical_filter or "")
    assert glass is not None
    flux = table.columns["psf_flux"].astype(np.float64)
    is_positive = table.columns.get("is_positive", flux > 0).astype(bool)
    flux = np.where(is_positive, np.abs(flux), -np.abs(flux))
    snr = np.where(is_positive, 1.0, -1.0) * np.abs(table.columns["snr"].astype(np.float64))
    n, notes = table.n_rows, []
    filled = _filled(table, DIA_SOURCE.columns)
    reliability = filled["reliability"].astype(np.float64)
    if not np.isfinite(reliability).any():
        score = stated.number(RELIABILITY_CARDS)
        reliability = np.full(n, np.nan if score is None else score)
        if score is None:
            notes.append(
                "no reliability: objects are made but no alerts; --columns reliability=NAME or --set RELIABILITY=1"
            )
    error, is_assumed = _position_errors(table, camera, snr)
    notes += ["position errors are taken from width and signal to noise"] if is_assumed else []
    filled |= {
        "dia_source_id": _candids(path, ids.wire_pid(info.mjd_start, detector.rcid), is_positive, np.abs(snr)),
        "visit": np.full(n, info.exposure_id), "detector": np.full(n, number), "mjd_tai": np.full(n, info.mjd_tai),
        "band_id": np.full(n, glass.fid), "program": np.full(n, int(info.program)),
        "is_positive": is_positive, "psf_flux": flux, "snr": snr, "reliability": reliability,
        "ra_err": error[0], "dec_err": error[1], "dia_object_id": np.zeros(n, np.int64),
    }  # fmt: skip
    corners, is_outline_known = _corners(camera, table, info, number, stated)
    notes += [] if is_outline_known else ["the image's outline is taken from its detections: few upper limits are told"]
    record = VisitRecord(
        visit=info.exposure_id, detector=number, mjd_start=info.mjd_start, exposure_s=info.exposure_s,
        day_obs=info.day_obs, program=int(info.program), band_id=glass.fid, rcid=detector.rcid,
        limiting_mag=_limit(path, table, stated), zero_point=NJY_ZERO_POINT,
        pixel_scale=camera.pixel_scale_arcsec, **corners, field=info.field or 0,
        principal_investigator=info.principal_investigator, difference_name=path.name,
        reliability_version="given",
    )  # fmt: skip
    unknown: dict[str, Any] = {"reference_id": 0, "mjd_first": None, "mjd_last": None, "n_exposures": 0, "epochs": []}
    metrics = {
        "n_candidates": n, "difference_limiting_mag": record.limiting_mag, "reference": unknown,
        "vetting": {"version": "given", "network_version": "", "n_reliable": int((reliability >= 0.5).sum())},
        "visit_record": asdict(record),
    }  # fmt: skip
    return Entered(info, number, DIA_SOURCE.catalog(filled), metrics, tuple(notes))


def _candids(
    path: Path, pid: int, is_positive: NDArray[np.bool_], significance: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return candids: serial numbers within each sign, by falling significance."""
    numbers = np.zeros(is_positive.size, np.int64)
    for sign in (True, False):
        rows = np.flatnonzero(is_positive == sign)
        if rows.size > ids.MAX_PER_SIGN:
            raise DataError(
                f"{path} has {rows.size} detections of one sign on one image; candids end at {ids.MAX_PER_SIGN}"
            )
        for serial, row in enumerate(rows[np.argsort(-np.nan_to_num(significance[rows]), kind="stable")]):
            numbers[row] = ids.wire_candid(pid, is_positive=sign, serial=serial)
    return numbers


def _position_errors(
    table: ForeignTable, camera: Camera, snr: NDArray[np.float64]
) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], bool]:
    """Return errors in RA and Dec, arcsec: as told, else of a point source of the camera's usual width."""
    width = camera.typical_fwhm_arcsec / 2.3548
    usual = np.maximum(width / np.maximum(np.nan_to_num(np.abs(snr), nan=5.0), 1.0), 0.02 * camera.typical_fwhm_arcsec)
    told = [table.columns.get(name, np.full(usual.size, np.nan)).astype(np.float64) for name in ("ra_err", "dec_err")]
    good = [np.isfinite(values) & (values > 0) for values in told]
    filled = [np.where(is_good, values, usual) for is_good, values in zip(good, told, strict=True)]
    return (filled[0], filled[1]), not all(is_good.all() for is_good in good)


def _limit(path: Path, table: ForeignTable, cards: Cards) -> float:
    """Return the 5-sigma limit of the image: as told, else from the errors of the fluxes."""
    if "limiting_mag" in table.columns:
        return float(np.median(table.columns["limiting_mag"]))
    if (told := cards.number(LIMIT_CARDS)) is not None:
        return told
    errors = table.columns["psf_flux_err"].astype(np.float64)
    errors = errors[np.isfinite(errors) & (errors > 0)]
    if errors.size == 0:
        raise DataError(
            f"{path} tells neither errors nor a limiting magnitude: --columns psf_flux_err=NAME, or --set LIMMAG=20.5"
        )
    return float(NJY_ZERO_POINT - 2.5 * np.log10(5.0 * np.median(errors)))


def _corners(
    camera: Camera, table: ForeignTable, info: ExposureInfo, number: int, cards: Cards
) -> tuple[dict[str, Any], bool]:
    """Return the corners of the image, and whether a pointing told them (else the detections do)."""
    pointing = boresight(cards, camera.header)
    if pointing is not None:
        detector = camera.detector(number)
        wcs = camera.nominal_wcs(detector, ra=pointing[0], dec=pointing[1], rotation_deg=info.rotation_deg)
        ra, dec = wcs.corners(detector.shape)
    else:
        ra_0, dec_0 = _middle(table.columns["ra"], table.columns["dec"])
        xi, eta = tangent_project(table.columns["ra"], table.columns["dec"], ra0=ra_0, dec0=dec_0)
        margin = MARGIN_ARCSEC / 3600.0
        west, east, south, north = xi.min() - margin, xi.max() + margin, eta.min() - margin, eta.max() + margin
        ra, dec = tangent_deproject(
            np.array([west, east, east, west]), np.array([south, south, north, north]), ra0=ra_0, dec0=dec_0
        )
    named: dict[str, Any] = {f"ra_{k + 1}": float(ra[k]) for k in range(4)}
    return named | {f"dec_{k + 1}": float(dec[k]) for k in range(4)}, pointing is not None
