"""Messages leave by e-mail: plain text, with HTML and attachments where there are some."""

from __future__ import annotations

import logging
import mimetypes
import os
import smtplib
import ssl
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import NamedTuple

from gueststar.core.errors import ConfigError, TransientError
from gueststar.store.operation_settings import MailSettings

TIMEOUT_S = 20.0
"""How long the mail server may take for each of its answers."""

_log = logging.getLogger(__name__)


class Attachment(NamedTuple):
    """A file that goes with a message."""

    name: str
    content: bytes
    is_inline: bool = False
    """Shown within the HTML, where it stands as ``<img src="cid:NAME">``."""


def send(
    settings: MailSettings, subject: str, text: str, *, to: Sequence[str], html: str | None = None,
    attachments: Sequence[Attachment] = (), context: ssl.SSLContext | None = None,
) -> bool:  # fmt: skip
    """Send one message; return False where nothing leaves because no server or nobody to write to is set.

    ``context``: the certificates by which the server is known, if not the system's. Raises TransientError where the
    server is away or refuses the message, ConfigError where the password is not in the environment.
    """
    if settings.server is None or not to:
        return False
    message = composed(settings.sender, subject, text, to=to, html=html, attachments=attachments)
    where = f"mail server {settings.server}:{settings.port}"
    password = _password_of(settings)
    try:
        with _connected(settings, context) as server:
            if settings.username is not None:
                server.login(settings.username, password)
            refused = server.send_message(message)
    except smtplib.SMTPRecipientsRefused as problem:
        name, (code, reason) = next(iter(problem.recipients.items()))
        raise TransientError(f"{where} refuses to deliver to {name}: {code} {_plain(reason)}") from None
    except smtplib.SMTPResponseException as problem:
        raise TransientError(f"{where} refuses: {problem.smtp_code} {_plain(problem.smtp_error)}") from None
    except (OSError, smtplib.SMTPException) as problem:
        raise TransientError(f"{where} cannot be used now: {problem}") from None
    for name, (code, reason) in refused.items():
        _log.warning("%s refuses to deliver to %s: %s %s", where, name, code, _plain(reason))
    return True


def composed(
    sender: str, subject: str, text: str, *, to: Sequence[str], html: str | None = None,
    attachments: Sequence[Attachment] = (),
) -> EmailMessage:  # fmt: skip
    """Return a message as it is sent; line breaks in the subject become spaces."""
    message = EmailMessage()
    message["Subject"] = " ".join(subject.split())
    message["From"] = sender
    message["To"] = ", ".join(to)
    message["Date"] = formatdate(localtime=False)
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2].strip(" <>") or "localhost")
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no replies from vacationers
    message.set_content(text)
    if html is not None:
        message.add_alternative(html, subtype="html")
    for item in attachments:
        _attach(message, item)
    return message


def _attach(message: EmailMessage, item: Attachment) -> None:
    main, _, sub = (mimetypes.guess_type(item.name)[0] or "application/octet-stream").partition("/")
    page = message.get_body(("html",))
    if item.is_inline and isinstance(page, EmailMessage):
        page.add_related(item.content, main, sub, cid=f"<{item.name}>", filename=item.name, disposition="inline")
    else:
        message.add_attachment(item.content, main, sub, filename=item.name)


def _connected(settings: MailSettings, context: ssl.SSLContext | None) -> smtplib.SMTP:
    assert settings.server is not None
    known = context or ssl.create_default_context()
    if settings.security == "tls":
        return smtplib.SMTP_SSL(settings.server, settings.port, timeout=TIMEOUT_S, context=known)
    server = smtplib.SMTP(settings.server, settings.port, timeout=TIMEOUT_S)
    if settings.security == "starttls":
        try:
            server.starttls(context=known)
        except BaseException:
            server.close()
            raise
    return server


def _password_of(settings: MailSettings) -> str:
    if settings.username is None:
        return ""
    if settings.password_variable not in os.environ:
        raise ConfigError(
            f"operation.mail.username is {settings.username!r}, and {settings.password_variable} with its password "
            f"is not in the environment"
        )
    return os.environ[settings.password_variable]


def _plain(reason: object) -> str:
    text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
    return " ".join(text.split())
