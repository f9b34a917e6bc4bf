"""The user guide as tests: every command of a page is run, in order, as it stands there.

A page's ``console`` blocks are one session in one fresh folder: lines that begin with ``$`` are commands, the
rest is what a reader would see and is not compared. Pages that begin with the same commands share what these made:
one of them runs them, the others begin with a copy of its folder. A page whose first lines hold
``<!-- needs: NAME -->`` is run with $DATA set to the folder of real data sets, and skipped where the set NAME is not
there; likewise one that holds
``<!-- needs file: PATTERN of the Debian package PACKAGE -->`` where no file fits PATTERN.
"""

from __future__ import annotations

import glob
import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from ..conftest import ROOT, made_once, shared_folder

FOLDER = ROOT / "docs" / "user_guide"
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands_of(page: Path) -> list[str]:
    """Return the page's shell commands; lines that begin with ``>`` continue the one before."""
    commands: list[str] = []
    for block in BLOCK.findall(page.read_text()):
        for line in block.splitlines():
            if line.startswith("$ "):
                commands.append(line[2:])
            elif line.startswith("> "):
                commands[-1] += "\n" + line[2:]
    return commands


def pages() -> list[Path]:
    """Return the pages that have commands."""
    return [page for page in sorted(FOLDER.glob("*.md")) if commands_of(page)]


def shared_beginnings(commands: Sequence[str], others: Sequence[Sequence[str]]) -> list[int]:
    """Return after how many commands a page parts from others that begin with the same ones, falling."""
    lengths = set()
    for other in others:
        alike = [one == their for one, their in zip(commands, other, strict=False)]
        lengths.add(len(alike) if all(alike) else alike.index(False))
    return sorted(lengths - {0}, reverse=True)


class Beginnings:
    """Folders as they stood after the first commands of several pages, for all test processes."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self._all = [commands_of(page) for page in sorted(FOLDER.glob("*.md"))]

    def begin(self, commands: Sequence[str], folder: Path) -> int:
        """Put what a page's first commands make into a folder; return how many commands that were."""
        lengths = shared_beginnings(commands, [other for other in self._all if other != commands])
        if lengths:
            shutil.copytree(self._kept(commands, lengths), folder, symlinks=True, dirs_exist_ok=True)
        return lengths[0] if lengths else 0

    def _kept(self, commands: Sequence[str], lengths: Sequence[int]) -> Path:
        """Return the folder after the longest of the beginnings; whoever comes first makes it."""
        length, *shorter = lengths
        kept = self.folder / hashlib.sha256("\n".join(commands[:length]).encode()).hexdigest()[:16]

        def make(folder: Path) -> None:
            folder.mkdir()
            if shorter:
                shutil.copytree(self._kept(commands, shorter), folder, symlinks=True, dirs_exist_ok=True)
            run_commands(commands[shorter[0] if shorter else 0 : length], folder, self.environment)

        return made_once(kept, make)


def run_commands(commands: Iterable[str], folder: Path, environment: Mapping[str, str]) -> None:
    """Run shell commands one after the other in a folder; each must end well."""
    for command in commands:
        done = subprocess.run(
            command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def run_page(page: Path, folder: Path, beginnings: Beginnings) -> None:
    """Run a page's commands in a folder; skip the page where this machine lacks what it needs."""
    environment, text = dict(beginnings.environment), page.read_text()
    installed = re.search(r"<!-- needs file: (\S+) of the Debian package (\S+) -->", text)
    if installed and not glob.glob(installed[1]):
        pytest.skip(f"{page.name} needs {installed[1]}: install the Debian package {installed[2]}")
    if needed := re.search(r"<!-- needs: (\w+) -->", text):
        data = shared_folder()
        if data is None or not (data / needed[1]).is_dir():
            pytest.skip(f"{page.name} needs the real data set {needed[1]}, which is not beside the checkout")
        environment["DATA"] = str(data)
    commands = commands_of(page)
    run_commands(commands[beginnings.begin(commands, folder) :], folder, environment)
