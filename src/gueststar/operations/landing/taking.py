"""From a landing place into the repository, and what becomes of the file that landed."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from gueststar.core.errors import DataError, GueststarError
from gueststar.formats.raw import pixel_checksum
from gueststar.operations.landing.journal import ArrivedFile
from gueststar.pipelines.ingest import Outcome, ingest_file
from gueststar.store.ledger import FileStatus
from gueststar.store.operation_settings import LandingPlace
from gueststar.store.product_paths import digest_of
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo

LOG = logging.getLogger(__name__)


def take_raw(repo: SurveyRepo, file: ArrivedFile, place: LandingPlace) -> Outcome:
    """Take a raw file in; its receipt is when it was whole. The ledger knows what became of it."""
    return ingest_file(repo, file.path, transfer=place.transfer, received=file.received)


def remove_taken(repo: SurveyRepo, file: ArrivedFile, outcome: Outcome) -> bool:
    """Remove a file that landed if the repository holds it, verified now; return whether it did.

    Raises OSError where the landing place does not let it.
    """
    if outcome.status is FileStatus.REFUSED or outcome.exposure_id is None:
        return False
    try:
        is_held = is_held_by(repo, file.path, outcome.exposure_id)
    except GueststarError as problem:
        LOG.warning("%s stays: %s", file.path, problem)
        return False
    if not is_held:
        LOG.warning("%s stays: the repository's copy is not the same", file.path)
        return False
    file.path.unlink()
    for ending in (".sha256", ".md5"):
        file.path.with_name(file.path.name + ending).unlink(missing_ok=True)
    return True


def is_held_by(repo: SurveyRepo, path: Path, exposure: int) -> bool:
    """Return whether the repository holds a file's bytes, or its pixels, as a file of its own; both are read now."""
    row = repo.ledger.exposure(exposure)
    found = [
        ref.path for detector in (row.detectors if row else ())
        if (ref := repo.find_one("raw", DataId(exposure=exposure, detector=detector))) is not None
    ]  # fmt: skip
    copies = {stored.resolve() for stored in found} - {path.resolve()}
    if not copies:
        return False
    if any(os.path.samefile(copy, path) for copy in copies):  # a hard link: the bytes have another name
        return True
    digest = digest_of(path)
    if any(digest_of(copy) == digest for copy in copies):
        return True
    pixels = pixel_checksum(path)
    return any(_pixels_of(copy) == pixels for copy in copies)


def _pixels_of(path: Path) -> str:
    try:
        return pixel_checksum(path)
    except DataError:
        return ""
