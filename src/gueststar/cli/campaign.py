"""`gueststar campaign`: nights as workflows of a batch system."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from gueststar.cli.process import STAGES, ProgressBars


def _nights(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, int]:
    first, _, last = value.partition("..")
    if not (first.isdigit() and (last or first).isdigit()):
        raise click.BadParameter(f"{value!r} is not A..B with nights YYYYMMDD")
    return int(first), int(last or first)


@click.command()
@click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--nights", required=True, callback=_nights, help="From night to night: A..B, each YYYYMMDD.")
@click.option("--site", default="local", show_default=True, help="Where: local, or a site of --config.")
@click.option(
    "--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="BPS file that describes sites."
)
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Cores of the site local.")
@click.option("--units", type=click.IntRange(min=1), default=8, show_default=True, help="Units of work in one job.")
@click.option("--until", type=click.Choice(STAGES), default=STAGES[-1], show_default=True, help="Last stage to run.")
@click.option("--retry", is_flag=True, help="Try failed and quarantined work again.")
@click.option("--again", is_flag=True, help="Calibrate and subtract anew, with the calibrations and parameters of now.")
def command(
    repo: Path, nights: tuple[int, int], site: str, config: Path | None, workers: int, units: int, until: str,
    retry: bool, again: bool,
) -> None:  # fmt: skip
    """Process nights of REPO on a batch system, through Rubin's lsst.ctrl.bps and Parsl.

    The same work as `gueststar process`, with the same results.
    """
    from gueststar.pipelines.batch.campaign import run_campaign
    from gueststar.pipelines.batch.workflow import Batch

    batch = Batch(site=site, config=config, n_workers=workers, n_units=units)
    with ProgressBars() as bars:
        summary = run_campaign(
            repo, first=nights[0], last=nights[1], batch=batch, until=until, do_retry=retry, do_again=again,
            progress=bars, tell=bars.tell,
        )  # fmt: skip
    for line in summary.lines():
        click.echo(line)
    sys.exit(0 if summary.is_complete else 1)
