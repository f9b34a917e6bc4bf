"""`gueststar camera`: list, show, draft and check camera descriptions."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def command() -> None:
    """Draft, check and show camera descriptions."""


@command.command("list")
def list_cameras() -> None:
    """List the packaged cameras."""
    from gueststar.cameras.load import camera_names, load_camera

    for name in camera_names():
        camera = load_camera(name)
        ny, nx = camera.detectors[0].shape
        click.echo(f"{name:10} {len(camera.detectors):3} x {nx} x {ny} pixels  {camera.description}")


@command.command()
@click.argument("camera")
@click.option("-p", "--picture", type=click.Path(dir_okay=False, path_type=Path), help="Draw the focal plane (PNG).")
def show(camera: str, picture: Path | None) -> None:
    """Print the whole description of CAMERA (a name or a YAML file)."""
    from gueststar.cameras.draw import draw_focal_plane
    from gueststar.cameras.load import load_camera, to_yaml

    loaded = load_camera(camera)
    click.echo(to_yaml(loaded), nl=False)
    if picture is not None:
        draw_focal_plane(loaded, picture)
        click.echo(f"focal plane drawn in {picture}", err=True)


@command.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the YAML here.")
def new(files: tuple[Path, ...], output: Path | None) -> None:
    """Draft a description from the headers of FILES.

    The first file gives geometry and cards, further ones add filters and kinds of frames. What was
    found, and how sure it is, is told; lines to be filled in by a person are marked in the YAML.
    """
    from gueststar.cameras.draft import draft_camera

    draft = draft_camera(files)
    for line in draft.lines():
        click.echo(line, err=output is None)
    if output is None:
        click.echo(draft.text, nl=False)
    else:
        output.write_text(draft.text, encoding="utf-8")
        click.echo(f"written to {output}; next: gueststar camera check {output} FILE...")


@command.command()
@click.argument("camera")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-p", "--picture", type=click.Path(dir_okay=False, path_type=Path), help="Where to draw the focal plane.")
@click.pass_context
def check(context: click.Context, camera: str, files: tuple[Path, ...], picture: Path | None) -> None:
    """Prove the description CAMERA (a name or a YAML file) on exposures FILES; status 1 if anything fails."""
    from gueststar.cameras.check import check_camera
    from gueststar.cameras.draw import draw_focal_plane
    from gueststar.cameras.load import load_camera

    loaded = load_camera(camera)
    report = check_camera(loaded, files)
    for line in report.lines():
        click.echo(line)
    drawn = picture or Path(f"{loaded.name}_focal_plane.png")
    draw_focal_plane(loaded, drawn)
    click.echo(f"focal plane drawn in {drawn}")
    click.echo("the description holds" if report.is_good else "the description FAILS")
    context.exit(0 if report.is_good else 1)
