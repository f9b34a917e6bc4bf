"""The archive side of `gueststar alerts`: search, import, verify, export; and what they choose alerts by."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gueststar.cli.as_reader import STREAMS, as_reader, packet_nights
from gueststar.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gueststar.store.alerts.log import AlertLog
    from gueststar.store.alerts.search import AlertQuery
    from gueststar.store.alerts.segments import AlertEntry

REPO = click.argument("repo", type=click.Path(exists=True, file_okay=False, path_type=Path))
SURVEY = click.option("--survey", help="Another survey, whose packets were imported; default: this one.")

_READER = (
    click.option("--program", type=click.Choice(list(STREAMS)), help="Alerts of this stream only."),
    as_reader("anonymous, or all of --program"),
)
_CHOICE = (
    click.option("--candid", "candids", type=int, multiple=True, help="Identifier of an alert; may be given again."),
    click.option("--object", "object_name", help="Name of an object."),
    click.option("--cone", nargs=3, type=float, metavar="RA DEC ARCSEC", help="Within a circle (degrees, arcsec)."),
    click.option("--since", help="Not before: UTC date or time (2026-01-31T04:00), or Julian date."),
    click.option("--until", help="Not after."),
    click.option("--night", type=int, help="Survey night YYYYMMDD."),
    click.option("--where", help='A condition on fields, as filters have it: "magpsf < 17 AND rb > 0.9".'),
)


def with_options(*options: Callable[[Any], Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that gives a command several options, in their order."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


CHOICE = with_options(*_CHOICE)
"""Options by which alerts are chosen; `query_of` reads them."""


@contextmanager
def opened_log(repo: Path, survey: str | None) -> Iterator[AlertLog]:
    """Open the log of the survey, or of another one whose packets it holds."""
    from gueststar.store.alerts.imports import surveys_of
    from gueststar.store.alerts.log import AlertLog

    if survey is not None and survey not in (known := surveys_of(repo)):
        there = f"it has those of {', '.join(known)}" if known else "gueststar alerts import takes some"
        raise ConfigError(f"{repo} holds no packets of {survey!r}: {there}")
    with AlertLog(repo, survey=survey) as log:
        yield log


def query_of(repo: Path, told: dict[str, Any]) -> AlertQuery:
    """Return what the options of a command ask for, and for whose eyes."""
    from gueststar.core.times import jd_of_text
    from gueststar.store.alerts.search import AlertQuery, Cone

    night = told["night"]
    return AlertQuery(
        programs=nights_of(repo, told),
        candids=told["candids"] or None,
        object_name=told["object_name"],
        cone=Cone(*told["cone"]) if told["cone"] else None,
        since_jd=jd_of_text(told["since"]) if told["since"] else None,
        until_jd=jd_of_text(told["until"]) if told["until"] else None,
        first_night=night,
        last_night=night,
        where=told["where"],
        columns=told.get("columns"),
        limit=told.get("limit"),
    )


def nights_of(repo: Path, told: dict[str, Any]) -> Any:
    """Return which packets may be taken. Of other surveys a reader takes the public ones: our groups are not theirs."""
    from gueststar.model.readers import PacketNights
    from gueststar.store.settings import SurveySettings, read_settings

    program, reader = told.get("program"), told.get("as_reader")
    if told.get("survey") is not None and (program is None or reader is not None):
        return PacketNights.of_programs(STREAMS["public"])
    path = repo / "survey.yaml"  # a folder may hold logs and nothing else
    return packet_nights(repo, read_settings(path) if path.exists() else SurveySettings(), program, reader)


def entries_behind(log: AlertLog, query: AlertQuery, *, after: int | None, first: int | None) -> list[AlertEntry]:
    """Return the entries that satisfy a query, in order of arrival: behind a candid, or from a place on, if given."""
    from dataclasses import replace

    from gueststar.store.alerts.search import AlertSearch

    if after is not None:
        known = log.find(after, programs=query.programs)
        if known is None:
            raise ConfigError(f"{log.folder} has no alert {after} of this program")
        first = max(first or 1, known.serial + 1)
    with AlertSearch(log) as archive:
        return archive.entries(replace(query, first_serial=first))


@click.command()
@REPO
@CHOICE
@with_options(*_READER)
@SURVEY
@click.option("--columns", help="Fields of the answer: candid,ra,dec,magpsf; all of them: all.")
@click.option("--limit", type=click.IntRange(min=1), help="Tell this many at most, the earliest.")
@click.option("--count", is_flag=True, help="Tell numbers by night and program instead.")
@click.option("--format", "form", type=click.Choice(["text", "csv", "json", "parquet"]), default="text")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File; default: standard output.")
def search(
    repo: Path, survey: str | None, columns: str | None, count: bool, form: str, out: Path | None, **told: Any
) -> None:
    """Search the alerts of REPO by place, time, object and conditions on any field."""
    from gueststar.formats.answers import FORMS
    from gueststar.formats.atomic import appearing_whole
    from gueststar.store.alerts.search import AlertSearch

    if form == "parquet" and out is None:
        raise ConfigError("Parquet goes to a file: --out FILE")
    query = query_of(repo, told | {"survey": survey, "columns": _columns(columns)})
    with opened_log(repo, survey) as log, AlertSearch(log) as archive:
        table = archive.count_by_night(query) if count else archive.run(query)
        answer = FORMS[form](table)
    if out is None:
        click.echo(answer, nl=False)
        return
    with appearing_whole(out) as temporary:
        temporary.write_bytes(answer)
    click.echo(f"{table.num_rows} alerts in {out}")


def _columns(text: str | None) -> list[str] | str | None:
    if text is None or text == "all":
        return text
    return [name.strip() for name in text.split(",") if name.strip()]


@click.command()
@REPO
@SURVEY
def fields(repo: Path, survey: str | None) -> None:
    """List the fields that alerts of REPO can be searched by, with their kinds, units and meanings."""
    from gueststar.store.alerts.search import AlertSearch

    with opened_log(repo, survey) as log, AlertSearch(log) as archive:
        for field in archive.fields():
            unit = f"[{field.unit}] " if field.unit else ""
            click.echo(f"{field.name:<22} {field.kind.value:<9} {unit}{field.meaning}".rstrip())


@click.command("import")
@REPO
@click.argument("paths", nargs=-1, required=True, metavar="FILES...", type=click.Path(exists=True, path_type=Path))
@click.option("--survey", help="Name of their log; default: what their schema says (ztf, lsst, winter).")
@click.option(
    "--schema", "schemas", multiple=True, metavar="NUMBER=FILE",
    help="Avro schema of messages that name theirs by number (Confluent's wire format).",
)  # fmt: skip
def import_packets(repo: Path, paths: tuple[Path, ...], survey: str | None, schemas: tuple[str, ...]) -> None:
    """Take alert packets of other surveys into REPO, byte for byte: Avro files, tar files of them, folders.

    REPO is a survey or any folder. Status 1 if some were refused.
    """
    from gueststar.store.alerts.imports import PacketImport

    with PacketImport(repo, survey=survey, schemas=dict(_schema(text) for text in schemas)) as taking:
        receipt = taking.take(paths)
    for refusal in receipt.refused:
        click.echo(f"refused {refusal.name}: {refusal.reason}", err=True)
    for line in receipt.lines():
        click.echo(line)
    sys.exit(1 if receipt.refused else 0)


def _schema(text: str) -> tuple[int, str]:
    from gueststar.formats.packets import schema_text_of_file

    number, _, path = text.partition("=")
    if not number.isdecimal() or not path:
        raise ConfigError(f"--schema {text!r} is not of the form NUMBER=FILE.avsc")
    return int(number), schema_text_of_file(Path(path))


@click.command()
@REPO
def refused(repo: Path) -> None:
    """List what was refused when packets were imported into REPO, with the reasons."""
    from gueststar.store.alerts.imports import refusals

    for refusal in refusals(repo):
        click.echo(f"{refusal.name} ({refusal.n_bytes} bytes): {refusal.reason}")


@click.command()
@REPO
@click.option("--survey", help="One of the surveys whose packets were imported; default: all logs.")
def verify(repo: Path, survey: str | None) -> None:
    """Verify the alert logs of REPO, and mend what is derived in them; status 1 if packets are lost."""
    from gueststar.store.alerts.imports import surveys_of
    from gueststar.store.alerts.integrity import VerifyLog

    is_whole = True
    for name in [survey] if survey is not None else [None, *surveys_of(repo)]:
        with opened_log(repo, name) as log:
            findings = VerifyLog(log).run(repo if name is None else None)
        for line in findings.mended:
            click.echo(f"mended {line}")
        for line in findings.lost:
            click.echo(f"lost {line}", err=True)
        click.echo(f"{name or 'this survey'}: {findings.line()}")
        is_whole = is_whole and findings.is_whole
    sys.exit(0 if is_whole else 1)


@click.command()
@REPO
@click.argument("out", type=click.Path(path_type=Path))
@CHOICE
@with_options(*_READER)
@SURVEY
@click.option("--form", type=click.Choice(["tar", "tar.gz", "parquet", "hats"]), help="Default: what OUT ends with.")
@click.option("--cutouts", is_flag=True, help="In Parquet: cut-outs too.")
def export(repo: Path, out: Path, survey: str | None, form: Any, cutouts: bool, **told: Any) -> None:
    """Export alerts of REPO: to a file OUT.tar, .tar.gz or .parquet, or to a folder OUT, a file a night and program.

    Tar files hold the packets as they were sent, <candid>.avro; a folder gets MD5SUMS too. With --form hats the folder
    is a catalogue by place, for LSDB. The same again is the same.
    """
    from gueststar.store.alerts.exports import export_file, export_hats, export_nights
    from gueststar.store.alerts.search import AlertSearch

    query = query_of(repo, told | {"survey": survey})
    is_folder = out.is_dir() or not out.suffix
    with opened_log(repo, survey) as log, AlertSearch(log) as archive:
        entries = archive.entries(query)
        name = survey or _survey_name(repo)
        if form == "hats":
            done = [export_hats(log, entries, out, name=name, do_cutouts=cutouts)]
        elif not is_folder:
            done = [export_file(log, entries, out, form=form, do_cutouts=cutouts)]
        else:
            done = export_nights(log, entries, out, survey=name, form=form or "tar.gz", do_cutouts=cutouts)
    for path, n in done:
        click.echo(f"{n} alerts in {path}")
    if not done:
        click.echo("no alerts")


def _survey_name(repo: Path) -> str:
    from gueststar.store.settings import read_settings

    path = repo / "survey.yaml"
    return read_settings(path).name.replace(" ", "_") if path.exists() else repo.resolve().name


COMMANDS = (search, fields, import_packets, refused, verify, export)
"""Commands of ``gueststar alerts`` that live here."""
