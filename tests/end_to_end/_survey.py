"""A small simulated survey for end-to-end tests: the command line called in this process, and what came of it."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from gueststar.cli.main import main
from gueststar.store.detections.store import DetectionStore
from gueststar.store.products import PRODUCTS, DataId
from gueststar.store.repo import SurveyRepo

NAME_KEY = bytes(range(32))
"""The same secret in every repository, so that objects have the same ids and can be compared."""


@dataclass(frozen=True)
class Survey:
    """A processed repository and the simulation it was fed with."""

    root: Path
    sky: Path
    nights: tuple[int, ...]

    def raw_files(self, kind: str = "sci") -> list[Path]:
        """Return the simulated raw files of a kind, by time."""
        return sorted(self.sky.glob(f"raw/*/{kind}_*"))

    def truth(self, exposure: int) -> pd.DataFrame:
        """Return what was really on an exposure."""
        return pd.read_parquet(self.sky / "truth" / "observed" / f"{exposure}.parquet")


def gueststar(*words: object, status: int | None = 0) -> str:
    """Run a command in this process and return what it says; it must end with ``status`` (None: any)."""
    told, before = io.StringIO(), sys.argv
    sys.argv = ["gueststar", *map(str, words)]
    ended: object = 0
    try:
        with redirect_stdout(told), redirect_stderr(told):
            main()
    except SystemExit as end:
        ended = end.code or 0
    finally:
        sys.argv = before
    assert status is None or ended == status, f"{words} ended with {ended}:\n{told.getvalue()[-3000:]}"
    return told.getvalue()


def make_survey(root: Path, sky: Path, *files: Path, nightly: float = 0.0) -> None:
    """Make a repository with the simulation's reference catalog and ingest files.

    ``nightly`` is the fraction of the images that get artificial sources without being asked for.
    """
    gueststar("init", root, "--camera", "simcam")
    set_parameters(root, {"nightly_injection": {"fraction": nightly}})
    DetectionStore.at(root, name_key=NAME_KEY)
    gueststar("refcat", "import", root, sky / "refcat.parquet")
    if files:
        gueststar("ingest", root, *files, "--transfer", "link")


def set_parameters(root: Path, parameters: dict[str, dict[str, object]]) -> None:
    """Write parameters into a survey's settings, sections besides those that are there."""
    path = root / "survey.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["parameters"] = (settings.get("parameters") or {}) | parameters
    path.write_text(yaml.safe_dump(settings))


def product_digests(root: Path, *, but: frozenset[str] = frozenset()) -> dict[tuple[str, DataId, str], str]:
    """Return (product, data id, run of a calibration) -> SHA-256 of the file, of everything but raw and ``but``."""
    found = {}
    with SurveyRepo.open(root) as repo:
        for name in PRODUCTS:
            if name == "raw" or name in but:
                continue
            for ref in repo.find(name):
                key = (name, ref.data_id, ref.run if PRODUCTS[name].is_calibration else "")
                found[key] = hashlib.sha256(ref.path.read_bytes()).hexdigest()
    return found


def alert_digests(root: Path) -> dict[str, str]:
    """Return name -> SHA-256 of the segments of the alert log."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.glob("alerts/*/*/*.tar"))
    }


@contextmanager
def processing(root: Path, *options: str, script: str = "") -> Iterator[subprocess.Popen[str]]:
    """Run `gueststar process` as a process of its own, after ``script``, in its own group; end it if it still runs."""
    code = f"{script}\nfrom gueststar.cli.main import main\nmain()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "process", str(root), *options],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until(condition: object, process: subprocess.Popen[str], *, timeout_s: float = 600.0) -> None:
    """Wait until ``condition()`` holds; fail if the process ends before or time is up."""
    assert callable(condition)
    end = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def copied_survey(survey: Path, target: Path) -> Path:
    """Return a copy of a survey that nobody writes to now.

    Databases are copied by SQLite: who wrote them may hold them open, and what it wrote last is then in files beside
    them, which go when it lets go, in the middle of a copy perhaps.
    """

    def copy(source: str, copied: str) -> str:
        if Path(source).suffix not in (".sqlite", ".sqlite3"):
            return str(shutil.copy2(source, copied))
        with (
            closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as database,
            closing(sqlite3.connect(copied)) as other,
        ):
            database.backup(other)
        return copied

    beside = shutil.ignore_patterns("*-wal", "*-shm")
    return Path(shutil.copytree(survey, target, symlinks=True, ignore=beside, copy_function=copy))
