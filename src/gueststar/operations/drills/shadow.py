"""A world for rehearsals from a real survey: its last two nights, in a copy that shares nothing with it but bytes.

The earlier night makes the references; the last one is rehearsed, its exposures following each other faster than
they did. The survey itself is only read: raw files and reference catalogs are linked, everything else is made anew.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from gueststar.core import times
from gueststar.core.errors import ConfigError
from gueststar.operations.drills.world import NAME_KEY, Plan, World, change_settings, gueststar, read_world, write_world
from gueststar.store.detections.store import DetectionStore
from gueststar.store.repo import SurveyRepo

NEVER_COPIED = ("database", "stream", "operation", "filters")
"""Settings that reach out of the survey: a rehearsal has none of them."""


def make_shadow(survey: Path, folder: Path, *, every_s: float = 5.0) -> World:
    """Make a world of the last two nights of a survey; ConfigError if it has only one."""
    if (folder / "files.json").exists():
        return read_world(folder)
    with SurveyRepo.open(survey) as repo:
        rows = repo.ledger.exposures()
        nights = sorted({row.info.day_obs for row in rows if row.info.observation_type == "science"})
        if len(nights) < 2:
            raise ConfigError(f"{survey} has {len(nights)} nights; a rehearsal on it needs two: one makes references")
        before, night = nights[-2:]
        files = {number: _link_raw(repo, folder / "sky" / "raw" / str(number), number) for number in (before, night)}
        camera = yaml.safe_dump(repo.camera.model_dump(mode="json"), sort_keys=False)
    detectors = tuple(sorted({detector for row in rows if row.info.day_obs == night for detector in row.detectors}))
    world = World(folder, Plan(detectors=detectors, every_s=every_s), night)
    (folder / "camera.yaml").write_text(camera)
    _make_evening(survey, world, before)
    write_world(world, _paced(files[night], folder, every_s))
    return world


def _link_raw(repo: SurveyRepo, target: Path, night: int) -> list[tuple[Path, float, bool]]:
    """Link the raw files of a night, each once; return (path, Unix time of the shutter's closing, on the sky?)."""
    target.mkdir(parents=True, exist_ok=True)
    found: dict[int, tuple[Path, float, bool]] = {}
    infos = {row.id: row.info for row in repo.ledger.exposures(day_obs=night)}
    for ref in repo.find("raw", day_obs=night):
        info = infos[ref.data_id.exposure or 0]
        inode = ref.path.stat().st_ino  # a file of several detectors lies there under several names
        if inode not in found:
            _linked(ref.path, target / ref.path.name)
            closed = times.unix(info.mjd_tai) + info.exposure_s / 2.0
            found[inode] = (target / ref.path.name, closed, info.observation_type == "science")
    return sorted(found.values(), key=lambda item: (item[2], item[1]))


def _linked(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source.resolve())
    except OSError:  # another file system
        shutil.copyfile(source, target)


def _make_evening(survey: Path, world: World, before: int) -> None:
    root = world.evening
    gueststar("init", root, "--camera", world.folder / "camera.yaml")
    DetectionStore.at(root, name_key=NAME_KEY).close()
    settings = yaml.safe_load((survey / "survey.yaml").read_text()) or {}
    change_settings(root, {key: value for key, value in settings.items() if key not in NEVER_COPIED})
    change_settings(root, {"parameters": {"nightly_injection": {"fraction": 0.0}}})
    shutil.copytree(survey / "refcats", root / "refcats", dirs_exist_ok=True)
    gueststar("ingest", root, world.sky / "raw" / str(before), "--transfer", "link")
    gueststar("process", root, "--night", before)


def _paced(files: list[tuple[Path, float, bool]], folder: Path, every_s: float) -> list[dict[str, Any]]:
    """Return the rows of a world's list of files; exposures follow each other every ``every_s``."""
    begins = min((closed for _, closed, is_science in files if is_science), default=0.0)
    rows: list[dict[str, Any]] = []
    n_science = 0
    for path, closed, is_science in files:
        moment = begins + n_science * every_s if is_science else closed
        n_science += is_science
        rows.append({"path": str(path.relative_to(folder)), "shutter_closed": moment, "is_science": is_science})
    return rows
