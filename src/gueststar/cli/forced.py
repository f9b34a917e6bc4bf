"""`gueststar forced`: fluxes at given places on the science images, detected or not."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("forced")
@click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("places")
@click.option("--band", help="Only exposures in this band.")
@click.option("--night", type=int, help="Only exposures of this survey night, YYYYMMDD.")
@click.option("--program", "programs", multiple=True, type=click.Choice(["public", "partnership", "private"]),
              help="Programs that the reader may see (repeatable); default: public only.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write a Parquet table too.")
def command(
    repo: Path, places: str, band: str | None, night: int | None, programs: tuple[str, ...], output: Path | None
) -> None:
    """Print PSF fluxes at PLACES on all science images in REPO that cover them.

    PLACES is RA,DEC in degrees, or a CSV file with the columns ra, dec and, if you like, place (a whole number).
    """
    from gueststar.formats.places import read_places
    from gueststar.operations.forced import forced_photometry
    from gueststar.store.repo import SurveyRepo

    with SurveyRepo.open(repo) as survey:
        found = forced_photometry(
            survey, read_places(places), band=band, night=night, programs=programs or ("public",)
        )  # fmt: skip
    if output:
        from gueststar.formats.parquet import write_catalog

        write_catalog(output, found)
    names = ("place", "visit", "detector", "mjd_tai", "psf_flux", "psf_flux_err", "chi2", "flags")
    click.echo(",".join(names))
    for k in range(found.n_rows):
        place, visit, detector, mjd, flux, error, chi2, flags = (found[name][k] for name in names)
        click.echo(f"{place},{visit},{detector},{mjd:.6f},{flux:.2f},{error:.2f},{chi2:.2f},{flags}")
