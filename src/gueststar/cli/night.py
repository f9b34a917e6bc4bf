"""`gueststar night`: the night's account."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from gueststar.cli.as_reader import as_reader
from gueststar.core.errors import ConfigError


@click.group()
def command() -> None:
    """The account of a night: what was received and what became of it."""


@command.command()
@click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--night", type=int, help="Survey night YYYYMMDD; default: the last one.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Also write the report as JSON ('-': stdout)."
)
@click.option("--html", "html_file", type=click.Path(path_type=Path), help="Also write the report as an HTML page.")
@click.option("--truth", type=click.Path(exists=True, path_type=Path), help="Folder of truth tables to compare with.")
@as_reader("the operator")
def report(
    repo: Path, night: int | None, json_file: Path | None, html_file: Path | None, truth: Path | None,
    as_reader: str | None,
) -> None:  # fmt: skip
    """Report a night of REPO; exit status 1 if any detector image is unexplained."""
    from gueststar.operations.report.expected import is_expected
    from gueststar.operations.report.html import render_html
    from gueststar.operations.report.night_report import as_json, make_report
    from gueststar.operations.report.text import report_lines
    from gueststar.operations.report.truth import compare_with_truth
    from gueststar.store.visible import open_as

    if truth is not None and as_reader is not None:
        raise ConfigError("--truth is the operator's: leave --as out")
    with open_as(repo, as_reader) as survey:
        nights = survey.ledger.nights()
        if not nights and night is None:
            raise ConfigError(f"{repo} holds no exposures: gueststar ingest {repo} FILES")
        if night is not None and night not in nights and not is_expected(survey, night):
            raise ConfigError(f"no exposures of night {night} in {repo}; nights are {', '.join(map(str, nights))}")
        chosen = night or nights[-1]
        compared = compare_with_truth(survey, chosen, truth) if truth else None
        made = make_report(survey, chosen, truth=compared)
        if html_file:
            html_file.write_text(render_html(made, survey))
    text = json.dumps(as_json(made), indent=1, default=str)
    if json_file and str(json_file) == "-":
        click.echo(text)
    else:
        if json_file:
            json_file.write_text(text)
        for line in report_lines(made):
            click.echo(line)
    sys.exit(0 if made.is_explained else 1)


@command.command("list")
@click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))
@as_reader("the operator")
def list_nights(repo: Path, as_reader: str | None) -> None:
    """List the nights of REPO with their number of exposures."""
    from collections import Counter

    from gueststar.store.visible import open_as

    with open_as(repo, as_reader) as survey:
        rows = survey.ledger.exposures()
    for night, n in sorted(Counter(row.info.day_obs for row in rows).items()):
        click.echo(f"{night} {n} exposures")


@command.command()
@click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--source", type=click.Choice(["schedule", "log"]), help="Planned, or taken; default: by the file.")
@click.option("--night", type=int, help="Night (YYYYMMDD) of a list that does not tell it.")
@click.option("--replace", "replaces", is_flag=True, help="Forget what other lists of that source said of its nights.")
def expect(repo: Path, file: Path, source: str | None, night: int | None, replaces: bool) -> None:
    """Take in what is expected of a night: a schedule, or an observing log (CSV, ECSV or JSON FILE).

    The night's report then tells what was expected and never came. Columns: time (UTC) or mjd or jd, exposure_id,
    field, ra, dec, filter, exposure_s, program, type; those that a list has not agree with anything.
    """
    from gueststar.pipelines.expectations import take_schedule
    from gueststar.store.visible import open_as

    with open_as(repo) as survey:
        taken = take_schedule(survey, file, source=source, night=night, replaces=replaces)  # type: ignore[arg-type]
    for line in taken.lines():
        click.echo(line)
