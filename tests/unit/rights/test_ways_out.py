"""There is no way out that nobody thought of: every command and every address is declared, and asks whom it must."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import gueststar.services
from gueststar.cli.main import group
from gueststar.cli.ways_out import ADDRESSES, COMMANDS, Eyes

SERVICES = Path(gueststar.services.__file__).parent


def commands(parent: click.Group, before: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(parent)
    for name in parent.list_commands(context):
        found = parent.get_command(context, name)
        if isinstance(found, click.Group):
            yield from commands(found, (*before, name))
        elif found is not None:
            yield " ".join((*before, name)), found


def addresses() -> Iterator[str]:
    """Yield the paths of all routes in the modules of services, as they stand in the source."""
    for path in sorted(SERVICES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            kind = getattr(node.func, "id", getattr(node.func, "attr", "")) if isinstance(node, ast.Call) else ""
            if kind in ("Route", "WebSocketRoute", "Mount"):
                assert isinstance(node.args[0], ast.Constant), f"{path}: a route whose path is not a plain text"
                yield f"{path.stem} {node.args[0].value}"


def test_every_command_is_declared() -> None:
    undeclared = {name for name, _ in commands(group)} - COMMANDS.keys()
    assert not undeclared, "say in gueststar/cli/ways_out.py for whose eyes these commands are"


def test_every_address_is_declared() -> None:
    undeclared = set(addresses()) - ADDRESSES.keys()
    assert not undeclared, "say in gueststar/cli/ways_out.py for whose eyes these addresses are"


@pytest.mark.parametrize("name", [name for name, way in COMMANDS.items() if way.eyes is Eyes.READER])
def test_a_command_for_readers_can_be_told_whose_eyes_to_take(name: str) -> None:
    found = dict(commands(group))
    if name in found:
        assert any("--as" in parameter.opts for parameter in found[name].params)


@pytest.mark.parametrize("module", ["cli", "services", "operations"])
def test_what_answers_readers_opens_the_survey_through_the_gate_only(module: str) -> None:
    """Modules that open the whole survey, or the log of all programs, are those of the operator, named here."""
    for path in sorted((SERVICES.parent / module).rglob("*.py")):
        name = f"{module}/{path.relative_to(SERVICES.parent / module).with_suffix('').as_posix()}"
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Attribute)
                and node.attr == "open"
                and getattr(node.value, "id", "") == "SurveyRepo"
            ):
                assert name in OPENED_WHOLE, (
                    f"{path}:{node.lineno} opens the whole survey: use open_as, or say why here"
                )


OPENED_WHOLE = {
    "cli/alarm": "alarms: the operator's",
    "cli/alerts": "publication, comparison, replay: the operator's",
    "cli/ingest": "takes in",
    "cli/movers": "tracklets of all programs: the operator's",
    "cli/process": "works",
    "cli/orbits": "orbits of others",
    "cli/refcat": "reference catalogs",
    "cli/serve": "services that ask at their own gate",
    "cli/user": "access lists of topics",
    "operations/drills/contingencies/archive": "rehearsed copies: the operator's",
    "operations/drills/contingencies/data_link": "rehearsed copies: the operator's",
    "operations/drills/judge": "rehearsed copies: the operator's",
    "operations/drills/shadow": "the survey whose nights are rehearsed: the operator's",
    "operations/drills/stage": "rehearsed copies: the operator's",
    "operations/operator/dry_run": "the operator itself",
    "operations/operator/parts": "the operator itself",
    "operations/operator/recovery": "the operator itself",
    "operations/operator/start": "the operator itself",
    "operations/operator/trouble": "the operator itself",
    "operations/watch/previews": "the page of those who watch: the operator's",
    "operations/report/filters": "filters of all users: the operator's",
    "operations/labelling": "rows for training: the operator's",
    "operations/orbits": "the camera's place",
    "operations/reliability": "models",
    "operations/users": "users",
    "operations/watch/watcher": "those who watch: the operator",
}
"""Modules that open a survey as its operator, and what for."""
