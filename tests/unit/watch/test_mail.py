"""Messages arrive as they were meant, and a server that refuses is the world's fault, not the operator's."""

from __future__ import annotations

import email
import email.policy
import shutil
import socket
import ssl
import subprocess

import pytest
from aiosmtpd.smtp import AuthResult

from gueststar.core.errors import ConfigError, TransientError
from gueststar.operations.watch.mail import Attachment, composed, send
from gueststar.store.operation_settings import MailSettings
from tests.unit.watch.conftest import served_mail


def settings_of(server, **more):
    return MailSettings(server="127.0.0.1", port=server.port, sender="survey@x.org", **more)


def parsed(envelope):
    return email.message_from_bytes(envelope.content, policy=email.policy.default)


def test_a_message_arrives_with_its_text_page_pictures_and_files(mail_server):
    attachments = [Attachment("trend.png", b"\x89PNG...", is_inline=True), Attachment("report.json", b"{}")]
    page = '<img src="cid:trend.png">'
    assert send(settings_of(mail_server), "Night\nover", "text", to=["a@x.org"], html=page, attachments=attachments)
    (envelope,) = mail_server.messages
    message = parsed(envelope)
    assert envelope.rcpt_tos == ["a@x.org"]
    assert message["Subject"] == "Night over"
    assert message.get_body(("plain",)).get_content().strip() == "text"
    assert message.get_body(("html",)).get_content().strip() == page
    assert {part.get_filename() for part in message.walk()} >= {"trend.png", "report.json"}
    assert next(part for part in message.walk() if part.get_filename() == "trend.png")["Content-ID"] == "<trend.png>"


def test_nothing_leaves_without_a_server_or_without_anybody_to_write_to(mail_server):
    assert not send(MailSettings(), "s", "t", to=["a@x.org"])
    assert not send(settings_of(mail_server), "s", "t", to=[])
    assert mail_server.messages == []


def test_a_server_that_refuses_or_is_away_is_a_transient_error_that_names_it(mail_server):
    mail_server.refusal = "451 come back later"
    with pytest.raises(TransientError, match=r"127.0.0.1:\d+ refuses: 451 come back later"):
        send(settings_of(mail_server), "s", "t", to=["a@x.org"])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = MailSettings(server="127.0.0.1", port=taken.getsockname()[1])
        with pytest.raises(TransientError, match="cannot be used now"):
            send(nobody, "s", "t", to=["a@x.org"])


def test_a_server_without_encryption_is_not_given_a_message_that_wants_it(mail_server):
    with pytest.raises(TransientError):
        send(settings_of(mail_server, security="starttls"), "s", "t", to=["a@x.org"])
    assert mail_server.messages == []


def test_a_missing_password_is_for_a_person_to_mend_and_its_variable_is_named(mail_server, monkeypatch):
    monkeypatch.delenv("GUESTSTAR_MAIL_PASSWORD", raising=False)
    with pytest.raises(ConfigError, match="GUESTSTAR_MAIL_PASSWORD"):
        send(settings_of(mail_server, username="me"), "s", "t", to=["a@x.org"])


def test_automatic_replies_are_not_asked_for():
    message = composed("s@x.org", "s", "t", to=["a@x.org"])
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"].endswith("@x.org>")


def _certificate(folder):
    """Make a certificate for this machine's loopback address; return it and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes a certificate here, is not installed")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", certificate]
    subprocess.run(["openssl", "req", "-x509", *made, *subject], check=True, capture_output=True)
    return certificate, key


def test_a_login_and_a_message_travel_encrypted_to_a_server_that_is_known_and_to_no_other(tmp_path, monkeypatch):
    certificate, key = _certificate(tmp_path)
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(certificate, key)
    logins = []

    def log_in(_server, _session, _envelope, mechanism, data):
        logins.append((mechanism, data.login, data.password))
        return AuthResult(success=data.password == b"right", handled=False)

    monkeypatch.setenv("GUESTSTAR_MAIL_PASSWORD", "right")
    how = {"tls_context": theirs, "require_starttls": True, "authenticator": log_in, "auth_require_tls": True}
    with served_mail(**how) as server:
        settings = settings_of(server, security="starttls", username="me")
        ours = ssl.create_default_context(cafile=str(certificate))
        assert send(settings, "s", "t", to=["a@x.org"], context=ours)
        assert len(server.messages) == 1
        assert logins[0][1:] == (b"me", b"right")
        with pytest.raises(TransientError, match="certificate"):  # nobody vouches for it
            send(settings, "s", "t", to=["a@x.org"])
        monkeypatch.setenv("GUESTSTAR_MAIL_PASSWORD", "wrong")
        with pytest.raises(TransientError, match="refuses: 535") as refused:
            send(settings, "s", "t", to=["a@x.org"], context=ours)
        assert "wrong" not in str(refused.value)
    assert len(server.messages) == 1
