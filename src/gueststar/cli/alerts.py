"""`gueststar alerts`: find, show and export alert packets."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import click

from gueststar.core.errors import DataError
from gueststar.model.rights import Program

PROGRAMS: dict[str, tuple[Program, ...]] = {
    "public": (Program.PUBLIC,),
    "partnership": (Program.PARTNERSHIP,),
    "private": (Program.PRIVATE,),
    "all": (Program.PUBLIC, Program.PARTNERSHIP, Program.PRIVATE),
}

_REPO = click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))


def _programs(function: Callable[..., Any]) -> Callable[..., Any]:
    text = "Whose alerts; public unless told otherwise."
    return click.option("--program", type=click.Choice(list(PROGRAMS)), default="public", help=text)(function)


@click.group()
def command() -> None:
    """Find, show and export alert packets."""


@command.command("list")
@_REPO
@click.option("--night", type=int, help="Survey night YYYYMMDD; default: all.")
@click.option("--object", "object_name", help="Name of an object; default: all.")
@_programs
def list_alerts(repo: Path, night: int | None, object_name: str | None, program: str) -> None:
    """List alerts of REPO in order of arrival: candid, object, night, program."""
    from gueststar.store.alert_log import AlertLog

    for entry in AlertLog(repo).entries(programs=PROGRAMS[program], day_obs=night, object_name=object_name):
        name = Program(entry.program).name.lower()
        click.echo(f"{entry.candid} {entry.object_name} {entry.day_obs} {name} {entry.length}")


@command.command()
@_REPO
@click.argument("candid", type=int)
@click.option("--cutouts", type=click.Path(dir_okay=False, path_type=Path), help="Also draw the cut-outs (PNG).")
@_programs
def show(repo: Path, candid: int, cutouts: Path | None, program: str) -> None:
    """Show the alert CANDID of REPO as JSON, cut-outs left out."""
    from gueststar.formats.avro import decode_alert
    from gueststar.store.alert_log import AlertLog

    log = AlertLog(repo)
    entry = log.find(candid, programs=PROGRAMS[program])
    if entry is None:
        raise DataError(f"no {program} alert {candid} in {repo}: gueststar alerts list {repo} --program all")
    packet = decode_alert(log.read(entry))
    if cutouts is not None:
        from gueststar.formats.cutout_picture import draw_cutouts

        draw_cutouts(packet, cutouts)
    told = {key: value for key, value in packet.items() if not key.startswith("cutout")}
    click.echo(json.dumps(told, indent=1))


@command.command()
@_REPO
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--night", type=int, help="Survey night YYYYMMDD; default: all.")
@_programs
def export(repo: Path, out: Path, night: int | None, program: str) -> None:
    """Export alerts of REPO as a tar file OUT of packets, as they were sent."""
    from gueststar.store.alert_log import AlertLog

    n = 0
    with tarfile.open(out, "w") as archive:
        for entry, data in AlertLog(repo).replay(programs=PROGRAMS[program], day_obs=night):
            member = tarfile.TarInfo(f"{entry.candid}.avro")
            member.size = len(data)
            archive.addfile(member, BytesIO(data))
            n += 1
    click.echo(f"{n} alerts in {out}")
