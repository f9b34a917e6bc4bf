"""gueststar ingest: take in files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gueststar.core.errors import ConfigError

if TYPE_CHECKING:
    from gueststar.pipelines.ingest import IngestSummary, OnFile
    from gueststar.pipelines.ingest_products import EntryOptions
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
    type=click.Choice(["raw", "science_image", "difference_image", "source", "dia_source"]),
    default="raw",
    show_default=True,
    help="What the files are: raw exposures, or your own images, source catalogs, detections on differences.",
)
@click.option("--detector", type=int, help="Detector id, where your products do not tell.")
@click.option("--set", "cards", multiple=True, metavar="CARD=VALUE", help="A header card that your products lack.")
@click.option("--columns", help="Our columns and your catalog's: ra=RAJ2000,psf_flux=FLUX,mjd_utc=MJD,...")
@click.option(
    "--companion", "companions", multiple=True, metavar="PLANE=NAME",
    help="Another file beside each image: variance={stem}_var.fits, mask=..., science=..., reference=...",
)  # fmt: skip
def command(
    repo: str, paths: tuple[str, ...], transfer: Transfer, product: str, detector: int | None,
    cards: tuple[str, ...], columns: str | None, companions: tuple[str, ...],
) -> None:  # fmt: skip
    """Take PATHS (files, and FITS files in folders) into the survey repository REPO."""
    from gueststar.pipelines.ingest_products import EntryOptions
    from gueststar.store.repo import SurveyRepo

    options = EntryOptions(
        detector=detector, transfer=transfer,
        cards={key.upper(): _value(text) for key, text in _pairs(cards, "--set").items()},
        columns=_pairs(tuple((columns or "").split(",")) if columns else (), "--columns"),
        companions=_pairs(companions, "--companion"),
    )  # fmt: skip
    try:
        with SurveyRepo.open(repo) as opened:
            summary = _ingest(opened, [Path(path) for path in paths], product, options)
    except ConfigError as problem:
        click.echo(f"gueststar: {problem}", err=True)
        sys.exit(2)
    for path, note in summary.notes:
        click.echo(f"{path.name}: {note}")
    for path, reason in summary.refused:
        click.echo(f"refused {path}: {reason}", err=True)
    click.echo(
        f"{summary.ingested} ingested ({len(summary.exposure_ids)} exposures), "
        f"{summary.already} already there, {len(summary.refused)} refused"
    )
    sys.exit(1 if summary.refused else 0)


def _ingest(repo: SurveyRepo, paths: list[Path], product: str, options: EntryOptions) -> IngestSummary:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from gueststar.formats.raw_names import is_raw_name
    from gueststar.pipelines.ingest import files_under, ingest_paths
    from gueststar.pipelines.ingest_products import ingest_products

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        files = list(files_under(paths, is_wanted=is_raw_name)) if product == "raw" else paths
        bar = progress.add_task("ingest", total=len(files) if product == "raw" else None)
        on_file: OnFile = lambda _path, _status, _reason: progress.advance(bar)  # noqa: E731
        if product == "raw":
            return ingest_paths(repo, files, transfer=options.transfer, on_file=on_file)
        return ingest_products(repo, product, paths, options=options, on_file=on_file)


def _pairs(texts: tuple[str, ...], option: str) -> dict[str, str]:
    """Return ``a=b`` texts as a dictionary."""
    pairs = [text.partition("=") for text in texts]
    if bad := ["".join(pair) for pair in pairs if not (pair[0].strip() and pair[2].strip())]:
        raise click.BadParameter(f"{bad[0]!r} is not of the form NAME=VALUE", param_hint=option)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _value(text: str) -> Any:
    """Return a card's value as FITS has it: an integer, a number or text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
