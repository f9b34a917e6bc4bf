"""The report of a night as an e-mail: a page that any reader of mail shows, its pictures inline, the rest attached."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from gueststar.operations.report import figures
from gueststar.operations.report.account import Fate
from gueststar.operations.report.disk import size_text
from gueststar.operations.report.night_report import NightReport
from gueststar.operations.report.text import report_lines
from gueststar.operations.report.verdict import verdict_of
from gueststar.operations.watch.mail import Attachment
from gueststar.store.repo import SurveyRepo

_MOST_ROWS = 20


@dataclass(frozen=True)
class Message:
    """What is sent."""

    subject: str
    text: str
    html: str
    attachments: tuple[Attachment, ...]


def message_of(report: NightReport, repo: SurveyRepo, folder: Path, *, is_corrected: bool) -> Message:
    """Return the message of a night whose report lies in ``folder``."""
    import jinja2

    template = files("gueststar.operations.report").joinpath("templates/mail.html").read_text()
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    pictures = _pictures(report)
    verdict = verdict_of(report)
    html = environment.from_string(template).render(
        report=report, account=report.account, verdict=verdict, is_corrected=is_corrected, size_text=size_text,
        fates=[(fate.value, report.account.count(fate)) for fate in Fate if report.account.count(fate)],
        pictures=[item.name for item in pictures], most=_MOST_ROWS,
    )  # fmt: skip
    word = "corrected: " if is_corrected else ""
    page = Attachment(f"{report.survey}_{report.account.day_obs}.html", (folder / "report.html").read_bytes())
    text = "\n".join([verdict, "", *report_lines(report)])
    return Message(f"[{report.survey}] {word}{verdict}", text, html, (*pictures, page))


def _pictures(report: NightReport) -> list[Attachment]:
    found = []
    if report.account.units:
        found.append(Attachment("fates.png", figures.fates(report.account), is_inline=True))
    if report.latency is not None and report.latency.images:
        found.append(Attachment("latency.png", figures.latency(report.latency), is_inline=True))
    return found
