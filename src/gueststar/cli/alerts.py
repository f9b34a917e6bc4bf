"""`gueststar alerts`: find, show, export, publish, retract and replay alert packets."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from gueststar.cli.alert_archive import CHOICE, COMMANDS, SURVEY, entries_behind, nights_of, opened_log, query_of
from gueststar.cli.as_reader import STREAMS, as_reader
from gueststar.core.errors import ConfigError, DataError
from gueststar.model.rights import Program

PROGRAMS = STREAMS

_REPO = click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))


def _programs(function: Callable[..., Any]) -> Callable[..., Any]:
    text = "Alerts of this stream only."
    option = click.option("--program", type=click.Choice(list(PROGRAMS)), help=text)
    return option(as_reader("anonymous, or all of --program")(function))


@click.group()
def command() -> None:
    """Find, show, export and publish alert packets."""


for _archive_command in COMMANDS:
    command.add_command(_archive_command)


@command.command("list")
@_REPO
@click.option("--night", type=int, help="Survey night YYYYMMDD; default: all.")
@click.option("--object", "object_name", help="Name of an object; default: all.")
@_programs
@SURVEY
def list_alerts(repo: Path, night: int | None, object_name: str | None, survey: str | None, **eyes: str | None) -> None:
    """List alerts of REPO in order of arrival: candid, object, night, program."""
    nights = nights_of(repo, {**eyes, "survey": survey})
    with opened_log(repo, survey) as log:
        for entry in log.entries(programs=nights, day_obs=night, object_name=object_name):
            name = Program(entry.program).name.lower()
            click.echo(f"{entry.candid} {entry.object_name} {entry.day_obs} {name} {entry.length}")


@command.command()
@_REPO
@click.argument("candid", type=int)
@click.option("--cutouts", type=click.Path(dir_okay=False, path_type=Path), help="Also draw the cut-outs (PNG).")
@_programs
@SURVEY
def show(repo: Path, candid: int, cutouts: Path | None, survey: str | None, **eyes: str | None) -> None:
    """Show the alert CANDID of REPO as JSON, cut-outs left out."""
    from gueststar.store.alerts.exports import packets_of

    with opened_log(repo, survey) as log:
        entry = log.find(candid, programs=nights_of(repo, {**eyes, "survey": survey}))
        if entry is None:
            whom = eyes["as_reader"] or eyes["program"] or "everybody"
            raise DataError(f"no alert {candid} in {repo} for {whom}: gueststar alerts list")
        (packet,) = (packet.record for packet in packets_of(log, [entry]))
    if cutouts is not None:
        from gueststar.formats.cutout_picture import draw_cutouts

        draw_cutouts(packet, cutouts)
    told = {key: value for key, value in packet.items() if not key.startswith("cutout")}
    click.echo(json.dumps(told, indent=1, default=str))


@command.command()
@_REPO
@click.option("--follow", is_flag=True, help="Go on with what enters the log, until interrupted.")
def publish(repo: Path, follow: bool) -> None:
    """Send the alerts of REPO that wait to its Kafka, each once and in order."""
    from gueststar.store.repo import SurveyRepo
    from gueststar.stream.filter_round import run_filters
    from gueststar.stream.publish import Publisher

    with SurveyRepo.open(repo) as opened, Publisher(opened.root, opened.settings.stream) as publisher:

        def ask_filters() -> None:
            for line in run_filters(opened.root, opened.settings):
                click.echo(line)

        if follow:
            publisher.follow(tell=click.echo, is_over=lambda: False, then=ask_filters)
        receipt = publisher.publish()
        ask_filters()
    click.echo(receipt.line())
    for segment, reason in receipt.held.items():
        click.echo(f"held {segment}: {reason}")


@command.command()
@_REPO
@click.option("--night", type=int, required=True, help="Survey night YYYYMMDD.")
def check(repo: Path, night: int) -> None:
    """Compare the topics of a night with the alert log of REPO, packet by packet; status 1 if they differ."""
    from gueststar.store.repo import SurveyRepo
    from gueststar.stream.agreement import agreement_of
    from gueststar.stream.flavours import flavours_of

    with SurveyRepo.open(repo) as opened:
        found = [
            agreement_of(opened.root, opened.settings.stream, night=night, program=program, flavour=flavour)
            for flavour in flavours_of(opened.settings.stream)
            for program in PROGRAMS["all"]
        ]
    for agreement in found:
        click.echo(agreement.line())
    sys.exit(0 if all(agreement.is_good for agreement in found) else 1)


@command.command()
@_REPO
@click.argument("candids", type=int, nargs=-1, required=True, metavar="CANDID...")
@click.option("--reason", required=True, help="What readers are told.")
def retract(repo: Path, candids: tuple[int, ...], reason: str) -> None:
    """Take alerts of REPO back: readers of the topic's retractions are told with the next publication."""
    from gueststar.store.alerts.log import AlertLog
    from gueststar.store.alerts.publication import Publication

    log, state = AlertLog(repo), Publication(repo)
    if unknown := [c for c in candids if log.find(c, programs=PROGRAMS["all"]) is None]:
        raise ConfigError(f"the log of {repo} has no alert {unknown[0]}")
    n = sum(state.retract(candid, reason, time=time.time()) for candid in candids)
    click.echo(f"{n} to be taken back; gueststar alerts publish {repo} tells the readers")


@command.command()
@_REPO
@click.option("--night", type=int, required=True, help="Survey night YYYYMMDD.")
@click.option("--drop", is_flag=True, help="Never send them, instead of sending them with the next publication.")
@click.option(
    "--gone", is_flag=True, help="Those that were on a topic that has been deleted, instead of the held ones."
)
def release(repo: Path, night: int, drop: bool, gone: bool) -> None:
    """Let the alerts of a night go that were held because an image had too many (or drop them)."""
    from gueststar.store.alerts.publication import Fate, Publication

    n = Publication(repo).release(night, is_dropped=drop, fate=Fate.GONE if gone else Fate.HELD)
    click.echo(f"{n} alerts {'dropped' if drop else 'released'}")


@command.command()
@_REPO
@click.argument("topic")
@click.option("--to", "servers", help="Brokers host:port,host:port; default: those of the survey.")
@click.option("--client", type=click.Path(exists=True, path_type=Path), help="File of client settings, name=value.")
@CHOICE
@click.option("--after", type=int, help="Begin behind this candid.")
@click.option("--from", "first", type=click.IntRange(min=1), help="Begin at this place in the order of arrival.")
@click.option("--limit", type=click.IntRange(min=1), help="Send this many at most, the first.")
@click.option(
    "--flavour", type=click.Choice(["full", "lite", "fink", "rubin"]), default="full", help="Form of the messages."
)
@click.option("--program", type=click.Choice(list(PROGRAMS)), default="public", help="Alerts of this stream.")
@SURVEY
def replay(
    repo: Path, topic: str, servers: str | None, client: Path | None, after: int | None, first: int | None,
    survey: str | None, program: str, flavour: str, **told: Any,
) -> None:  # fmt: skip
    """Send alerts of REPO again, as they were, in order of arrival, to a TOPIC of your choice."""
    from gueststar.model.flavour import Flavour
    from gueststar.stream.clients import replay_options
    from gueststar.stream.publish import replay as send_again
    from gueststar.stream.topics import Topics

    if len(PROGRAMS[program]) > 1:
        raise ConfigError("one topic takes the alerts of one program: --program public, partnership or private")
    settings, options = replay_options(repo, servers=servers, file=client)
    query = query_of(repo, told | {"survey": survey, "program": program})
    with opened_log(repo, survey) as log:
        entries = entries_behind(log, query, after=after, first=first)
        Topics(options, settings).ensure(topic, PROGRAMS[program][0])
        click.echo(f"{send_again(log, entries, options, topic, flavour=Flavour(flavour))} alerts sent to {topic}")


@command.group()
def broker() -> None:
    """Run a Kafka on this machine (loopback only) for a survey that has none."""


@broker.command()
@_REPO
@click.option("--secure", is_flag=True, help="Readers must log in (first start only); see the user guide.")
def start(repo: Path, secure: bool) -> None:
    """Start the broker of REPO; the first time, fetch it and make its folder."""
    from gueststar.stream.broker import LocalBroker

    state = LocalBroker(repo).start(is_secure=secure)
    click.echo(f"Kafka answers at {state.bootstrap_servers}")


@broker.command()
@_REPO
def stop(repo: Path) -> None:
    """Stop the broker of REPO."""
    from gueststar.stream.broker import LocalBroker

    click.echo("stopped" if LocalBroker(repo).stop() else "it did not run")


@broker.command()
@_REPO
def status(repo: Path) -> None:
    """Tell whether the broker of REPO runs, and where; status 1 if it does not."""
    from gueststar.stream.broker import LocalBroker

    local = LocalBroker(repo)
    state, pid = local.state, local.pid()
    if state is None or pid is None:
        click.echo("it does not run" if state else "there is none: gueststar alerts broker start")
        sys.exit(1)
    click.echo(f"Kafka answers at {state.bootstrap_servers}, process {pid}")


@broker.command()
@_REPO
@click.argument("name")
@click.option(
    "--password-file", type=click.File("r"), required=True, help="File with the password; - is standard input."
)
def user(repo: Path, name: str, password_file: Any) -> None:
    """Make a login NAME for a reader of a secure broker, or give it another password."""
    from gueststar.store.repo import SurveyRepo
    from gueststar.stream.users import set_password

    with SurveyRepo.open(repo) as opened:
        set_password(opened.root, opened.settings.stream, name, password_file.read().strip())
    click.echo(f"{name} can log in; what it may read is stream.readers in survey.yaml")
