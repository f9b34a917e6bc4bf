"""The world of a rehearsal: a small sky, a survey that has its references, and raw files that are yet to come.

Everything here is real: pixels are simulated and processed by the public commands. It is small, so that a night
takes seconds: `sky/camera.yaml` has detectors of 320 pixels.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from gueststar.core.errors import TransientError
from gueststar.store.detections.store import DetectionStore
from gueststar.store.settings import read_settings

NAME_KEY = bytes(range(32))
"""The same secret in every survey of a rehearsal: the same sky gives the same identifiers, which can be compared."""

FIRST_NIGHT, NIGHT = "2025-03-27", 20250402
"""The night of the references, and the night that is rehearsed."""

DAYS_BETWEEN = 6

PARAMETERS = {"nightly_injection": {"fraction": 0.0}, "reference_selection": {"max_epochs": 5}}
"""A rehearsed night's references stay as they were in the evening, and nothing is added to its images."""


_IN_TURN = """
import json, sys
from gueststar.cli.main import main
for words in json.loads(sys.argv.pop()):
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""
"""A program that runs the commands that are its last argument."""


@dataclass(frozen=True)
class Plan:
    """How large a rehearsal is."""

    detectors: tuple[int, ...] = (0,)
    n_fields: int = 1
    n_epochs: int = 5
    """Exposures of each field in the night of the references."""
    n_rounds: int = 8
    """Exposures of each field in the night that is rehearsed."""
    every_s: float = 3.0
    """From one exposure to the next."""
    exposure_s: float = 2.0
    seed: int = 5
    workers: int = 1
    """Processes that make the world."""
    sweeps: bool = False
    """Fields are finished one after the other, as the sky turns, instead of in rounds over all of them."""


@dataclass(frozen=True)
class RawFile:
    """A raw file that the camera will write."""

    path: Path
    shutter_closed: float
    """Unix time."""
    is_science: bool


@dataclass(frozen=True)
class World:
    """A simulated sky and the survey as it stands in the evening."""

    folder: Path
    plan: Plan
    night: int = NIGHT
    """The night that is rehearsed, YYYYMMDD."""

    @property
    def n_exposures(self) -> int:
        """Science exposures of the night."""
        return sum(file.is_science for file in self.files())

    @property
    def n_images(self) -> int:
        """Detector images of the sky that the night brings."""
        return self.n_exposures * len(self.plan.detectors)

    @property
    def sky(self) -> Path:
        """The simulation: raw files, truth, reference catalog."""
        return self.folder / "sky"

    @property
    def evening(self) -> Path:
        """The survey before the night: references made, and the masters of the night's calibration frames."""
        return self.folder / "evening"

    def files(self) -> list[RawFile]:
        """Return the raw files of the night, in the order in which the camera writes them."""
        rows = json.loads((self.folder / "files.json").read_text())
        return [RawFile(**{**row, "path": self.folder / row["path"]}) for row in rows]

    @property
    def begins(self) -> float:
        """When the shutter closes for the first time on the sky, Unix time."""
        return min(file.shutter_closed for file in self.files() if file.is_science)


def scenario_of(plan: Plan) -> dict[str, Any]:
    """Return the scenario of a plan, as `gueststar simulate` reads it."""
    fields: list[dict[str, Any]] = [{"id": 1, "choose": "ecliptic"}]
    fields += [{"id": n, "near": 1, "offset_deg": [0.5 * (n - 1), 0.0]} for n in range(2, plan.n_fields + 1)]
    numbers = [item["id"] for item in fields]
    block = {"filters": ["r"], "programs": [1, 2, 3]}
    per_round = plan.every_s * (1 if plan.sweeps else plan.n_fields) / 60.0
    groups = [[number] for number in numbers] if plan.sweeps else [numbers]
    rehearsed = [
        {
            **block, "fields": group, "n_rounds": plan.n_rounds, "every_minutes": per_round,
            "start_h": -1.0 + n * plan.n_rounds * plan.every_s / 3600.0,
        }
        for n, group in enumerate(groups)
    ]  # fmt: skip
    before = {**block, "fields": numbers, "n_rounds": plan.n_epochs, "every_minutes": 20.0, "start_h": -2.0}
    return {
        "description": "A small sky for rehearsals.",
        "first_night": FIRST_NIGHT,
        "exposure_s": plan.exposure_s,
        "overhead_s": max(plan.every_s - plan.exposure_s - 0.2, 0.1),
        "fields": fields,
        "nights": [{"day": 0, "blocks": [before]}, {"day": DAYS_BETWEEN, "blocks": rehearsed}],
        "transients": {"n": 4, "n_first_night": 1, "magnitudes": [15.0, 17.5]},
        "asteroids": {"n": 1, "magnitudes": [15.0, 17.0]},
        "variables": {"n": 2},
        "satellites": {"per_night": 0},
        "stars": {"density": 15000},
        "galaxies": {"factor": 0.5},
        "calibrations": {"n_bias": 3, "n_dark": 0, "n_flat": 3},
    }


def make_world(folder: Path, plan: Plan | None = None, *, database: str | None = None) -> World:
    """Simulate the sky and bring a survey to the evening of the night; what is there of it is taken as it is.

    With a ``database`` (a server's address) the survey is made anew: a server may be gone, the sky is kept.
    Raises TransientError if a command fails, with what it said.
    """
    world = read_world(folder) if (folder / "files.json").exists() else _make_sky(World(folder, plan or Plan()))
    if database is not None and world.evening.exists():
        shutil.rmtree(world.evening)
    if not world.evening.exists():
        unfinished = folder / "evening.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        make_evening(world, unfinished, database=database).rename(world.evening)
    return world


def _make_sky(world: World) -> World:
    scenario, camera = world.folder / "scenario.yaml", world.folder / "camera.yaml"
    world.folder.mkdir(parents=True, exist_ok=True)
    scenario.write_text(yaml.safe_dump(scenario_of(world.plan), sort_keys=False))
    camera.write_text((resources.files(__package__) / "sky" / "camera.yaml").read_text())
    gueststar(
        "simulate", world.sky, "--camera", camera, "--scenario", scenario,
        "--detectors", ",".join(map(str, world.plan.detectors)), "--seed", world.plan.seed, "--quiet",
        "--workers", world.plan.workers,
    )  # fmt: skip
    _write_files(world)
    return world


def read_world(folder: Path) -> World:
    """Return the world that lies in a folder."""
    kept = json.loads((folder / "plan.json").read_text())
    night = kept.pop("night")
    return World(folder, Plan(**{**kept, "detectors": tuple(kept["detectors"])}), night)


def write_world(world: World, files: Sequence[Mapping[str, Any]]) -> None:
    """Write down a world: its plan, and the files of the night in the order in which the camera writes them."""
    (world.folder / "plan.json").write_text(json.dumps({**asdict(world.plan), "night": world.night}))
    (world.folder / "files.json").write_text(json.dumps(list(files), indent=1))


def make_evening(world: World, root: Path, *, database: str | None = None) -> Path:
    """Make a survey with references at ``root``, its ledger on a database server if one is named."""
    options = ("--db", database) if database else ()
    gueststar("init", root, "--camera", world.folder / "camera.yaml", *options)
    store = DetectionStore(database, name_key=NAME_KEY) if database else DetectionStore.at(root, name_key=NAME_KEY)
    store.close()
    change_settings(root, {"parameters": PARAMETERS})
    first = FIRST_NIGHT.replace("-", "")
    frames = [path for path in sorted((world.sky / "raw" / str(NIGHT)).iterdir()) if not path.name.startswith("sci_")]
    gueststar_in_turn(
        ("refcat", "import", root, world.sky / "refcat.parquet"),
        ("ingest", root, world.sky / "raw" / first, "--transfer", "link"),
        ("process", root, "--night", first, "--workers", world.plan.workers),
        ("ingest", root, *frames, "--transfer", "link"),
        ("process", root, "--night", NIGHT, "--until", "calibrate"),
    )
    return root


def fresh_survey(world: World, root: Path, *, replaced: Mapping[str, str] | None = None) -> Path:
    """Copy the survey as it stands in the evening; files that never change are linked, where one disk holds both.

    ``replaced``: words of its settings that stand for others in the copy, such as the folder of a database server.
    """
    linked = ("products", "refcats")

    def put(source: str, target: str) -> str:
        is_fixed = Path(source).relative_to(world.evening).parts[0] in linked
        if is_fixed:
            with suppress(OSError):
                os.link(source, target)
                return target
        return str(shutil.copy2(source, target))

    shutil.copytree(world.evening, root, copy_function=put, symlinks=True)
    for path in root.glob("*.yaml") if replaced else ():
        text = path.read_text()
        for old, new in (replaced or {}).items():
            text = text.replace(old, new)
        path.write_text(text)
    return root


def change_settings(root: Path, changes: Mapping[str, Any]) -> None:
    """Change a survey's settings; sections are merged, key by key."""
    path = root / "survey.yaml"
    settings = _merged(yaml.safe_load(path.read_text()) or {}, changes)
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    read_settings(path)  # a wrong key is told here


def gueststar(*words: object, root: Path | None = None, statuses: Sequence[int] = (0,)) -> str:
    """Run a public command as a user would, and return what it says; of other ``statuses`` than 0 its errors too.

    Raises TransientError if it ends otherwise.
    """
    return _said_by(["-m", "gueststar", *map(str, words)], str(words[0]), root=root, statuses=statuses)


def gueststar_in_turn(*commands: Sequence[object]) -> None:
    """Run public commands one after the other in one process, which starts once; TransientError if one fails."""
    words = json.dumps([[str(word) for word in command] for command in commands])
    _said_by(["-c", _IN_TURN, words], " and ".join(str(command[0]) for command in commands))


def _said_by(arguments: Sequence[str], what: str, *, root: Path | None = None, statuses: Sequence[int] = (0,)) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=root, env=one_thread_each())
    if done.returncode not in statuses:
        said = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise TransientError(f"gueststar {what} ended with status {done.returncode}: {' / '.join(said)}")
    return done.stdout if done.returncode == 0 else done.stdout + done.stderr


def one_thread_each() -> dict[str, str]:
    """Return the environment of processes of a rehearsal: one thread each, as on workers."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        key: _merged(old[key], new[key])
        for key in old.keys() & new.keys()
        if isinstance(old[key], Mapping) and isinstance(new[key], Mapping)
    }
    return {**old, **new, **both}


def _write_files(world: World) -> None:
    """Write down the night's raw files as the simulation made them."""
    with (world.sky / "schedule.csv").open() as lines:
        taken = {row["files"]: row for row in csv.DictReader(lines) if row["day_obs"] == str(NIGHT)}
    rows: list[dict[str, Any]] = []
    for path in sorted((world.sky / "raw" / str(NIGHT)).glob("sci_*")):
        row = taken[str(path.relative_to(world.sky))]
        closed = _unix(row["start_utc"]) + float(row["exposure_s"])
        rows.append({"path": str(path.relative_to(world.folder)), "shutter_closed": closed, "is_science": True})
    rows.sort(key=lambda row: row["shutter_closed"])
    write_world(world, rows)


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
