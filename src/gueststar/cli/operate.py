"""`gueststar operate`: the operator, which runs a survey by itself."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command()
@click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--workers", type=click.IntRange(min=0),
    help="Worker processes; 0: units run in the operator's own process. Default: as survey.yaml says.",
)  # fmt: skip
@click.option(
    "--cluster", type=click.Choice(["local", "slurm", "htcondor", "pbs", "kubernetes", "scheduler"]),
    help="Where workers run; default: as survey.yaml says.",
)  # fmt: skip
@click.option("--until-idle", is_flag=True, help="End when nothing is left to do: for scripts.")
@click.option(
    "--dry-run", type=click.Choice(["rules", "plan"]),
    help="Say what rules would do with what is landing; or also take it in and plan, but run nothing.",
)  # fmt: skip
@click.option("--as-if", metavar="TIME", help="Rehearse: what time it is at the start, UTC: 2026-01-01T02:00:00.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), default=1.0, help="How fast that clock runs.")
@click.option("--pause", metavar="REASON", help="Let the running operator begin nothing new; files still land.")
@click.option("--resume", is_flag=True, help="Let it go on.")
@click.option("--signal", "signal_name", metavar="NAME", help="Give it a signal: night_begins, night_ends...")
def command(
    repo: Path, workers: int | None, cluster: str | None, until_idle: bool, dry_run: str | None, as_if: str | None,
    rate: float, pause: str | None, resume: bool, signal_name: str | None,
) -> None:  # fmt: skip
    """Run the survey REPO: take in what lands, process, publish, and do what its rules say, until stopped."""
    from gueststar.operations.operator.control import speak
    from gueststar.operations.operator.dry_run import dry_run_lines
    from gueststar.operations.operator.start import OperateOptions, operate, unix_time

    if pause is not None or resume or signal_name is not None:
        for line in speak(repo, pause_reason=pause, do_resume=resume, signal=signal_name):
            click.echo(line)
        return
    options = OperateOptions(
        n_workers=workers, cluster=cluster, until_idle=until_idle, rate=rate,
        started_at=None if as_if is None else unix_time(as_if),
    )  # fmt: skip
    if dry_run is not None:
        for line in dry_run_lines(repo, options, level=dry_run):
            click.echo(line)
        return
    is_complete = operate(repo, options, tell=lambda line: click.echo(f"gueststar: {line}", err=True))
    sys.exit(0 if is_complete else 1)
