"""`gueststar simulate`: nights of raw exposures with truth."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="simulate")
@click.argument("outdir", type=click.Path(path_type=Path))
@click.option("--camera", default="simcam", show_default=True, help="Packaged camera, or a camera YAML file.")
@click.option("--scenario", default="demo", show_default=True, help="Packaged scenario, or a scenario YAML file.")
@click.option("--nights", type=click.IntRange(min=1), help="Number of nights [default: those of the scenario].")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="The same seed, the same bytes.")
@click.option("--density", help="Stars: auto, high_latitude, plane, or a number per square degree to r = 20.")
@click.option("--detectors", help="Detector ids to read out, comma-separated [default: all].")
@click.option("--filter", "filters", multiple=True, metavar="NAME=MINE", help="Use MINE where the scenario says NAME.")
@click.option("--orbits", type=click.Path(exists=True), help="Real orbits: reply of the JPL SBDB query service.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes; same bytes.")
@click.option("--quiet", is_flag=True, help="Say nothing while working.")
def command(
    outdir: Path, camera: str, scenario: str, nights: int | None, seed: int, density: str | None,
    detectors: str | None, filters: tuple[str, ...], orbits: str | None, workers: int,
    quiet: bool,
) -> None:  # fmt: skip
    """Write nights of raw exposures, calibration frames, truth tables and a reference catalog to OUTDIR."""
    from gueststar.cameras.load import load_camera
    from gueststar.simulation.scenario import adapted, load_scenario
    from gueststar.simulation.simulate import simulate

    if wrong := [item for item in filters if item.count("=") != 1]:
        raise click.BadParameter(f"{wrong[0]!r} is not NAME=MINE", param_hint="--filter")
    replaced = dict(item.split("=") for item in filters)
    plan = adapted(load_scenario(scenario), n_nights=nights, density=density, orbits=orbits, filters=replaced)
    chosen = tuple(int(item) for item in detectors.split(",")) if detectors else None
    report = (lambda _: None) if quiet else click.echo
    done = simulate(outdir, load_camera(camera), plan, seed=seed, detector_ids=chosen, n_workers=workers, report=report)
    click.echo(
        f"{done.n_science} science exposures ({done.n_lost} more are scheduled but lost) "
        f"and {done.n_calibration} calibration frames in {done.folder}"
    )
