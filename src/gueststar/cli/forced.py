"""`gueststar forced`: fluxes at given places on science or difference images, detected or not."""

from __future__ import annotations

from pathlib import Path

import click

from gueststar.cli.as_reader import as_reader, reader_of
from gueststar.model.readers import ANONYMOUS


@click.command("forced")
@click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("places", required=False)
@click.option("--ra", type=float, help="Right ascension of one place, degrees (instead of PLACES).")
@click.option("--dec", type=float, help="Its declination, degrees.")
@click.option("--object", "name", help="Name of an object (instead of PLACES): its place, on differences.")
@click.option("--on", "kind", type=click.Choice(["science", "difference"]),
              help="Which images; default: science, for an object difference.")  # fmt: skip
@click.option("--band", help="Only exposures in this band.")
@click.option("--night", type=int, help="Only exposures of this survey night, YYYYMMDD.")
@click.option("--program", "programs", multiple=True, type=click.Choice(["public", "partnership", "private"]),
              help="Programs that the reader may see (repeatable); default: public only.")  # fmt: skip
@as_reader("anonymous")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write a Parquet table too.")
def command(
    repo: Path, places: str | None, ra: float | None, dec: float | None, name: str | None, kind: str | None,
    band: str | None, night: int | None, programs: tuple[str, ...], as_reader: str | None,
    output: Path | None,
) -> None:  # fmt: skip
    """Print PSF fluxes at PLACES on all images in REPO that cover them.

    PLACES is RA,DEC in degrees, or a CSV file with the columns ra, dec and, if you like, place (a whole number).
    """
    from gueststar.formats.places import read_places
    from gueststar.operations.forced import forced_on_differences, forced_photometry, place_of_object
    from gueststar.store.visible import open_as

    if (ra is None) != (dec is None):
        raise click.UsageError("--ra and --dec belong together")
    if sum(given is not None for given in (places, ra, name)) != 1:
        raise click.UsageError("give PLACES, or --ra and --dec, or --object")
    with open_as(repo, reader_of(programs, as_reader, otherwise=ANONYMOUS)) as survey:
        if name is not None:
            wanted = place_of_object(survey, name)
        else:
            wanted = read_places(places if places is not None else f"{ra},{dec}")
        is_difference = (kind or ("difference" if name else "science")) == "difference"
        measure = forced_on_differences if is_difference else forced_photometry
        found = measure(survey, wanted, band=band, night=night)
    if output:
        from gueststar.formats.parquet import write_catalog

        write_catalog(output, found)
    names = ("place", "visit", "detector", "mjd_tai", "psf_flux", "psf_flux_err", "chi2", "flags")
    click.echo(",".join(names))
    for k in range(found.n_rows):
        place, visit, detector, mjd, flux, error, chi2, flags = (found[name][k] for name in names)
        click.echo(f"{place},{visit},{detector},{mjd:.6f},{flux:.2f},{error:.2f},{chi2:.2f},{flags}")
