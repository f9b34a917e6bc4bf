"""gueststar init: make a survey repository."""

from __future__ import annotations

import sys

import click

from gueststar.core.errors import ConfigError


@click.command("init")
@click.argument("repo", type=click.Path())
@click.option("--camera", required=True, help="Name of a camera that comes with gueststar, or a YAML file.")
@click.option("--db", "db_url", help="PostgreSQL URL; without it SQLite files in the repository.")
def command(repo: str, camera: str, db_url: str | None) -> None:
    """Make the survey repository REPO."""
    from gueststar.cameras.load import load_camera
    from gueststar.store.repo import SurveyRepo

    try:
        with SurveyRepo.create(repo, load_camera(camera), db_url) as made:
            described = made.camera
            click.echo(f"{made.root}: a survey with {described.name} ({len(described.detectors)} detectors)")
            if not described.site.is_placed:
                click.echo(
                    "note: the site's latitude and longitude are 0: nights and airmasses will be wrong", err=True
                )
            click.echo(f"next: gueststar ingest {repo} FILES_OR_FOLDERS")
    except ConfigError as problem:
        click.echo(f"gueststar: {problem}", err=True)
        sys.exit(2)
