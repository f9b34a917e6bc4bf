"""`gueststar why`: the whole causal story of one thing."""

from __future__ import annotations

from pathlib import Path

import click

from gueststar.cli.as_reader import as_reader


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("subject")
@as_reader("the operator")
def command(repo: Path, subject: str, as_reader: str | None) -> None:
    """Tell what arrived, what was used and what was rejected where, for SUBJECT in REPO.

    SUBJECT is an exposure's id, an alert's candid, an object's name, the name of a file, a night (YYYYMMDD), the name
    of a rule, or a place on the sky as RA,DEC in degrees. The id of an exposure that never came tells who expected it.
    """
    from gueststar.operations.why import story_of
    from gueststar.store.visible import open_as

    with open_as(repo, as_reader) as survey:
        for line in story_of(survey, subject):
            click.echo(line)
