"""gueststar ingest: take in files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gueststar.core.errors import ConfigError

if TYPE_CHECKING:
    from gueststar.pipelines.ingest import IngestSummary, OnFile
    from gueststar.pipelines.ingest_products import Measurers
    from gueststar.store.repo import SurveyRepo, Transfer


@click.command("ingest")
@click.argument("repo", type=click.Path())
@click.argument("paths", nargs=-1, required=True, type=click.Path())
@click.option(
    "--transfer",
    type=click.Choice(["copy", "link", "direct"]),
    default="copy",
    show_default=True,
    help="Copy files into the repository, hard-link them, or leave them where they are.",
)
@click.option(
    "--as",
    "product",
    type=click.Choice(["raw", "science_image", "difference_image", "source"]),
    default="raw",
    show_default=True,
    help="What the files are: raw exposures, or your own products.",
)
@click.option("--detector", type=int, help="Detector id, where your products do not tell.")
def command(repo: str, paths: tuple[str, ...], transfer: Transfer, product: str, detector: int | None) -> None:
    """Take PATHS (files, and FITS files in folders) into the survey repository REPO."""
    from gueststar.store.repo import SurveyRepo

    try:
        with SurveyRepo.open(repo) as opened:
            summary = _ingest(opened, [Path(path) for path in paths], transfer, product, detector)
    except ConfigError as problem:
        click.echo(f"gueststar: {problem}", err=True)
        sys.exit(2)
    for path, reason in summary.refused:
        click.echo(f"refused {path}: {reason}", err=True)
    click.echo(
        f"{summary.ingested} ingested ({len(summary.exposure_ids)} exposures), "
        f"{summary.already} already there, {len(summary.refused)} refused"
    )
    sys.exit(1 if summary.refused else 0)


def _ingest(
    repo: SurveyRepo, paths: list[Path], transfer: Transfer, product: str, detector: int | None
) -> IngestSummary:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from gueststar.pipelines.ingest import files_under, ingest_paths
    from gueststar.pipelines.ingest_products import ingest_products

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        files = list(files_under(paths)) if product == "raw" else paths
        bar = progress.add_task("ingest", total=len(files) if product == "raw" else None)
        on_file: OnFile = lambda _path, _status, _reason: progress.advance(bar)  # noqa: E731
        if product == "raw":
            return ingest_paths(repo, files, transfer=transfer, on_file=on_file)
        return ingest_products(
            repo, product, paths, detector=detector, measure=_measurers(repo, product), on_file=on_file
        )


def _measurers(repo: SurveyRepo, product: str) -> Measurers:
    """Return what is measured on images whose files do not tell it."""
    from gueststar.pipelines.ingest_products import Measurers

    if product == "source":
        return Measurers()
    from gueststar.pipelines.night.entry import ScienceEntry

    entry = ScienceEntry(repo)
    return Measurers(psf=entry.psf, sky=entry.sky, complete=entry.complete)
