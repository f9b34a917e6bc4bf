"""A command imports what it uses: help and a look at a survey do not wait for numerical libraries."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from gueststar.cameras.load import load_camera
from gueststar.cli import main
from gueststar.cli.main import COMMANDS
from gueststar.store.repo import SurveyRepo

SLOW = ("numba", "dask", "astropy", "scipy", "pandas", "lsst")
RUN = f"""
import sys
from gueststar.cli.main import main
try:
    main()
finally:
    print("slow:", [name for name in {SLOW!r} if name in sys.modules], file=sys.stderr)
"""


def slow_imports_of(*words: object) -> str:
    """Run a command in a new process and return which slow libraries it imported."""
    done = subprocess.run([sys.executable, "-c", RUN, *map(str, words)], capture_output=True, text=True)
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("words", [("--help",), ("night", "--help"), ("process", "--help")], ids=" ".join)
def test_help_imports_no_numerical_library(words: tuple[str, ...]) -> None:
    assert slow_imports_of(*words) == "slow: []"


def test_the_status_of_a_survey_imports_no_numerical_library(tmp_path: Path) -> None:
    SurveyRepo.create(tmp_path / "survey", load_camera("simcam")).close()
    assert slow_imports_of("status", tmp_path / "survey") == "slow: []"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_what_a_command_imports_when_it_runs_is_there(name: str) -> None:
    tree = ast.parse(Path(main.__file__).with_name(f"{name}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("gueststar"):
            module = importlib.import_module(node.module)
            for item in node.names:
                assert hasattr(module, item.name) or importlib.util.find_spec(f"{node.module}.{item.name}")
