"""Taking in raw files: each is ingested, already there, or refused with one clear reason."""

from __future__ import annotations

import os
import re
import shutil
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gueststar.cameras.translate import Translation, translate
from gueststar.core.errors import ConfigError, DataError, MissingInput, TransientError
from gueststar.formats.raw import pixel_checksum, read_headers
from gueststar.formats.raw_names import is_raw_name
from gueststar.model.exposure import ExposureInfo
from gueststar.store.ledger_rows import FileStatus
from gueststar.store.product_paths import digest_of
from gueststar.store.repo import SurveyRepo, Transfer

_FITS_NAME = re.compile(r"\.(fits|fit|fts)(\.(fz|gz|bz2))?$", re.IGNORECASE)

_SAME_TIME_S = 0.05
"""Files of one exposure may tell exposure times that differ by this."""

OnFile = Callable[[Path, FileStatus, str], None]
"""Called after each file: path, what became of it, reason."""


@dataclass(frozen=True)
class IngestSummary:
    """What became of the files."""

    ingested: int
    already: int
    refused: tuple[tuple[Path, str], ...]
    """Path and reason."""
    exposure_ids: tuple[int, ...] = ()
    """Exposures of the ingested files."""
    notes: tuple[tuple[Path, str], ...] = ()
    """Path and what was assumed, estimated or is to be measured."""


@dataclass(frozen=True)
class Outcome:
    """What became of one file."""

    status: FileStatus
    reason: str = ""
    exposure_id: int | None = None
    exposure_ids: tuple[int, ...] = ()
    """All of them where a file tells of several."""
    notes: tuple[str, ...] = ()


def ingest_paths(
    repo: SurveyRepo,
    paths: Iterable[Path | str],
    *,
    transfer: Transfer = "copy",
    on_file: OnFile | None = None,
) -> IngestSummary:
    """Take in raw files, and those in folders and their folders (.fits, .fit, .fts, .tif, .tiff; .fz, .gz, .bz2).

    A bad file never stops the others: it is refused, with its reason in the ledger, and a copy is kept in
    the repository's ``refused`` folder (unless ``transfer`` is ``direct``).
    """
    return ingest_each(
        paths, lambda path: ingest_file(repo, path, transfer=transfer), on_file=on_file, is_wanted=is_raw_name
    )


def ingest_each(
    paths: Iterable[Path | str],
    ingest: Callable[[Path], Outcome],
    *,
    on_file: OnFile | None,
    is_wanted: Callable[[Path], bool] | None = None,
) -> IngestSummary:
    """Apply ``ingest`` to every file (those in folders that are wanted: FITS by default) and sum up."""
    outcomes: list[tuple[Path, Outcome]] = []
    for path in files_under(paths, is_wanted=is_wanted or is_fits_name):
        outcomes.append((path, ingest(path)))
        if on_file is not None:
            on_file(path, outcomes[-1][1].status, outcomes[-1][1].reason)
    exposures = {
        number
        for _, outcome in outcomes
        if outcome.status is FileStatus.INGESTED
        for number in (outcome.exposure_id, *outcome.exposure_ids)
    }
    return IngestSummary(
        ingested=sum(outcome.status is FileStatus.INGESTED for _, outcome in outcomes),
        already=sum(outcome.status is FileStatus.ALREADY for _, outcome in outcomes),
        refused=tuple((path, outcome.reason) for path, outcome in outcomes if outcome.status is FileStatus.REFUSED),
        exposure_ids=tuple(sorted(number for number in exposures if number is not None)),
        notes=tuple((path, note) for path, outcome in outcomes for note in outcome.notes),
    )


def files_under(paths: Iterable[Path | str], *, is_wanted: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """Yield files as given and wanted (FITS) files within folders, in the order of their names, each once."""
    wanted, seen = is_wanted or is_fits_name, set[Path]()
    for given in paths:
        path = Path(given).absolute()
        inside = (item for item in sorted(path.rglob("*")) if wanted(item) and item.is_file())
        for item in inside if path.is_dir() else (path,):
            if item not in seen:
                seen.add(item)
                yield item


def is_fits_name(path: Path) -> bool:
    """Return whether a file is named as FITS files are, and not hidden (as half-copied files are)."""
    return _FITS_NAME.search(path.name) is not None and not path.name.startswith(".")


def ingest_file(repo: SurveyRepo, path: Path, *, transfer: Transfer = "copy", received: float | None = None) -> Outcome:
    """Take in one raw file; the ledger knows what became of it before this returns.

    ``received`` is when the file was there, whole (Unix time; None: now).
    """
    sha256, translation, checksum = "", None, None
    try:
        sha256 = _digest(path)
        if (known := ingested_before(repo, sha256)) is not None:
            repo.ledger.record_file(str(path), sha256, FileStatus.ALREADY, exposure_id=known, received=received)
            return Outcome(FileStatus.ALREADY, exposure_id=known)
        translation, checksum = _understand(repo, path)
        is_new = _is_new(repo, translation, checksum)
        if is_new:
            repo.ingest_raw(
                path, translation.info, translation.detector_ids, transfer=transfer, pixel_checksum=checksum,
                received=received,
            )  # fmt: skip
    except (DataError, MissingInput) as problem:
        info = translation.info if translation else None
        return refuse(
            repo, path, str(problem), sha256=sha256, info=info, checksum=checksum, transfer=transfer, received=received
        )
    for warning in translation.warnings:
        repo.ledger.event("ingest_warning", path.name, warning, exposure_id=translation.info.exposure_id)
    info = translation.info
    # A process killed before its last line leaves an exposure without its file's row: not "already" then.
    is_recorded = any(
        row.pixel_checksum == checksum
        for row in repo.ledger.files(exposure_id=info.exposure_id, status=FileStatus.INGESTED)
    )
    status = FileStatus.ALREADY if is_recorded and not is_new else FileStatus.INGESTED
    repo.ledger.record_file(
        str(path), sha256, status, pixel_checksum=checksum, exposure_id=info.exposure_id, day_obs=info.day_obs,
        received=received,
    )  # fmt: skip
    return Outcome(status, exposure_id=info.exposure_id)


def ingested_before(repo: SurveyRepo, sha256: str) -> int | None:
    """Return the exposure of a file with these bytes that was ingested, or None."""
    for row in repo.ledger.files(sha256=sha256, status=FileStatus.INGESTED):
        return row.exposure_id
    return None


def refuse(
    repo: SurveyRepo,
    path: Path,
    reason: str,
    *,
    sha256: str,
    info: ExposureInfo | None = None,
    checksum: str | None = None,
    transfer: Transfer,
    received: float | None = None,
) -> Outcome:
    """Keep a refused file and write its reason down."""
    line = " ".join(reason.split()).removeprefix(str(path)).lstrip(" :")
    if transfer != "direct" and sha256:
        _keep_refused(repo.root / "refused", path, sha256, line, is_linked=transfer == "link")
    repo.ledger.record_file(
        str(path), sha256, FileStatus.REFUSED, reason=line, pixel_checksum=checksum,
        exposure_id=info.exposure_id if info else None, day_obs=info.day_obs if info else None,
        received=received,
    )  # fmt: skip
    return Outcome(FileStatus.REFUSED, line, info.exposure_id if info else None)


def _digest(path: Path) -> str:
    try:
        return digest_of(path)
    except OSError as problem:
        raise DataError(f"{path} cannot be read: {problem.strerror or problem}") from None


def _understand(repo: SurveyRepo, path: Path) -> tuple[Translation, str]:
    """Return what a file's headers say and the checksum of its pixels.

    Nobody can foresee all that can be wrong with a file, so here, and only here, any failure of the
    readers is this file's: it is refused, and the diary keeps the traceback.
    """
    try:
        raw = read_headers(path)
        translation, checksum = translate(repo.camera, raw), pixel_checksum(path)
        is_lost = translation.info.observation_type == "science" and translation.info.ra is None
        if is_lost and repo.camera.has_sky:
            from gueststar.pipelines.blind import find_position

            translation = find_position(repo, translation, path)
        return translation, checksum
    except (DataError, ConfigError, MissingInput):
        raise
    except TransientError as problem:  # the disk, now: a later ingest tries again
        raise DataError(str(problem)) from problem
    except Exception as problem:
        repo.ledger.event("ingest_crash", path.name, traceback.format_exc())
        raise DataError(f"{path} cannot be understood: {type(problem).__name__}: {problem}") from problem


def _is_new(repo: SurveyRepo, translation: Translation, checksum: str) -> bool:
    """Return whether the file holds detectors that are not there; DataError if it contradicts what is."""
    info = translation.info
    known = repo.ledger.exposure(info.exposure_id)
    if known is None:
        return True
    for name in ("observation_type", "physical_filter", "exposure_s", "program"):
        ours, theirs = getattr(known.info, name), getattr(info, name)
        is_same = abs(ours - theirs) < _SAME_TIME_S if name == "exposure_s" else ours == theirs
        if not is_same:
            raise DataError(f"exposure {info.exposure_id} has {name} {ours!r} in its other files, {theirs!r} here")
    # Detectors without a checksum came in as a user's own products.
    there = {number: known for number, known in repo.ledger.pixel_checksums(info.exposure_id).items() if known}
    for detector in set(translation.detector_ids) - set(there):
        _check_not_entered(repo, info.exposure_id, detector)
    for detector in translation.detector_ids:
        if there.get(detector, checksum) != checksum:
            raise DataError(
                f"detector {detector} of exposure {info.exposure_id} is there already, with different pixels"
            )
    return not set(translation.detector_ids) <= set(there)


def _check_not_entered(repo: SurveyRepo, exposure_id: int, detector: int) -> None:
    """Raise DataError where a user's own image or sources stand for what the raw file would become."""
    for job in repo.ledger.jobs(exposure_id=exposure_id, detector=detector):
        if job.kind in ("science", "entry") and isinstance(job.inputs, dict) and "entered" in job.inputs:
            raise DataError(
                f"detector {detector} of exposure {exposure_id} is there as {job.inputs['entered']} "
                f"from {job.inputs['origin']}"
            )


def _keep_refused(folder: Path, path: Path, sha256: str, reason: str, *, is_linked: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"{sha256[:12]}-{path.name}"
    if not kept.exists():
        temporary = folder / f".{kept.name}"
        if is_linked and path.stat().st_size:  # an empty one may grow yet
            with suppress(OSError):
                os.link(path, temporary)
        if not temporary.exists():
            shutil.copyfile(path, temporary)
        os.replace(temporary, kept)
    kept.with_name(f"{kept.name}.reason").write_text(f"{path}: {reason}\n")
