"""`gueststar log`: what the operator and its workers wrote down."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click


@click.command()
@click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--exposure", type=int, help="Lines about this exposure.")
@click.option("--night", type=int, help="Lines about this night, YYYYMMDD.")
@click.option("--detector", type=int, help="Lines about this detector.")
@click.option("--job", type=int, help="Lines about this unit of work.")
@click.option(
    "--level", type=click.Choice(["debug", "info", "warning", "error", "critical"]), default="debug",
    help="The least that is shown.",
)  # fmt: skip
@click.option("--hours", type=float, help="Of the last HOURS hours.")
@click.option("--text", default="", help="With these words in the message.")
@click.option("--last", type=click.IntRange(1), help="The last LAST lines only.")
@click.option("--follow", is_flag=True, help="Go on showing lines as they are written.")
@click.option("--json", "is_json", is_flag=True, help="As they are stored.")
def command(
    repo: Path, exposure: int | None, night: int | None, detector: int | None, job: int | None, level: str,
    hours: float | None, text: str, last: int | None, follow: bool, is_json: bool,
) -> None:  # fmt: skip
    """Show the log of REPO's operator and workers in the order of time."""
    from gueststar.operations.watch.logs import LogFilter, follow_log, human_line, read_log

    since = None if hours is None else time.time() - 3600.0 * hours
    wanted = LogFilter(exposure, night, detector, job, level, since, text)
    shown = follow_log(repo, wanted, wait=lambda: time.sleep(0.5)) if follow else read_log(repo, wanted, last=last)
    for line in shown:
        click.echo(json.dumps(line, ensure_ascii=False) if is_json else human_line(line))
