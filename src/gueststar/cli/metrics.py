"""`gueststar metrics`: named metrics, what they measured and how they changed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from gueststar.core.errors import ConfigError

_REPO = click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))
_JSON = click.option("--json", "is_json", is_flag=True, help="Give JSON.")


@click.group()
def command() -> None:
    """Named metrics of the survey (AM1, PA1, depth...): definition, values, history."""


@command.command("list")
@_REPO
@click.option("--version", help="Only values of this version of the software.")
@_JSON
def list_metrics(repo: Path, version: str | None, is_json: bool) -> None:
    """List all metrics of REPO with their last value for the survey."""
    from gueststar.operations.metrics.definitions import DEFINITIONS
    from gueststar.operations.metrics.text import as_json, definition_lines, value_line
    from gueststar.store.metric_values import MetricValues
    from gueststar.store.visible import open_as

    with open_as(repo) as survey:
        values = MetricValues(survey.ledger).latest(version=version, nightly=False)
    if is_json:
        click.echo(json.dumps([as_json(value) for value in values], indent=1))
        return
    for metric in DEFINITIONS:
        mine = {value.scope: value for value in values if value.name == metric.name}
        for line in [value_line(value) for value in mine.values()] or definition_lines(metric)[:1]:
            click.echo(line)


@command.command()
@_REPO
@click.option("--night", type=int, help="Only of this night (YYYYMMDD); default: of the survey.")
@click.option("--only", "names", multiple=True, metavar="NAME", help="Write down only these metrics.")
@click.option("--version-label", help="Name of the version, for trials; default: the software's own.")
@_JSON
def measure(repo: Path, night: int | None, names: tuple[str, ...], version_label: str | None, is_json: bool) -> None:
    """Measure the metrics of REPO, write them down and show them."""
    from gueststar import __version__
    from gueststar.operations.metrics.measure import known_names, measure_survey
    from gueststar.operations.metrics.text import as_json, value_line
    from gueststar.store.visible import open_as

    if unknown := set(names) - set(known_names()):
        raise ConfigError(f"there is no metric {', '.join(sorted(unknown))}; metrics are {', '.join(known_names())}")
    with open_as(repo) as survey:
        values = measure_survey(survey, night=night, version=version_label or __version__, now=time.time(), names=names)
    if is_json:
        click.echo(json.dumps([as_json(value) for value in values], indent=1))
    else:
        for value in values:
            click.echo(value_line(value))


@command.command()
@_REPO
@click.argument("name")
@_JSON
def show(repo: Path, name: str, is_json: bool) -> None:
    """Show what the metric NAME is and everything that was ever measured of it in REPO."""
    from gueststar.operations.metrics.definitions import BY_NAME
    from gueststar.operations.metrics.text import as_json, definition_lines, history_line
    from gueststar.store.metric_values import MetricValues
    from gueststar.store.visible import open_as

    if name not in BY_NAME:
        raise ConfigError(f"there is no metric {name}; metrics are {', '.join(BY_NAME)}")
    with open_as(repo) as survey:
        values = MetricValues(survey.ledger).history(name)
    if is_json:
        click.echo(json.dumps([as_json(value) for value in values], indent=1))
        return
    for line in definition_lines(BY_NAME[name]):
        click.echo(line)
    for value in values:
        click.echo(history_line(value))


@command.command()
@_REPO
@click.argument("first")
@click.argument("second")
@_JSON
def compare(repo: Path, first: str, second: str, is_json: bool) -> None:
    """Compare what versions FIRST and SECOND of the software measured on REPO."""
    from gueststar.operations.metrics.text import compared, shown
    from gueststar.store.metric_values import MetricValues
    from gueststar.store.visible import open_as

    with open_as(repo) as survey:
        history = MetricValues(survey.ledger)
        versions, values = history.versions(), history.latest()
    if unknown := {first, second} - set(versions):
        raise ConfigError(
            f"no values of {', '.join(sorted(unknown))}; there are values of {', '.join(versions) or 'none'}"
        )
    rows = compared(values, first, second)
    if is_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        sigmas = "" if row["sigmas"] is None else f" ({row['sigmas']:.1f} sigma)"
        where = f"{row['scope'] or 'all'} {row['night'] or 'survey'}"
        change = f"{shown(row[first])} -> {shown(row[second])} {row['unit']}"
        click.echo(f"{row['name']:24s} {where:22s} {change:28s} {row['verdict']}{sigmas}")
