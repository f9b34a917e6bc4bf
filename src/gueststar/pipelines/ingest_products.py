"""Taking in a user's own products: calibrated images, difference images, catalogs.

They enter at the stage that would have made them, and the ledger holds a job of that stage whose input is the
user's file: `gueststar process` completes what the file does not tell and goes on from there. The facts of the
exposure come from the metadata of gueststar's own files, else from the header cards that the camera's
raw files carry too.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gueststar.core.errors import ConfigError, DataError
from gueststar.formats.calibrated_image import is_calibrated_image, read_calibrated_image
from gueststar.formats.foreign_image import PLANES, read_foreign_image
from gueststar.formats.raw import read_headers
from gueststar.model.exposure import ExposureInfo
from gueststar.pipelines.exposure_facts import exposure_of, with_cards
from gueststar.pipelines.ingest import (
    IngestSummary,
    OnFile,
    Outcome,
    ingest_each,
    ingested_before,
    is_fits_name,
    refuse,
)
from gueststar.pipelines.ingest_catalogs import Entered, catalog_entries
from gueststar.store.ledger_rows import FileStatus, Job, JobState
from gueststar.store.product_paths import digest_of
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo, Transfer

OwnProduct = Literal["science_image", "difference_image", "source", "dia_source"]
"""What can be taken in besides raw files."""

IMAGES = ("science_image", "difference_image")
CATALOGS = ("source", "dia_source")
_TABLE_ENDINGS = (".csv", ".ecsv", ".parquet", ".parq", ".vot", ".votable", ".xml", ".cat")


@dataclass(frozen=True)
class EntryOptions:
    """What a person tells about files that do not tell it themselves."""

    detector: int | None = None
    """The detector that all of them are from."""
    cards: Mapping[str, Any] = field(default_factory=dict)
    """Header cards of all of them, where a file lacks them."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Catalogs: our name of a column -> the file's."""
    companions: Mapping[str, str] = field(default_factory=dict)
    """Images: what a plane is (a key of `PLANES`) -> name of the file beside it, ``{stem}`` being the image's."""
    transfer: Transfer = "copy"


def ingest_products(
    repo: SurveyRepo,
    product: str,
    paths: Iterable[Path | str],
    *,
    options: EntryOptions = EntryOptions(),
    on_file: OnFile | None = None,
) -> IngestSummary:
    """Take in a user's files as ``science_image``, ``difference_image``, ``source`` or ``dia_source``.

    A file that cannot be used is refused with a reason, and never stops the others. ConfigError for
    options that make no sense.
    """
    if product not in (*IMAGES, *CATALOGS):
        raise ConfigError(f"{product} cannot be taken in; {', '.join((*IMAGES, *CATALOGS))} can")
    if foreign := [name for name in options.companions if name not in PLANES]:
        raise ConfigError(f"there is no plane {foreign[0]!r}; there are {', '.join(PLANES)}")
    is_table: Callable[[Path], bool] = lambda path: is_fits_name(path) or path.suffix.lower() in _TABLE_ENDINGS  # noqa: E731
    return ingest_each(
        paths, lambda path: _ingest_one(repo, product, path, options), on_file=on_file,
        is_wanted=is_table if product in CATALOGS else None,
    )  # fmt: skip


def _ingest_one(repo: SurveyRepo, product: str, path: Path, options: EntryOptions) -> Outcome:
    sha256 = ""
    info: ExposureInfo | None = None
    try:
        if not path.is_file():
            raise DataError(f"{path} is not there")
        sha256 = digest_of(path)
        if (known := ingested_before(repo, sha256)) is not None:
            repo.ledger.record_file(str(path), sha256, FileStatus.ALREADY, exposure_id=known)
            return Outcome(FileStatus.ALREADY, exposure_id=known)
        entries = _understood(repo, product, path, options)
        info = entries[0].info
        for entry in entries:
            _check_free(repo, product, entry, sha256)
    except DataError as problem:
        return refuse(repo, path, str(problem), sha256=sha256, info=info, transfer="direct")
    companions = _companions(path, options)
    kept = _kept(repo, path, entries[0].info, options.transfer)
    inputs = {
        "entered": product, "file": kept, "origin": str(path), "sha256": sha256, "cards": dict(options.cards),
        "companions": {name: _kept(repo, beside, entries[0].info, options.transfer)
                       for name, beside in companions.items()},
    }  # fmt: skip
    for entry in entries:
        _store(repo, product, entry, inputs)
    first = entries[0].info
    repo.ledger.record_file(
        str(path), sha256, FileStatus.INGESTED, exposure_id=first.exposure_id, day_obs=first.day_obs
    )
    notes = tuple(dict.fromkeys(note for entry in entries for note in entry.notes))
    return Outcome(
        FileStatus.INGESTED, exposure_id=first.exposure_id, notes=notes,
        exposure_ids=tuple(entry.info.exposure_id for entry in entries),
    )  # fmt: skip


def _kept(repo: SurveyRepo, path: Path, info: ExposureInfo, transfer: Transfer) -> str:
    """Bring a file into the repository; return where it is, relative to the repository if it is inside."""
    kept = repo.keep_entered(path, info, transfer=transfer)
    return str(kept.relative_to(repo.root)) if kept.is_relative_to(repo.root) else str(kept)


def _companions(path: Path, options: EntryOptions) -> dict[str, Path]:
    """Return the files of further planes; DataError if one is not there."""
    stem = path.name
    for ending in (".fz", ".gz", ".bz2", ".fits", ".fit", ".fts"):
        stem = stem.removesuffix(ending)
    found = {name: path.parent / template.replace("{stem}", stem) for name, template in options.companions.items()}
    if absent := [str(beside) for beside in found.values() if not beside.is_file()]:
        raise DataError(f"{path}: its companion {absent[0]} is not there")
    return found


def _understood(repo: SurveyRepo, product: str, path: Path, options: EntryOptions) -> tuple[Entered, ...]:
    """Return what a file brings; whatever fails is the file's fault."""
    try:
        if product in CATALOGS:
            return catalog_entries(
                repo, product, path, detector=options.detector, cards=options.cards, columns=options.columns
            )
        return (_image_entry(repo, product, path, options),)
    except (DataError, ConfigError):
        raise
    except Exception as problem:
        repo.ledger.event("ingest_crash", path.name, traceback.format_exc())
        raise DataError(f"{path} cannot be understood: {type(problem).__name__}: {problem}") from problem


def _image_entry(repo: SurveyRepo, product: str, path: Path, options: EntryOptions) -> Entered:
    """Read an image once, so that what cannot be used is refused now; `gueststar process` reads it again."""
    camera = repo.camera
    if is_calibrated_image(path):
        image = read_calibrated_image(path)
        facts, number = image.metadata.get("exposure"), image.metadata.get("detector", options.detector)
        if facts is None or number is None:
            raise DataError(f"{path}: its metadata do not tell the {'exposure' if facts is None else 'detector'}")
        _check_shape(path, image.shape, camera.detector(int(number)).shape, int(number), camera.name)
        return Entered(ExposureInfo.from_dict(facts), int(number))
    raw = with_cards(read_headers(path), options.cards)
    info, number = exposure_of(camera, raw, detector=options.detector)
    found = read_foreign_image(
        path, exposure_s=info.exposure_s, band=info.band or "", cards=options.cards,
        role="science" if product == "science_image" else "difference", companions=_companions(path, options),
    )  # fmt: skip
    _check_shape(path, found.pixels.shape, camera.detector(number).shape, number, camera.name)
    notes = list(found.notes)
    if product == "difference_image":
        _check_difference(repo, path, info, number, found)
    else:
        told = {"WCS": found.wcs, "zero point": found.photocal, "PSF": found.psf}
        missing = [name for name, value in told.items() if value is None]
        notes += [f"{', '.join(missing)} will be measured"] if missing else []
    return Entered(info, number, notes=tuple(notes))


def _check_shape(path: Path, shape: tuple[int, ...], expected: tuple[int, int], number: int, camera: str) -> None:
    if shape != expected:
        raise DataError(f"{path} is {shape} but detector {number} of {camera} is {expected}")


def _check_difference(repo: SurveyRepo, path: Path, info: ExposureInfo, number: int, found: Any) -> None:
    """Raise DataError where a difference image lacks what nothing here can measure."""
    from gueststar.pipelines.night.entry_difference import NO_PSF, known_frame

    known_frame(str(path), found.wcs, found.photocal)
    has_science = "science" in found.beside or repo.ledger.jobs(
        kind="science", exposure_id=info.exposure_id, detector=number
    )
    if found.psf is None and not has_science:
        raise DataError(f"{path} {NO_PSF}")


def _job_of(product: str, entry: Entered) -> tuple[str, dict[str, Any]]:
    """Return kind and key of the job that would have made the product."""
    exposure, detector = entry.info.exposure_id, entry.detector
    if product == "science_image":
        return "science", {"exposure": exposure, "detector": detector}
    if product == "source":
        return "entry", {"exposure": exposure, "detector": detector, "product": product}
    return "difference", {"visit": exposure, "detector": detector}


def _existing(repo: SurveyRepo, kind: str, entry: Entered) -> Job | None:
    jobs = repo.ledger.jobs(kind=kind, exposure_id=entry.info.exposure_id, detector=entry.detector)
    return jobs[0] if jobs else None


_WHAT = {"science": "science image", "difference": "difference", "entry": "source catalog"}


def _check_free(repo: SurveyRepo, product: str, entry: Entered, sha256: str) -> None:
    """Raise DataError where the exposure has contradicting facts or this product of it is there already."""
    number, place = entry.info.exposure_id, DataId(exposure=entry.info.exposure_id, detector=entry.detector)
    row = repo.ledger.exposure(number)
    if row is not None:
        for name in ("observation_type", "physical_filter", "program"):
            ours, theirs = getattr(row.info, name), getattr(entry.info, name)
            if ours != theirs:
                raise DataError(f"exposure {number} has {name} {ours!r} in its other files, {theirs!r} here")
    kind, _ = _job_of(product, entry)
    if kind != "difference" and repo.exists("raw", place):
        raise DataError(
            f"detector {entry.detector} of exposure {number} is there as a raw file, which is calibrated here"
        )
    if kind == "entry" and _existing(repo, "science", entry) is not None:
        raise DataError(
            f"detector {entry.detector} of exposure {number} has a science image, whose sources are measured here"
        )
    job = _existing(repo, kind, entry)
    told = job.inputs if job is not None and isinstance(job.inputs, dict) else {}
    if job is None or told.get("sha256") == sha256 or ("entered" not in told and job.state is not JobState.DONE):
        return
    origin = f"from {told['origin']}" if "origin" in told else "made by the survey"
    raise DataError(f"detector {entry.detector} of exposure {number} has a {_WHAT[kind]} already, {origin}")


def _store(repo: SurveyRepo, product: str, entry: Entered, inputs: dict[str, Any]) -> None:
    """Make exposure and job known; a catalog's rows are stored at once, as there is nothing to compute."""
    info = repo.add_exposure(entry.info, [entry.detector])
    for note in entry.notes:
        repo.ledger.event("ingest_warning", Path(inputs["origin"]).name, note, exposure_id=info.exposure_id)
    kind, key = _job_of(product, entry)
    facts: dict[str, Any] = {"exposure_id": info.exposure_id, "detector": entry.detector, "day_obs": info.day_obs}
    job = repo.ledger.submit(kind, key, inputs=inputs, **facts)
    known = repo.ledger.job(job)
    if known is not None and (known.inputs or {}).get("sha256") != inputs["sha256"]:
        repo.ledger.supply(job, inputs)
    if entry.catalog is not None:
        which = DataId(visit=info.exposure_id, detector=entry.detector)
        repo.commit([repo.stage(product, which, entry.catalog)])
        if repo.ledger.start(job, worker="ingest"):
            metrics = dict(entry.metrics)
            if "visit_record" in metrics:
                metrics["visit_record"] = {**metrics["visit_record"], "field": info.field or 0}
            repo.ledger.finish(job, {**metrics, "entered": {"file": inputs["origin"], "notes": list(entry.notes)}})
    repo.ledger.settle_exposure(info.exposure_id)
