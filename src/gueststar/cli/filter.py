"""`gueststar filter`: conditions of users over the alerts, each with a topic of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from gueststar.cli.as_reader import as_reader, packet_nights
from gueststar.model.readers import OPERATOR
from gueststar.model.rights import Program

_REPO = click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))
_OWNER = click.argument("owner")
_NAME = click.argument("name")
_PROGRAMS = ("public", "partnership", "private")


def _request_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that a filter has besides its condition."""
    options = (
        click.option("--program", "programs", multiple=True, type=click.Choice(_PROGRAMS),
                     help="Programs whose alerts it is asked of (repeatable); default: public."),
        click.option("--cap", default=500, show_default=True, type=click.IntRange(1),
                     help="Most alerts of one exposure."),
        click.option("--order", default="rb", show_default=True,
                     help="Field by which the best of an exposure are kept."),
        click.option("--ascending", is_flag=True, help="The smallest are the best."),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


@click.group()
def command() -> None:
    """Conditions of users over the alerts, each with a topic of its own."""


@command.command()
@_REPO
@_OWNER
@_NAME
@click.argument("condition")
@_request_options
def add(
    repo: Path, owner: str, name: str, condition: str, programs: tuple[str, ...], cap: int, order: str, ascending: bool
) -> None:
    """Add the filter NAME of the user OWNER to REPO: alerts for which CONDITION is true go to a topic of its own.

    A filter that is there already gets a new version. It is asked of what comes from now on.
    """
    from gueststar.operations.report.filters import open_filters

    with open_filters(repo) as desk:
        click.echo(desk.add(_request(owner, name, condition, programs, cap, order, ascending)))


@command.command()
@_REPO
@click.argument("condition")
@click.option("--nights", help="Survey nights YYYYMMDD or YYYYMMDD:YYYYMMDD; default: all.")
@as_reader("operator")
@click.option("--survey", help="On imported alerts of this other survey, instead of REPO's own.")
@click.option("--page", type=click.Path(dir_okay=False, path_type=Path), help="Write a page (HTML) with cut-outs.")
@click.option("--pictures", default=40, show_default=True, type=click.IntRange(1), help="Most alerts on the page.")
@_request_options
def test(
    repo: Path, condition: str, nights: str | None, as_reader: str | None, survey: str | None, page: Path | None,
    pictures: int, programs: tuple[str, ...], cap: int, order: str, ascending: bool,
) -> None:  # fmt: skip
    """Try CONDITION on the alerts of past nights of REPO; nothing is sent."""
    from gueststar.operations.filter_page import write_filter_page
    from gueststar.operations.filter_trial import log_of, nights_from, try_filter
    from gueststar.store.settings import read_settings

    (first, last), who = nights_from(nights), as_reader or OPERATOR.name
    allowed = packet_nights(repo, read_settings(repo / "survey.yaml"), None, who)
    request = _request(who, "trial", condition, programs, cap, order, ascending)
    with log_of(repo, survey) as log:
        trial = try_filter(log, request, nights=allowed, first_night=first, last_night=last)
        for line in trial.lines():
            click.echo(line)
        if page is not None:
            n = write_filter_page(page, trial, log, nights=allowed, n_alerts=pictures)
            click.echo(f"{n} alerts on {page}")


@command.command("list")
@_REPO
@click.option("--owner", help="Filters of this user only.")
def list_filters(repo: Path, owner: str | None) -> None:
    """List the filters of REPO, and what became of the alerts that passed."""
    from gueststar.operations.report.filters import open_filters

    with open_filters(repo) as desk:
        for line in desk.lines(owner=owner):
            click.echo(line)


@command.command()
@_REPO
@_OWNER
@_NAME
def show(repo: Path, owner: str, name: str) -> None:
    """Show the filter NAME of OWNER with its versions and its counts by night, as JSON."""
    from gueststar.operations.report.filters import open_filters

    with open_filters(repo) as desk:
        click.echo(json.dumps(desk.story(owner, name), indent=1))


def _state_command(verb: str, state: str, doc: str) -> None:
    """Make the command that brings a filter into a state."""

    @command.command(verb, help=doc)
    @_REPO
    @_OWNER
    @_NAME
    @click.option("--reason", default="", help="Told in lists and reports.")
    def change(repo: Path, owner: str, name: str, reason: str) -> None:
        from gueststar.operations.report.filters import open_filters
        from gueststar.store.filters.definitions import FilterState

        with open_filters(repo) as desk:
            click.echo(desk.set_state(owner, name, FilterState(state), reason=reason))


_state_command("pause", "paused", "Stop asking the filter NAME of OWNER; what comes meanwhile is not for it.")
_state_command("resume", "active", "Go on asking a paused filter, of what comes from now on.")
_state_command("remove", "removed", "Remove the filter NAME of OWNER; its story stays.")


@command.command()
@click.argument("pattern", default="")
def fields(pattern: str) -> None:
    """List the fields that conditions may ask for (those whose name or meaning holds PATTERN)."""
    from gueststar.formats.alert_table import alert_table_schema

    for field in alert_table_schema():
        doc, unit = (field.metadata[key].decode() for key in (b"doc", b"unit"))
        if pattern.lower() in f"{field.name} {doc}".lower():
            click.echo(f"{field.name:<22}{field.type!s:<8}{doc}{f' [{unit}]' if unit else ''}")


def _request(
    owner: str, name: str, condition: str, programs: tuple[str, ...], cap: int, order: str, ascending: bool
) -> Any:  # fmt: skip
    from gueststar.store.filters.definitions import FilterRequest

    chosen = tuple(Program[program.upper()] for program in programs) or (Program.PUBLIC,)
    return FilterRequest(owner, name, condition, chosen, cap, order, ascending)
