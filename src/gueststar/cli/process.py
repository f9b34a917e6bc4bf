"""`gueststar process`: from raw exposures to alerts."""

from __future__ import annotations

import sys
from pathlib import Path

import click

STAGES = ("calibrate", "science", "reference", "difference", "associate", "movers", "precover", "learn", "inject")

CLUSTERS = ("local", "slurm", "htcondor", "pbs", "kubernetes", "scheduler")


@click.command()
@click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--night", "nights", type=int, multiple=True, help="Survey night YYYYMMDD (repeatable); default: all.")
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes; default: as survey.yaml says, or one.")
@click.option(
    "--cluster",
    type=click.Choice(CLUSTERS),
    help="Where workers are; default: as survey.yaml says (operation.cluster), or processes of this machine.",
)
@click.option("--until", type=click.Choice(STAGES), default=STAGES[-1], show_default=True, help="Last stage to run.")
@click.option("--retry", is_flag=True, help="Try failed and quarantined work again.")
@click.option(
    "--again",
    is_flag=True,
    help="Calibrate and subtract named nights anew, with the calibrations and parameters of now.",
)
def command(
    repo: Path, nights: tuple[int, ...], workers: int | None, cluster: str | None, until: str, retry: bool, again: bool
) -> None:
    """Process nights of REPO; what is done already is not done again, what was interrupted goes on."""
    from gueststar.pipelines.night.process import process_nights

    with ProgressBars() as bars:
        summary = process_nights(
            repo, nights=nights, n_workers=workers, cluster=cluster, until=until, do_retry=retry, do_again=again,
            progress=bars, tell=bars.tell,
        )  # fmt: skip
    for line in summary.lines():
        click.echo(line)
    sys.exit(0 if summary.is_complete else 1)


class ProgressBars:
    """One bar a stage on a terminal; one line a stage elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._is_terminal = Console().is_terminal
        self._bars = Progress(
            TextColumn("{task.description:<11}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        )
        self._tasks: dict[str, object] = {}

    def __enter__(self) -> ProgressBars:
        if self._is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_terminal:
            self._bars.stop()

    def tell(self, line: str) -> None:
        """Write a line above the bars."""
        self._bars.console.print(f"gueststar: {line}", markup=False, highlight=False, soft_wrap=True)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` units of a stage are finished."""
        if total == 0:
            return
        if not self._is_terminal:
            if done == total:
                click.echo(f"{stage}: {done} of {total}")
            return
        if done == 0 or stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total)
        self._bars.update(self._tasks[stage], completed=done, total=total)  # type: ignore[arg-type]
