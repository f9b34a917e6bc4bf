"""`gueststar refcat`: local reference catalogs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from gueststar.store.refcats import RefcatStore

_REPO = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def command() -> None:
    """Reference catalogs on local disk: positions, proper motions and magnitudes of known stars."""


@command.command("import")
@click.argument("repo", type=_REPO)
@click.argument("tables", nargs=-1, required=True, type=_FILE)
@click.option("--name", help="Name of the catalog; several tables may go into one [default: the file's name].")
@click.option("--columns", help="Our columns and the table's: ra=RAJ2000,dec=DEJ2000,mag_g=gmag,...")
@click.option("--epoch", type=float, help="Julian year of the positions where no column tells it.")
@click.option(
    "--format", "table_format", type=click.Choice(["table", "astrometry-index"]), default="table", show_default=True,
    help="Table: FITS, Parquet, CSV, ECSV or VOTable. Index: Astrometry.net files such as Debian's Tycho-2.",
)  # fmt: skip
@click.option("--replace", is_flag=True, help="Forget what is stored under the name instead of merging.")
def import_tables(
    repo: Path, tables: tuple[Path, ...], name: str | None, columns: str | None, epoch: float | None,
    table_format: str, replace: bool,
) -> None:  # fmt: skip
    """Import TABLES into REPO (a repository, or a folder of reference catalogs).

    The columns of Gaia, Pan-STARRS, SDSS, ATLAS-RefCat2, VizieR tables and our own simulations are
    recognised; what was taken for what is told.
    """
    from gueststar.pipelines.refcat_import import import_refcat

    for index, table in enumerate(tables):
        done = import_refcat(
            _store(repo), table, name=name, columns=_pairs(columns), epoch=epoch,
            table_format="astrometry-index" if table_format == "astrometry-index" else "table",
            replace=replace and (index == 0 or name is None),
        )  # fmt: skip
        for ours, theirs in done.mapping.items():
            click.echo(f"  {ours:12s} <- {theirs}")
        dropped = f", {done.n_dropped} rows without a position left out" if done.n_dropped else ""
        click.echo(f"{table.name}: {done.n_read} stars{dropped}; catalog {done.info.name} has {done.info.n_rows}")


@command.command("from-images")
@click.argument("repo", type=_REPO)
@click.argument("images", nargs=-1, required=True, type=_FILE)
@click.option("--name", default="from-images", show_default=True, help="Name of the catalog; one of that name goes.")
def from_images(repo: Path, images: tuple[Path, ...], name: str) -> None:
    """Make a catalog from raw science IMAGES of REPO's camera whose header WCS is trusted.

    For places with no catalog at hand: magnitudes are relative and their zero point arbitrary. Bias, dark and flat
    masters that REPO holds are used (gueststar process REPO --until calibrate makes them).
    """
    from gueststar.pipelines.night.calibrations.known import calibrations_of
    from gueststar.pipelines.refcat_import import refcat_from_images
    from gueststar.store.repo import SurveyRepo

    survey = SurveyRepo.open(repo)
    info = refcat_from_images(
        _store(repo), survey.camera, images, name=name, report=click.echo, calibrations=calibrations_of(survey)
    )
    click.echo(f"catalog {info.name}: {info.n_rows} stars; magnitudes {info.metadata['magnitudes']}")


@command.command()
@click.argument("repo", type=_REPO)
@click.argument("name", required=False)
def index(repo: Path, name: str | None) -> None:
    """Index a catalog of REPO for Astrometry.net's solver, so that exposures without a position can be found."""
    from gueststar.pipelines.blind import index_refcat
    from gueststar.store.repo import SurveyRepo

    for path in index_refcat(SurveyRepo.open(repo), name):
        click.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


@command.command()
@click.argument("repo", type=_REPO)
@click.argument("name", required=False)
def show(repo: Path, name: str | None) -> None:
    """List the catalogs of REPO, or tell all about one."""
    import json

    store = _store(repo)
    if name:
        info = store.info(name)
        area = store.coverage(name).size * 41252.96 / (12 * 4**7)
        click.echo(f"{name}: {info.n_rows} stars in {len(info.shards)} files, about {area:.1f} square degrees")
        click.echo(json.dumps(info.metadata, indent=1))
        return
    for each in store.names():
        info = store.info(each)
        scale = "" if info.metadata.get("is_calibrated", True) else "; magnitudes not calibrated"
        click.echo(f"{each}: {info.n_rows} stars from {info.metadata.get('origin', 'unknown')}{scale}")


def _store(repo: Path) -> RefcatStore:
    """Return the catalogs of a repository, or of a folder that is no repository."""
    from gueststar.store.refcats import RefcatStore

    return RefcatStore(repo / "refcats" if (repo / "camera.yaml").is_file() else repo)


def _pairs(text: str | None) -> dict[str, str]:
    """Return ``a=b,c=d`` as a dictionary."""
    if not text:
        return {}
    pairs = [item.partition("=") for item in text.split(",")]
    if bad := ["".join(pair) for pair in pairs if not (pair[0] and pair[2])]:
        raise click.BadParameter(f"{bad[0]!r} is not of the form ours=theirs", param_hint="--columns")
    return {ours.strip(): theirs.strip() for ours, _, theirs in pairs}
