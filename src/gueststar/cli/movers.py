"""`gueststar movers`: what moved in a night."""

from __future__ import annotations

from pathlib import Path

import click

_REPO = click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))
_NIGHT = click.option("--night", type=int, required=True, help="Survey night YYYYMMDD.")


@click.group()
def command() -> None:
    """Things that move: tracklets of a night, and their astrometry."""


@command.command("list")
@_REPO
@_NIGHT
def list_movers(repo: Path, night: int) -> None:
    """List the tracklets of a night of REPO; ? marks a direction of motion that may be the opposite one."""
    from gueststar.operations.movers import HEADING, tracklet_line, tracklets_of_night
    from gueststar.store.repo import SurveyRepo

    with SurveyRepo.open(repo) as opened:
        rows = tracklets_of_night(opened, night)
    click.echo(HEADING)
    for row in rows:
        click.echo(tracklet_line(row))


@command.command()
@_REPO
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@_NIGHT
@click.option("--submitter", required=True, help="Initials and surname of who sends it.")
@click.option("--observer", "observers", multiple=True, help="Who observed; may be given again [default: submitter].")
@click.option("--design", required=True, help="The telescope's, e.g. Schmidt.")
@click.option("--aperture", type=click.FloatRange(min=0, min_open=True), required=True, help="The telescope's, m.")
@click.option("--catalog", default="UNK", show_default=True, help="Astrometric catalog, e.g. Gaia3.")
@click.option("--lone-trails", is_flag=True, help="Also single trails, whose sense of motion is not known.")
def ades(
    repo: Path, out: Path, night: int, submitter: str, observers: tuple[str, ...], design: str, aperture: float,
    catalog: str, lone_trails: bool,
) -> None:  # fmt: skip
    """Write the astrometry of a night's tracklets of REPO to OUT, as the Minor Planet Center takes it (ADES, PSV)."""
    from gueststar.formats.ades import AdesHeader
    from gueststar.operations.movers import ades_of_night
    from gueststar.pipelines.moving.astrometry import AstrometryConfig
    from gueststar.store.repo import SurveyRepo

    people = observers or (submitter,)
    with SurveyRepo.open(repo) as opened:
        site = opened.camera.site
        header = AdesHeader(site.mpc_code, submitter, people, (submitter,), design, aperture, observatory=site.name)
        config = AstrometryConfig(is_lone_trail_told=lone_trails)
        out.write_text(ades_of_night(opened, night, header=header, catalog=catalog, config=config))
    click.echo(f"{out}: {sum('|CCD' in line for line in out.read_text().splitlines())} observations")


@command.command()
@_REPO
@_NIGHT
@click.option("--later", type=int, required=True, help="The other night, YYYYMMDD, later than --night.")
def orbits(repo: Path, night: int, later: int) -> None:
    """List pairs of tracklets of two nights of REPO through whose places one orbit about the Sun goes."""
    from gueststar.operations.movers import orbit_line, orbits_of_nights
    from gueststar.store.repo import SurveyRepo

    with SurveyRepo.open(repo) as opened:
        links = orbits_of_nights(opened, night, later)
    for link in links:
        click.echo(orbit_line(link))
    click.echo(f"{len(links)} pairs")
