"""`gueststar survey`: weeks and the whole survey."""

from __future__ import annotations

import json
from pathlib import Path

import click

from gueststar.cli.as_reader import as_reader


@click.group()
def command() -> None:
    """Coverage, depth, trends and growth over weeks and over the survey."""


@command.command()
@click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--weeks", type=click.IntRange(min=1), help="Only the last weeks; default: the whole survey.")
@click.option("--until", type=int, help="Up to this night (YYYYMMDD); default: the last one.")
@click.option("--html", "html_file", type=click.Path(path_type=Path), help="Write an HTML page.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write JSON ('-': stdout).")
@as_reader("the operator")
def report(
    repo: Path, weeks: int | None, until: int | None, html_file: Path | None, json_file: Path | None,
    as_reader: str | None,
) -> None:  # fmt: skip
    """Report weeks of REPO, or all of it."""
    from gueststar.operations.survey_pages.html import render_survey, survey_pictures
    from gueststar.operations.survey_pages.report import as_json, make_survey_report
    from gueststar.operations.survey_pages.text import survey_lines
    from gueststar.store.visible import open_as

    with open_as(repo, as_reader) as survey:
        made = make_survey_report(survey, weeks=weeks, until=until)
        if html_file:
            html_file.write_text(render_survey(made, survey_pictures(made, survey.camera)))
    text = json.dumps(as_json(made), indent=1)
    if json_file and str(json_file) == "-":
        click.echo(text)
        return
    if json_file:
        json_file.write_text(text)
    for line in survey_lines(made):
        click.echo(line)
