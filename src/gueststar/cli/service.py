"""`gueststar service`: systemd's unit files of a survey."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--user", "is_user", is_flag=True, help="For your own service manager instead of the machine's.")
@click.option("--print", "is_printed", is_flag=True, help="Show them; write nothing.")
@click.option("--status-port", type=click.IntRange(1, 65535), default=8081, show_default=True, help="Of the page.")
@click.option(
    "--monitoring", type=click.Path(file_okay=False, path_type=Path),
    help="Write the files for Prometheus and Grafana into this folder instead.",
)  # fmt: skip
@click.option("--alerts-port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="Of the alerts.")
def command(
    repo: Path, is_user: bool, is_printed: bool, status_port: int, alerts_port: int, monitoring: Path | None
) -> None:  # fmt: skip
    """Write systemd's unit files for the operator, status page, alert service and watch of REPO."""
    from gueststar.operations.watch.monitoring import write_monitoring
    from gueststar.operations.watch.systemd import Services, folder_of, next_steps, unit_files, write_units
    from gueststar.store.settings import read_settings

    if monitoring is not None:
        for path in write_monitoring(monitoring, port=status_port):
            click.echo(path)
        return
    root = repo.absolute()
    settings = read_settings(root / "survey.yaml")
    services = Services(
        root, settings.name, settings.operation, is_user=is_user, status_port=status_port, alerts_port=alerts_port
    )
    if is_printed:
        for name, text in unit_files(services).items():
            click.echo(f"# {folder_of(services) / name}\n{text}")
        return
    for path in write_units(services, folder_of(services)):
        click.echo(path)
    click.echo("now: " + "; ".join(next_steps(services)))
