"""`gueststar lightcurve`: the light curve at a place, relative to the stars around it."""

from __future__ import annotations

from pathlib import Path

import click

from gueststar.cli.as_reader import as_reader, reader_of
from gueststar.model.readers import ANONYMOUS


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("place")
@click.option("--band", help="Band; needed where several were observed.")
@click.option("--radius", default=2.0, show_default=True, help="How near a source must be, arcsec.")
@click.option("--flux", default="psf_flux", show_default=True, help="psf_flux, or ap_flux_1 to ap_flux_4 (apertures).")
@click.option("--program", "programs", multiple=True, type=click.Choice(["public", "partnership", "private"]),
              help="Programs that the reader may see (repeatable); default: public only.")  # fmt: skip
@as_reader("anonymous")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write a Parquet table too.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw a PNG too.")
def command(
    repo: Path, place: str, band: str | None, radius: float, flux: str, programs: tuple[str, ...],
    as_reader: str | None, output: Path | None, plot: Path | None,
) -> None:  # fmt: skip
    """Print the light curve at PLACE (RA,DEC in degrees) from the catalogs in REPO."""
    from gueststar.operations.lightcurve import draw_light_curve, light_curve_at
    from gueststar.store.visible import open_as

    ra, dec = (float(word) for word in place.split(","))
    with open_as(repo, reader_of(programs, as_reader, otherwise=ANONYMOUS)) as survey:
        curve = light_curve_at(survey, ra=ra, dec=dec, band=band, radius_arcsec=radius, flux=flux)
    if output:
        from gueststar.formats.parquet import write_catalog

        write_catalog(output, curve)
    if plot:
        plot.write_bytes(draw_light_curve(curve))
    click.echo("mjd_tai,mag,mag_err,relative_mag,relative_mag_err")
    for k in range(curve.n_rows):
        values = [curve[name][k] for name in ("mag", "mag_err", "relative_mag", "relative_mag_err")]
        click.echo(f"{curve['mjd_tai'][k]:.6f}," + ",".join(f"{value:.4f}" for value in values))
