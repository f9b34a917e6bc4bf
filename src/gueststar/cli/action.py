"""`gueststar action`: what rules run, run by hand."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click


@click.group()
def command() -> None:
    """What rules run besides the recipes of exposures: the day in the life, by hand."""


@command.command("list")
def list_actions() -> None:
    """List the actions with what each does."""
    from gueststar.operations.by_hand import action_lines

    for line in action_lines():
        click.echo(line)


@command.command()
@click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("name")
@click.argument("arguments", nargs=-1)
@click.option("--night", type=int, help="Survey night YYYYMMDD; default: the last one with exposures.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--json", "is_json", is_flag=True, help="All figures, as JSON.")
def run(repo: Path, name: str, arguments: tuple[str, ...], night: int | None, dry_run: bool, is_json: bool) -> None:
    """Run action NAME on REPO, with ARGUMENTS such as files=500; exit status 1 if it failed."""
    from gueststar.operations.by_hand import run_action
    from gueststar.store.visible import open_as

    with open_as(repo) as survey:
        done = run_action(survey, name, arguments, now=time.time(), night=night, is_dry=dry_run)
    if is_json:
        click.echo(json.dumps({"state": done.state, "text": done.text, "data": dict(done.data)}, indent=1, default=str))
    else:
        click.echo(f"{done.state}: {done.text}")
        for condition in done.conditions:
            if condition.is_wrong:
                click.echo(f"{condition.severity}: {condition.kind} {condition.subject}: {condition.text}")
        for line in done.data.get("lines", ()):
            click.echo(f"{line['verdict']:<8} {line['name']}: {line['text']}")
    sys.exit(1 if done.state == "failed" else 0)
