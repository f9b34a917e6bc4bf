"""`gueststar rules`: what triggers what in a survey."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

_REPO = click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))


@click.group()
def command() -> None:
    """What triggers what: the rules by which a survey is operated."""


@command.command("list")
@_REPO
def list_rules(repo: Path) -> None:
    """List the rules of REPO: when each applies, what it does, when it fired last and comes next."""
    from gueststar.operations.rules import desk
    from gueststar.store.visible import open_as

    with open_as(repo) as survey:
        for line in desk.list_rules(survey, now=time.time()):
            click.echo(line)


@command.command()
@_REPO
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def check(repo: Path, file: Path | None) -> None:
    """Check FILE (default: the rules that REPO follows); exit status 2 if it cannot be followed."""
    from gueststar.operations.rules import desk
    from gueststar.store.visible import open_as

    with open_as(repo) as survey:
        is_good, lines = desk.check_file(survey, file)
    for line in lines:
        click.echo(line, err=not is_good)
    sys.exit(0 if is_good else 2)


@command.command()
@_REPO
@click.option("--exposure", type=int, help="Which rule decides about this exposure.")
@click.option("--at", help="At this time (ISO 8601, UTC) instead of now.")
def explain(repo: Path, exposure: int | None, at: str | None) -> None:
    """Tell which rules of REPO match or are due, and why the others are not: each condition with its value."""
    from gueststar.operations.rules import desk
    from gueststar.store.visible import open_as

    with open_as(repo) as survey:
        for line in desk.explain(survey, exposure=exposure, at=at, now=time.time()):
            click.echo(line)


@command.command()
@_REPO
def copy(repo: Path) -> None:
    """Write the rules that ship to REPO/rules.yaml, to be changed."""
    from gueststar.operations.rules import desk
    from gueststar.store.visible import open_as

    with open_as(repo) as survey:
        click.echo(f"{desk.copy_shipped(survey)}: change it, then gueststar rules check {repo}")
