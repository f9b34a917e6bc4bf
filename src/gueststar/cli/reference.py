"""`gueststar reference`: the versions of the references at a place."""

from __future__ import annotations

from pathlib import Path

import click

from gueststar.cli.as_reader import as_reader


@click.command("reference")
@click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("place")
@click.option("--band", help="Only references in this band.")
@as_reader("the operator")
def command(repo: Path, place: str, band: str | None, as_reader: str | None) -> None:
    """Print all versions of the references of REPO that cover PLACE (RA,DEC in degrees), and their flux there.

    The flux of an object is that of its difference detection and that of the reference of the same reference_id (rfid
    of the packets), so that fluxes of before and after a new version can be compared.
    """
    from gueststar.formats.places import read_places
    from gueststar.operations.references import ReferenceAt, references_at
    from gueststar.store.visible import open_as

    places = read_places(place)
    with open_as(repo, as_reader) as survey:
        found = references_at(survey, ra=float(places["ra"][0]), dec=float(places["dec"][0]), band=band)
    click.echo(",".join(ReferenceAt._fields))
    for item in found:
        click.echo(
            f"{item.reference_id},{item.field},{item.detector},{item.band},{item.version},{item.n_epochs},"
            f"{item.mjd_first:.5f},{item.mjd_last:.5f},{item.flux:.2f},{item.flux_err:.2f}"
        )
