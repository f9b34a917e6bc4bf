"""Every command of the user guide is run, in order, as it stands there.

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

PAGES = sorted((ROOT / "docs" / "user_guide").glob("*.md"))
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


@pytest.fixture(scope="module")
def skies() -> dict[str, Path]:
    """Simulated skies by the command that made them: several pages begin with the same one."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if commands_of(p)], ids=lambda p: p.stem)
def test_commands_of_the_page_run(page: Path, tmp_path: Path, skies: dict[str, Path]) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    text = page.read_text()
    installed = re.search(r"<!-- needs file: (\S+) of the Debian package (\S+) -->", text)
    if installed and not glob.glob(installed[1]):
        pytest.skip(f"{page.name} needs {installed[1]}: install the Debian package {installed[2]}")
    if needed := re.search(r"<!-- needs: (\w+) -->", text):
        folder = shared_folder()
        if folder is None or not (folder / needed[1]).is_dir():
            pytest.skip(f"{page.name} needs the real data set {needed[1]}, which is not beside the checkout")
        environment["DATA"] = str(folder)
    for command in commands_of(page):
        if command in skies:
            shutil.copytree(skies[command], tmp_path / skies[command].name)
            continue
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        if made := SIMULATION.fullmatch(command):
            skies[command] = tmp_path / made[1]
