"""`gueststar archive`: the second copy of raw files and products."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gueststar.operations.actions.contract import Action

_REPO = click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))
_DRY = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")


@click.group()
def command() -> None:
    """The second copy of raw files and products, on another disk (operation: disks: archive in survey.yaml)."""


@command.command()
@_REPO
def status(repo: Path) -> None:
    """Tell how the archive of REPO stands: room, nights, and what waits to be archived."""
    from gueststar.operations.second_copy import status_lines
    from gueststar.store.visible import open_as

    with open_as(repo) as survey:
        for line in status_lines(survey):
            click.echo(line)


@command.command()
@_REPO
@_DRY
def update(repo: Path, dry_run: bool) -> None:
    """Copy what the archive of REPO does not hold yet; broken off, the same command goes on."""
    from gueststar.operations.actions.archive_products import archive_products

    _act(repo, archive_products, {}, is_dry=dry_run)


@command.command()
@_REPO
@click.option("--files", type=click.IntRange(min=1), default=1000, show_default=True, help="How many are read back.")
@click.option("--all", "is_all", is_flag=True, help="All of them.")
@click.option("--mend/--no-mend", default=True, show_default=True, help="Make damaged copies anew from REPO.")
def verify(repo: Path, files: int, is_all: bool, mend: bool) -> None:
    """Read copies back and compare them with their checksums; exit status 1 if some are damaged for good."""
    from gueststar.operations.actions.archive_products import verify_archive

    _act(repo, verify_archive, {"files": None if is_all else files, "mend": mend})


@command.command()
@_REPO
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--night", "nights", type=int, multiple=True, help="All that the archive holds of this night.")
@click.option("--product", "products", multiple=True, help="Only this kind: science_image, raw...")
@click.option("--missing", is_flag=True, help="Only what is gone; links to the archive stay links.")
def restore(
    repo: Path, files: tuple[Path, ...], nights: tuple[int, ...], products: tuple[str, ...], missing: bool
) -> None:
    """Bring FILES, or nights, of REPO back from the archive; exit status 1 if one has no good copy."""
    from gueststar.operations.second_copy import restore as bring_back
    from gueststar.store.visible import open_as

    if not files and not nights and not missing:
        raise click.UsageError("name FILES or a --night, or say --missing for all that is gone")
    with open_as(repo) as survey:
        done = bring_back(survey, files=files, nights=nights, products=products, is_missing_only=missing)
    click.echo(f"{done.n_back} files brought back, {done.n_whole} were whole")
    for line in done.lost:
        click.echo(line, err=True)
    sys.exit(1 if done.lost else 0)


@command.command()
@_REPO
@click.option("--until", "until_gb", type=click.FloatRange(min=0), help="Make room until so many GB are free.")
@click.option("--keep-nights", type=click.IntRange(min=1), default=14, show_default=True)
@click.option("--raw", is_flag=True, help="Archived raw files may go as well.")
@_DRY
def clean(repo: Path, until_gb: float | None, keep_nights: int, raw: bool, dry_run: bool) -> None:
    """Make room on the disk of REPO: archived products become links to their copies, each proved first."""
    from gueststar.operations.actions.clean_sandbox import clean_sandbox

    given: dict[str, Any] = {"keep_nights": keep_nights, "raw": raw}
    if until_gb is not None:
        given |= {"below_gb": until_gb, "until_gb": until_gb}
    _act(repo, clean_sandbox, given, is_dry=dry_run)


@command.command()
@_REPO
def begin(repo: Path) -> None:
    """Make the empty folder that the settings of REPO name its archive, in the place of one that is lost."""
    from gueststar.store.archive.volume import begin_volume
    from gueststar.store.visible import open_as

    with open_as(repo) as survey:
        click.echo(f"{begin_volume(survey)} is the archive now: gueststar archive update {repo}")


def _act(repo: Path, action: Action, arguments: Mapping[str, Any], *, is_dry: bool = False) -> None:
    from gueststar.operations.second_copy import context_by_hand
    from gueststar.store.visible import open_as

    with open_as(repo) as survey:
        done = action(context_by_hand(survey, arguments, now=time.time(), is_dry=is_dry))
    click.echo(done.text)
    for line in (*done.data.get("rotten", ()), *done.data.get("damaged", ()), *done.data.get("kept", ())):
        click.echo(f"  {line}")
    sys.exit(1 if done.state == "failed" else 0)
