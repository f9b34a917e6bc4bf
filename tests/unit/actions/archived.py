"""A tiny survey with products and an archive beside it."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from gueststar.model.columns import SOURCE
from gueststar.store.archive.archive import Archive
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo
from gueststar.store.settings import SurveySettings

LONG_AGO = time.time() - 400 * 86400


def with_archive(repo: SurveyRepo, folder: Path, **disks: object) -> Path:
    """Name a folder the archive of a repository; return it."""
    repo.settings = SurveySettings(
        name=repo.settings.name, operation={"disks": {"archive": folder, "reserve_gb": 0.0, **disks}}
    )
    return folder


def put_file(repo: SurveyRepo, night: int, content: bytes, *, kind: str = "science_image") -> str:
    """Put a file as products are stored, named by its content; return its path in the repository."""
    digest = hashlib.sha256(content).hexdigest()
    path = repo.root / "products" / kind / str(night) / f"{kind}_1_0-{digest[:12]}.fits"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path.relative_to(repo.root).as_posix()


def fill(repo: SurveyRepo, exposure, write_raw, make_image) -> dict[str, bytes]:
    """Take in a raw file and make products of a night; return path -> content of all files that are archived."""
    info = exposure()
    repo.ingest_raw(write_raw(), info, [0, 1])
    which = DataId(visit=info.exposure_id, detector=0)
    repo.put("science_image", which, make_image(1))
    repo.put("source", which, SOURCE.empty())
    folders = ("products/*/*", "alerts/*/*")
    files = [path for folder in folders for path in repo.root.glob(f"{folder}/*") if path.is_file()]
    for path in files:
        os.utime(path, (LONG_AGO, LONG_AGO))
        os.utime(path.parent, (LONG_AGO, LONG_AGO))
    return {path.relative_to(repo.root).as_posix(): path.read_bytes() for path in files}


def archived_all(repo: SurveyRepo) -> Archive:
    """Bring the archive up to date and return it."""
    archive = Archive(repo)
    assert archive.update().left == ""
    return archive
