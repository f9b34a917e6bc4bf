"""The user guide as tests: every command of a page is run, in order, as it stands there.

A page's ``console`` blocks are one session in one fresh folder: lines that begin with ``$`` are commands, the
rest is what a reader would see and is not compared. A page whose first lines hold ``<!-- needs: NAME -->`` is run
with $DATA set to the folder of real data sets, and skipped where the set NAME is not there; likewise one that holds
``<!-- needs file: PATTERN of the Debian package PACKAGE -->`` where no file fits PATTERN.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import ROOT, shared_folder

FOLDER = ROOT / "docs" / "user_guide"
ALERTS = ("alerts_over_http", "archive", "consumers", "filters", "rights", "stream")
"""Pages on alerts; they are run beside the others."""
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)

SIMULATION = re.compile(r"gueststar simulate (\w+)( --?[\w-]+ [\w.]+)*")


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


def pages(*, of_alerts: bool) -> list[Path]:
    """Return the pages that have commands."""
    return [page for page in sorted(FOLDER.glob("*.md")) if (page.stem in ALERTS) is of_alerts and commands_of(page)]


def run_page(page: Path, folder: Path, skies: dict[str, Path]) -> None:
    """Run a page's commands in a folder.

    ``skies`` holds simulated skies by the command that made them: several pages begin with the same one.
    """
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    text = page.read_text()
    installed = re.search(r"<!-- needs file: (\S+) of the Debian package (\S+) -->", text)
    if installed and not glob.glob(installed[1]):
        pytest.skip(f"{page.name} needs {installed[1]}: install the Debian package {installed[2]}")
    if needed := re.search(r"<!-- needs: (\w+) -->", text):
        data = shared_folder()
        if data is None or not (data / needed[1]).is_dir():
            pytest.skip(f"{page.name} needs the real data set {needed[1]}, which is not beside the checkout")
        environment["DATA"] = str(data)
    for command in commands_of(page):
        if command in skies:
            shutil.copytree(skies[command], folder / skies[command].name)
            continue
        done = subprocess.run(
            command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        if made := SIMULATION.fullmatch(command):
            skies[command] = folder / made[1]
