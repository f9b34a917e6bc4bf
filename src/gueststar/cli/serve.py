"""`gueststar serve`: alert packets, cut-outs and schemas over HTTP."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0: every one.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: a free one.")
def command(repo: Path, host: str, port: int) -> None:
    """Serve the alerts of REPO by candid, their cut-outs, and the schemas of its streams, until interrupted.

    Everybody sees public alerts, and those of released nights; a user who sends his token (gueststar user token) those
    of his programs too. Another machine's readers belong behind a proxy that speaks TLS.
    """
    from gueststar.services.alerts import open_alert_app
    from gueststar.services.web_server import serve
    from gueststar.store.repo import SurveyRepo

    with SurveyRepo.open(repo) as opened:
        serve(open_alert_app(opened.root), host=host, port=port, tell=click.echo)
