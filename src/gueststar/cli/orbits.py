"""`gueststar orbits`: orbits of known Solar-System bodies, by which alerts name the nearest one."""

from __future__ import annotations

from pathlib import Path

import click

_REPO = click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))


@click.group()
def command() -> None:
    """Orbits of known Solar-System bodies, by which alerts name the nearest one."""


@command.command("import")
@_REPO
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def import_files(repo: Path, files: tuple[Path, ...]) -> None:
    """Import orbits into REPO: MPCORB.DAT, JPL's SBDB (JSON or CSV), tables with its column names; gzip or not.

    A body that is there already gets the new orbit. Import again every few months: orbits age.
    """
    from gueststar.formats.orbit_table import read_orbits
    from gueststar.store.orbits import OrbitStore
    from gueststar.store.repo import SurveyRepo

    with SurveyRepo.open(repo) as opened:
        store = OrbitStore(opened.root)
    for path in files:
        found = read_orbits(path)
        n = store.take(found.catalog, metadata={path.name: found.catalog.n_rows})
        left_out = f", {found.n_left_out} without a complete elliptic orbit left out" if found.n_left_out else ""
        click.echo(f"{path.name}: {found.catalog.n_rows} orbits{left_out}; {n} bodies in {repo}")


@command.command()
@_REPO
def show(repo: Path) -> None:
    """Tell how many orbits REPO has, and of which epochs."""
    from gueststar.operations.orbits import lines_of_orbits

    for line in lines_of_orbits(repo):
        click.echo(line)


@command.command(context_settings={"ignore_unknown_options": True})
@_REPO
@click.argument("ra", type=float)
@click.argument("dec", type=float)
@click.argument("time")
@click.option("--radius", type=click.FloatRange(0, 10), default=0.5, show_default=True, help="Degrees.")
def near(repo: Path, ra: float, dec: float, time: str, radius: float) -> None:
    """List the known bodies about (RA, DEC) in degrees at TIME (UTC, 2026-01-01T00:00:00) from REPO's site."""
    from gueststar.operations.orbits import lines_near

    for line in lines_near(repo, ra=ra, dec=dec, time_utc=time, radius_deg=radius):
        click.echo(line)
