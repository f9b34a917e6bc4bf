"""`gueststar size`: how many cores, how much memory, disk and network a survey needs."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("survey", required=False)
@click.option(
    "--measure", "repo", type=click.Path(exists=True, file_okay=False, path_type=Path), multiple=True,
    help="Take costs from what this repository processed on this machine; several: several kinds of sky.",
)  # fmt: skip
@click.option("--measured", "measured_file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Take costs from this file (benchmarks/throughput.py --write).")  # fmt: skip
@click.option("--json", "is_json", is_flag=True, help="Give JSON.")
def command(survey: str | None, repo: tuple[Path, ...], measured_file: Path | None, is_json: bool) -> None:
    """Say what SURVEY needs: the name of one that is known, or a file that describes one.

    Without SURVEY the known ones are listed.
    """
    from gueststar.operations.sizing.description import read_survey, shipped_names
    from gueststar.operations.sizing.text import as_json, size_lines, size_of
    from gueststar.operations.sizing.throughput import measured_now, read_throughput, shipped_throughput

    if survey is None:
        for name in shipped_names():
            click.echo(f"{name:10} {read_survey(name).title}")
        return
    described = read_survey(survey)
    if repo:
        from gueststar.operations.sizing.measuring import measure_repo
        from gueststar.store.visible import open_as

        skies = []
        for root in repo:
            with open_as(root) as opened:
                skies.append(measure_repo(opened, name=opened.settings.name))
        throughput = measured_now(skies, how="gueststar size --measure")
    else:
        throughput = read_throughput(measured_file) if measured_file else shipped_throughput()
    sizing, findings, _ = size_of(described, throughput)
    if is_json:
        click.echo(json.dumps(as_json(sizing, findings, throughput), indent=1))
        return
    for line in size_lines(sizing, findings, throughput):
        click.echo(line)
