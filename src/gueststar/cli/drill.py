"""`gueststar drill`: rehearse a contingency and judge the recovery."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import click

from gueststar.core.errors import ConfigError


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--keep", type=click.Path(path_type=Path), help="Keep what was rehearsed in this folder [default: none].")
@click.option("--shadow", type=click.Path(exists=True, path_type=Path), help="Rehearse the last night of this survey.")
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON.")
def command(names: tuple[str, ...], keep: Path | None, shadow: Path | None, as_json: bool) -> None:
    """Play the drills NAMES ('list': show them; 'all': every one); exit status 1 if a survey did not recover."""
    from gueststar.operations.drills.catalog import DRILLS, play
    from gueststar.operations.drills.shadow import make_shadow
    from gueststar.operations.drills.stage import Stage
    from gueststar.operations.drills.world import make_world

    if names == ("list",):
        for name, drill in DRILLS.items():
            click.echo(f"{name:<22} {(drill.__doc__ or '').splitlines()[0]}")
        return
    chosen = tuple(DRILLS) if names == ("all",) else names
    if unknown := [name for name in chosen if name not in DRILLS]:
        raise ConfigError(f"there is no drill {unknown[0]!r}; see: gueststar drill list")
    with tempfile.TemporaryDirectory(prefix="gsdrill") as temporary:
        folder = (keep or Path(temporary)).absolute()
        world = make_shadow(shadow, folder / "world") if shadow else make_world(folder / "world")
        records = []
        for name in chosen:
            told = play(name, Stage(world, folder))
            records.append(told)
            if not as_json:
                click.echo("\n".join(told.lines()))
    if as_json:
        click.echo(json.dumps([told.to_json() for told in records], indent=1))
    sys.exit(0 if all(told.is_passed for told in records) else 1)
