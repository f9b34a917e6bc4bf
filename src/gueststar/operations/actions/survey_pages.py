"""The weekly synopsis, made and mailed, and the maps of what was covered."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field

from gueststar.formats.atomic import appearing_whole
from gueststar.operations.actions.arguments import Arguments, arguments_of
from gueststar.operations.actions.contract import ActionContext, ActionResult
from gueststar.operations.survey_pages.html import Drawn, render_survey, survey_pictures
from gueststar.operations.survey_pages.html import coverage_maps as draw_maps
from gueststar.operations.survey_pages.report import SurveyReport, as_json, make_survey_report
from gueststar.operations.survey_pages.text import survey_lines
from gueststar.operations.watch.mail import Attachment, send
from gueststar.store.survey_rows import exposure_facts, science_nights

FOLDER = "pages"
"""Of the repository, where pages are kept."""


class WeeklyArguments(Arguments):
    """Of `weekly_report`."""

    weeks: int = Field(default=1, ge=1)
    """How many weeks the page tells of."""
    do_mail: bool = True
    """Whether it is sent to those who get reports."""


class CoverageArguments(Arguments):
    """Of `coverage_maps`."""

    min_exposures: int = Field(default=10, ge=0)
    """Nights with fewer science exposures draw no maps."""


def weekly_report(context: ActionContext) -> ActionResult:
    """Make the page of the last weeks, keep it in ``pages/weekly`` and mail it."""
    given = arguments_of(context, WeeklyArguments, action="weekly_report")
    repo = context.repo
    nights = [night for night in science_nights(repo.ledger) if night <= context.night]
    if not nights:
        return ActionResult("nothing", "there are no science exposures yet")
    if context.is_dry:
        return ActionResult("nothing", f"would make the page of {given.weeks} weeks up to night {nights[-1]}")
    report = make_survey_report(repo, weeks=given.weeks, until=context.night)
    drawn = survey_pictures(report, repo.camera)
    html = render_survey(report, drawn)
    path = repo.root / FOLDER / "weekly" / f"{report.last}.html"
    _write(path, html.encode())
    _write(path.with_suffix(".json"), json.dumps(as_json(report), indent=1).encode())
    is_sent = given.do_mail and _mail(context, report, drawn)
    mail = repo.settings.operation.mail
    sent = f"sent to {len(mail.reports_to)}" if is_sent else "not mailed: no server or nobody to write to"
    return ActionResult("done", f"{path.relative_to(repo.root)}; {sent if given.do_mail else 'not mailed'}",
                        {"exposures": report.totals["exposures"], "is_mailed": bool(is_sent)})  # fmt: skip


def _mail(context: ActionContext, report: SurveyReport, drawn: Drawn) -> bool:
    """Send the page to those who get reports, its pictures beside it; False where there is no way or nobody."""
    mail = context.repo.settings.operation.mail
    files = [Attachment(f"{name}.png", png, is_inline=True) for found in drawn.values() for name, png in found.items()]
    subject = f"{report.survey}: {report.first} to {report.last}, {report.totals['exposures']} exposures"
    html, text = render_survey(report, drawn, is_apart=True), "\n".join(survey_lines(report))
    return send(mail, subject, text, to=mail.reports_to, html=html, attachments=files)


def coverage_maps(context: ActionContext) -> ActionResult:
    """Draw the maps of the sky by filter into ``pages/coverage``, if the night has enough exposures."""
    given = arguments_of(context, CoverageArguments, action="coverage_maps")
    repo = context.repo
    n = len(exposure_facts(repo.ledger, context.night))
    if n < given.min_exposures:
        return ActionResult(
            "nothing", f"night {context.night} has {n} science exposures, maps need {given.min_exposures}"
        )
    if context.is_dry:
        return ActionResult("nothing", f"would draw the maps of the survey up to night {context.night}")
    report = make_survey_report(repo, until=context.night)
    maps = draw_maps(report, repo.camera)
    folder = repo.root / FOLDER / "coverage"
    for name, picture in maps.items():
        _write(folder / f"{name}.png", picture)
    fields = len({item.field for item in report.coverage})
    return ActionResult("done", f"{len(maps)} maps of {fields} fields in {folder.relative_to(repo.root)}",
                        {"fields": fields, "maps": sorted(maps)})  # fmt: skip


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with appearing_whole(path) as temporary:
        temporary.write_bytes(content)
