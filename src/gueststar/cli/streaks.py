"""gueststar streaks: list the streaks of a night, and show one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from gueststar.cli.as_reader import as_reader
from gueststar.core.errors import ConfigError


@click.group("streaks")
def command() -> None:
    """Streaks of satellites and of fast asteroids."""


@command.command("list")
@click.argument("repo", type=click.Path())
@click.option("--night", type=int, help="Survey night, YYYYMMDD; all nights without it.")
@click.option("--kind", type=click.Choice(["satellite", "asteroid", "unclear"]), help="Only this kind.")
@click.option("--min-reliability", type=float, default=0.6, show_default=True, help="Least score.")
@as_reader("the operator")
@click.option("--json", "is_json", is_flag=True, help="One JSON document instead of a table.")
def list_streaks(
    repo: str, night: int | None, kind: str | None, min_reliability: float, as_reader: str | None, is_json: bool
) -> None:
    """List streaks of the repository REPO, by time."""
    from gueststar.operations.streaks import HEADING, find_streaks, streak_line
    from gueststar.store.visible import open_as

    try:
        with open_as(repo, as_reader) as opened:
            found = find_streaks(opened, night=night, kind=kind, min_reliability=min_reliability)
    except ConfigError as problem:
        click.echo(f"gueststar: {problem}", err=True)
        sys.exit(2)
    if is_json:
        click.echo(json.dumps(found, indent=1))
        return
    click.echo(HEADING)
    for row in found:
        click.echo(streak_line(row))


@command.command("show")
@click.argument("repo", type=click.Path())
@click.argument("streak_id", type=int)
@click.option("--picture", type=click.Path(path_type=Path), help="Write its cut-outs to this PNG file.")
@as_reader("the operator")
def show(repo: str, streak_id: int, picture: Path | None, as_reader: str | None) -> None:
    """Show everything that was measured of streak STREAK_ID; with --picture, draw it."""
    from gueststar.operations.streaks import find_streaks, picture_of
    from gueststar.store.visible import open_as

    try:
        with open_as(repo, as_reader) as opened:
            found = [row for row in find_streaks(opened, min_reliability=0.0) if row["streak_id"] == streak_id]
            if not found:
                raise ConfigError(f"there is no streak {streak_id} in {repo}")
            if picture is not None:
                picture.write_bytes(picture_of(opened, found[0]))
    except ConfigError as problem:
        click.echo(f"gueststar: {problem}", err=True)
        sys.exit(2)
    for name, value in found[0].items():
        click.echo(f"{name:22} {value}")
