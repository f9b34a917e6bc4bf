"""`gueststar status`: how the survey fares now."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click


@click.command()
@click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--watch", is_flag=True, help="Show it again every few seconds, until interrupted.")
@click.option("--json", "is_json", is_flag=True, help="As values for programs.")
@click.option("--serve", "is_served", is_flag=True, help="As a page and as figures for Prometheus, until interrupted.")
@click.option("--host", default="127.0.0.1", show_default=True, help="With --serve: the address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8081, show_default=True, help="0: a free one.")
@click.option("--group", default="operators", show_default=True, help="Users who may see the page from elsewhere.")
def command(
    repo: Path, watch: bool, is_json: bool, is_served: bool, host: str, port: int, group: str
) -> None:  # fmt: skip
    """Show what runs, waits and went wrong in REPO, also while its database is down.

    Exit status: 0 all is well, 1 alarms are open, 3 the operator does not run. The page is shown without more to this
    machine's loopback address; to others with a token of a user in the operators' group.
    """
    if is_served:
        from gueststar.operations.watch.page import serve_status

        serve_status(repo, host=host, port=port, group=group, tell=click.echo)
        return
    from gueststar.operations.watch.facts import as_json
    from gueststar.operations.watch.terminal import status_of
    from gueststar.operations.watch.watcher import Watcher

    watcher = Watcher(repo)
    try:
        facts = watcher.facts()
        if is_json:
            click.echo(json.dumps(as_json(facts), default=str))
        elif watch:
            _show_on(watcher)
        else:
            from rich.console import Console

            Console().print(status_of(facts))
    finally:
        watcher.close()
    sys.exit(int(facts.standing))


def _show_on(watcher: object, every_s: float = 2.0) -> None:
    from rich.live import Live

    from gueststar.operations.watch.terminal import status_of
    from gueststar.operations.watch.watcher import Watcher

    assert isinstance(watcher, Watcher)
    with Live(status_of(watcher.facts()), screen=True, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(every_s)
                live.update(status_of(watcher.facts()), refresh=True)
        except KeyboardInterrupt:
            return
