"""A small survey whose ledger alone matters, a mail server and a webhook of our own."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from aiosmtpd.controller import Controller

from gueststar.cameras.load import load_camera
from gueststar.store.ledger import Ledger
from gueststar.store.operation_settings import AlarmSettings, MailSettings, OperationSettings
from gueststar.store.settings import SurveySettings, write_settings


@dataclass
class MailServer:
    """A mail server that keeps what it gets, and refuses when told to."""

    port: int = 0
    messages: list[Any] = field(default_factory=list)
    refusal: str | None = None

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        if self.refusal is not None:
            return self.refusal
        self.messages.append(envelope)
        return "250 taken"


@contextmanager
def served_mail(**how: Any) -> Iterator[MailServer]:
    made = MailServer()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        made.port = free.getsockname()[1]
    controller = Controller(made, hostname="127.0.0.1", port=made.port, **how)
    controller.start()
    yield made
    controller.stop()


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    with served_mail() as made:
        yield made


@dataclass
class Hook:
    """An address that keeps what is posted to it."""

    url: str = ""
    posted: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if made.status == 200:
                made.posted.append(json.loads(body))
            self.send_response(made.status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_address[1]}/secret-path"
    yield made
    server.shutdown()
    server.server_close()


def settings_with(
    mail_server: MailServer | None = None, hook: Hook | None = None, **alarms: Any
) -> OperationSettings:  # fmt: skip
    mail = MailSettings(server="127.0.0.1", port=mail_server.port, alarms_to=("a@x.org",)) if mail_server else {}
    return OperationSettings(mail=mail, alarms=AlarmSettings(webhook=hook.url if hook else None, **alarms))


class LedgerOnly(SimpleNamespace):
    """What of a survey is asked by those who watch, without the middleware."""

    root: Path
    settings: SurveySettings
    ledger: Ledger

    def operate_with(self, operation: OperationSettings) -> None:
        self.settings = self.settings.model_copy(update={"operation": operation})
        write_settings(self.root / "survey.yaml", self.settings)


@pytest.fixture
def survey(tmp_path: Path) -> Iterator[LedgerOnly]:
    settings = SurveySettings(name="tiny")
    write_settings(tmp_path / "survey.yaml", settings)
    camera = load_camera("simcam")
    (tmp_path / "camera.yaml").write_text(yaml.safe_dump(camera.model_dump(mode="json")))
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite3")
    yield LedgerOnly(root=tmp_path, settings=settings, ledger=ledger, camera=camera)
    ledger.close()
