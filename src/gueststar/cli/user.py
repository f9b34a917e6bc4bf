"""`gueststar user`: who may see what is not public, and with which tokens."""

from __future__ import annotations

from pathlib import Path

import click

_REPO = click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))
_GROUPS = click.option("--group", "groups", multiple=True, help="A group of survey.yaml (repeatable).")


@click.group()
def command() -> None:
    """Users of a survey: their groups, and the tokens with which they come in."""


@command.command()
@_REPO
@click.argument("name")
@_GROUPS
def add(repo: Path, name: str, groups: tuple[str, ...]) -> None:
    """Add the user NAME to the survey REPO."""
    from gueststar.operations.users import open_readers

    with open_readers(repo) as readers:
        click.echo(readers.add(name, groups))


@command.command()
@_REPO
@click.argument("name")
@_GROUPS
def groups(repo: Path, name: str, groups: tuple[str, ...]) -> None:
    """Put the user NAME of REPO into these groups and no others, at once (none: public only)."""
    from gueststar.operations.users import open_readers

    with open_readers(repo) as readers:
        click.echo(readers.set_groups(name, groups))


@command.command()
@_REPO
@click.argument("name")
def remove(repo: Path, name: str) -> None:
    """Forget the user NAME of REPO; all its tokens end."""
    from gueststar.operations.users import open_readers

    with open_readers(repo) as readers:
        click.echo(readers.remove(name))


@command.command("list")
@_REPO
def list_users(repo: Path) -> None:
    """List the users of REPO with what they may see, and their tokens (not the secrets)."""
    from gueststar.operations.users import open_readers

    with open_readers(repo) as readers:
        for line in readers.lines():
            click.echo(line)


@command.command()
@_REPO
@click.argument("name")
@click.option("--days", type=click.FloatRange(min=0, min_open=True, max=3660), default=90.0, show_default=True,
              help="Until it expires.")  # fmt: skip
@click.option("--scope", "scopes", multiple=True, type=click.Choice(["alerts", "data", "label", "watch"]),
              help="What it is good for (repeatable); default: alerts and data.")  # fmt: skip
def token(repo: Path, name: str, days: float, scopes: tuple[str, ...]) -> None:
    """Make a token of the user NAME of REPO and print it: it cannot be shown again."""
    from gueststar.operations.users import open_readers

    with open_readers(repo) as readers:
        click.echo(readers.new_token(name, scopes=scopes or ("alerts", "data"), days=days))


@command.command()
@_REPO
@click.argument("token_id")
def revoke(repo: Path, token_id: str) -> None:
    """End a token of REPO by its number (`list` shows it), at once."""
    from gueststar.operations.users import open_readers

    with open_readers(repo) as readers:
        click.echo(readers.revoke(token_id))


@command.command()
@_REPO
@click.option("--dry-run", is_flag=True, help="Only tell what would change.")
def access(repo: Path, dry_run: bool) -> None:
    """Bring the access lists of REPO's Kafka topics to what groups and releases say now."""
    from gueststar.store.repo import SurveyRepo
    from gueststar.stream.access import bring_up_to_date

    with SurveyRepo.open(repo) as opened:
        for line in bring_up_to_date(opened.root, opened.settings, is_dry=dry_run):
            click.echo(line)
