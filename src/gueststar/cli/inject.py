"""`gueststar inject`: artificial sources in processed images."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command()
@click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--night", "nights", type=int, multiple=True, help="Night YYYYMMDD (repeatable); default: the last.")
@click.option("--images", type=click.IntRange(min=1), help="Detector images of a night, drawn at random; default: all.")
@click.option(
    "--stage",
    type=click.Choice(["raw", "science", "difference"]),
    help="Where they enter: raw counts, calibrated image (default), or that for its difference alone.",
)
@click.option("--sources", type=click.IntRange(min=1), help="Artificial sources of an image (default: the settings').")
@click.option("--trails", type=click.FloatRange(0.0, 1.0), help="Fraction of them that is trailed.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same sources.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Worker processes.")
def command(
    repo: Path, nights: tuple[int, ...], images: int | None, stage: str | None, sources: int | None,
    trails: float | None, seed: int, workers: int,
) -> None:  # fmt: skip
    """Put artificial sources into processed images of REPO and score what the pipeline finds of them.

    Real products and alerts stay as they are. The result is shown by gueststar night report.
    """
    from gueststar.cli.process import ProgressBars
    from gueststar.pipelines.night.process import inject_nights

    overrides = {"stage": stage, "n": sources, "trail_fraction": trails}
    with ProgressBars() as bars:
        summary = inject_nights(
            repo, nights=nights, n_images=images, seed=seed, n_workers=workers, progress=bars, tell=bars.tell,
            overrides={key: value for key, value in overrides.items() if value is not None},
        )  # fmt: skip
    for line in summary.lines():
        click.echo(line)
    sys.exit(0 if summary.is_complete else 1)
