"""`gueststar alarm`: what is wrong, and who takes care of it."""

from __future__ import annotations

import getpass
import sys
import time
from pathlib import Path

import click

_REPO = click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))


@click.group()
def command() -> None:
    """What is wrong with the survey: list, take care of, close, and try whether messages arrive."""


@command.command("list")
@_REPO
@click.option("--days", type=float, help="Also those that were closed in the last DAYS days.")
@click.option("--brief", is_flag=True, help="Without what to do.")
def list_alarms(repo: Path, days: float | None, brief: bool) -> None:
    """List the open alarms of REPO, the worst first; exit status 1 if there are any."""
    from gueststar.operations.watch.alarm_lines import alarm_lines
    from gueststar.operations.watch.alarms import known_alarms
    from gueststar.operations.watch.watcher import opened

    now = time.time()
    with opened(repo) as survey:
        alarms = known_alarms(survey, since=None if days is None else now - 86400.0 * days)
    for line in alarm_lines(alarms, now=now, has_advice=not brief):
        click.echo(line)
    sys.exit(1 if any(alarm.closed is None for alarm in alarms) else 0)


@command.command()
@_REPO
@click.argument("number", type=int)
@click.option("--person", default=getpass.getuser, show_default="the login", help="Who takes care of it.")
def ack(repo: Path, number: int, person: str) -> None:
    """Say that somebody takes care of alarm NUMBER of REPO: it is not sent again unless it becomes worse."""
    from gueststar.store.alarms import Alarms
    from gueststar.store.repo import SurveyRepo

    with SurveyRepo.open(repo) as survey:
        alarm = Alarms(survey.ledger).acknowledge(number, person)
    click.echo(f"{alarm.name}: {person} takes care of it")


@command.command()
@_REPO
@click.argument("number", type=int)
def close(repo: Path, number: int) -> None:
    """Close alarm NUMBER of REPO; it opens again if it is seen again."""
    from gueststar.store.alarms import Alarms
    from gueststar.store.repo import SurveyRepo

    with SurveyRepo.open(repo) as survey:
        alarm = Alarms(survey.ledger).close(number, now=time.time())
    click.echo(f"{alarm.name}: closed")


@command.command()
@_REPO
def test(repo: Path) -> None:
    """Send a message by every way that REPO's survey.yaml names, and say what became of it."""
    from gueststar.operations.watch.alarms import try_delivery
    from gueststar.operations.watch.watcher import opened

    with opened(repo) as survey:
        told = try_delivery(survey, now=time.time())
    for channel, trouble in told.items():
        click.echo(f"{channel}: {trouble or 'delivered'}")
    sys.exit(3 if any(told.values()) else 0)


@command.command()
@_REPO
@click.option("--dry-run", is_flag=True, help="Say what would be raised; change nothing, send nothing.")
def check(repo: Path, dry_run: bool) -> None:
    """Look once at the state of REPO, raise and settle alarms, and send what is due.

    For a timer beside the operator, which cannot tell that it is gone itself: see `gueststar service`.
    """
    from gueststar.operations.watch.look import look_at

    for line in look_at(repo, is_dry=dry_run):
        click.echo(line)
