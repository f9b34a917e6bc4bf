"""`night_report`: the account of a night is written into the repository and mailed, once, and again if it changed."""

from __future__ import annotations

from typing import Any

from gueststar.core.errors import TransientError
from gueststar.operations.actions.contract import ActionContext, ActionResult
from gueststar.operations.report.files import write_report
from gueststar.operations.report.message import message_of
from gueststar.operations.report.night_report import NightReport, make_report
from gueststar.operations.report.verdict import digest_of, verdict_of
from gueststar.operations.watch.mail import send


def night_report(context: ActionContext) -> ActionResult:
    """Write ``reports/NIGHT/report.{html,json,txt}`` and mail them to ``operation.mail.reports_to``.

    The message goes once a night, and once more, marked as corrected, whenever what it says has changed in counts or
    reasons. Arguments: ``to``, addresses in place of the settings'; ``again: true`` sends it in any case. Raises
    TransientError where the mail server is away: the files are written by then, and the next attempt sends.
    """
    repo, night = context.repo, context.night
    report = make_report(repo, night, now=context.now)
    is_empty = not report.account.units and not report.landing and not report.account.refused
    if is_empty and not (report.expected and report.expected.is_known):
        return ActionResult("nothing", f"nothing was received or expected in night {night}")
    verdict, digest = verdict_of(report), digest_of(report)
    sent = _last_sent(context)
    is_new = sent is None or sent["digest"] != digest or bool(context.arguments.get("again"))
    to = _addresses(context)
    if context.is_dry:
        mail = f"mailed to {', '.join(to)}" if to and is_new else "not mailed"
        return ActionResult("done", f"would be written and {mail}: {verdict}")
    folder = write_report(repo, report)
    is_corrected = sent is not None
    problem = _mail(context, report, to, is_corrected=is_corrected) if is_new and to else None
    is_mailed = is_new and bool(to) and problem is None and repo.settings.operation.mail.server is not None
    if is_mailed or (is_new and not to):
        repo.ledger.event("report", str(night), verdict, night=night, digest=digest, is_mailed=is_mailed, to=list(to))
    if problem is not None:
        raise problem
    word = "mailed" if is_mailed else "written"
    state: Any = "done" if is_new else "nothing"
    text = f"{'corrected report ' if is_corrected and is_new else 'report '}{word}: {verdict}"
    if not is_new:
        text = f"nothing changed since the report was sent: {verdict}"
    data = {"folder": str(folder), "is_mailed": is_mailed, "is_corrected": is_corrected and is_new}
    return ActionResult(state, text, data | {"is_explained": report.is_explained})


def _addresses(context: ActionContext) -> tuple[str, ...]:
    told = context.arguments.get("to")
    if told is None:
        return context.repo.settings.operation.mail.reports_to
    return (told,) if isinstance(told, str) else tuple(told)


def _last_sent(context: ActionContext) -> dict[str, Any] | None:
    """Return what was written down when the night's report went out last; None if it never did."""
    told = context.repo.ledger.events(what="report", subject=str(context.night))
    return told[-1].data if told else None


def _mail(
    context: ActionContext, report: NightReport, to: tuple[str, ...], *, is_corrected: bool
) -> TransientError | None:
    """Send the message; return what stopped it."""
    from gueststar.operations.report.files import FOLDER

    folder = context.repo.root / FOLDER / str(context.night)
    message = message_of(report, context.repo, folder, is_corrected=is_corrected)
    try:
        send(
            context.repo.settings.operation.mail, message.subject, message.text, to=to, html=message.html,
            attachments=message.attachments,
        )  # fmt: skip
    except TransientError as problem:
        return problem
    return None
