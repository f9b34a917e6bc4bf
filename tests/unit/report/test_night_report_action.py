"""The night's report is written and mailed: once, and again when it changed."""

from __future__ import annotations

import email
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.policy import default as modern
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from gueststar.core.errors import TransientError
from gueststar.model.exposure import ExposureInfo
from gueststar.operations.actions.catalog import ACTIONS
from gueststar.operations.actions.contract import ActionContext, ActionResult
from gueststar.store.operation_settings import MailSettings, OperationSettings
from gueststar.store.repo import SurveyRepo

from .conftest import NIGHT

Expose = Callable[..., ExposureInfo]


@dataclass
class MailServer:
    """A mail server that keeps what it gets."""

    port: int
    messages: list[Any] = field(default_factory=list)
    refusal: str | None = None

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        if self.refusal is not None:
            return self.refusal
        self.messages.append(email.message_from_bytes(envelope.content, policy=modern))
        return "250 taken"


@pytest.fixture
def server() -> Iterator[MailServer]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        made = MailServer(free.getsockname()[1])
    controller = Controller(made, hostname="127.0.0.1", port=made.port)
    controller.start()
    yield made
    controller.stop()


@pytest.fixture
def report(repo: SurveyRepo, server: MailServer, expose: Expose) -> Callable[..., ActionResult]:
    mail = MailSettings(server="127.0.0.1", port=server.port, reports_to=("pi@example.org",))
    operation = OperationSettings(mail=mail)
    repo.settings = repo.settings.model_copy(update={"operation": operation})
    number = expose(0).exposure_id
    repo.ledger.hold(_science(repo, number), "no reference catalog covers it")

    def run(**arguments: object) -> ActionResult:
        is_dry = bool(arguments.pop("is_dry", False))
        return ACTIONS["night_report"](ActionContext(repo, NIGHT, 1.7e9, arguments, is_dry=is_dry))

    return run


def _science(repo: SurveyRepo, number: int, detector: int = 0) -> int:
    key = {"exposure": number, "detector": detector}
    job = repo.ledger.submit("science", key, exposure_id=number, detector=detector, day_obs=NIGHT)
    repo.ledger.start(job)
    return job


def test_the_report_is_written_and_mailed_with_its_verdict(
    report: Callable[..., ActionResult], repo: SurveyRepo, server: MailServer
) -> None:
    told = report()
    assert told.state == "done"
    assert told.data["is_mailed"]
    folder = repo.root / "reports" / str(NIGHT)
    assert {path.name for path in folder.iterdir()} == {"report.html", "report.json", "report.txt"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
    assert json.loads((folder / "report.json").read_text())["held"] == 1
    (message,) = server.messages
    assert message["To"] == "pi@example.org"
    assert message["Subject"].strip() == f"[survey] {NIGHT}: 1 received, 0 processed, 1 held, 0 unexplained; alerts 0"
    parts = {part.get_content_type() for part in message.walk()}
    assert {"text/plain", "text/html", "image/png"} <= parts
    page = message.get_body(("html",)).get_content()
    assert "no reference catalog covers it" in page
    assert "cid:fates.png" in page
    assert "http" not in page
    attached = [part.get_filename() for part in message.iter_attachments()]
    assert attached == [f"survey_{NIGHT}.html"]


def test_it_is_mailed_once_and_again_only_when_it_changed(
    report: Callable[..., ActionResult], server: MailServer, expose: Expose
) -> None:
    report()
    assert report().state == "nothing"
    assert len(server.messages) == 1
    expose(1)
    told = report()
    assert (told.state, told.data["is_corrected"]) == ("done", True)
    assert len(server.messages) == 2
    assert server.messages[1]["Subject"].strip().startswith(f"[survey] corrected: {NIGHT}: 2 received")
    assert report().state == "nothing"


def test_a_mail_server_that_is_away_leaves_the_files_and_is_tried_again(
    report: Callable[..., ActionResult], repo: SurveyRepo, server: MailServer
) -> None:
    server.refusal = "451 come back later"
    with pytest.raises(TransientError, match="451"):
        report()
    assert (repo.root / "reports" / str(NIGHT) / "report.html").exists()
    server.refusal = None
    told = report()
    assert told.data == told.data | {"is_mailed": True, "is_corrected": False}
    assert len(server.messages) == 1


def test_a_dry_run_writes_and_sends_nothing(
    report: Callable[..., ActionResult], repo: SurveyRepo, server: MailServer
) -> None:
    assert "would be written and mailed to pi@example.org" in report(is_dry=True).text
    assert not (repo.root / "reports").exists()
    assert server.messages == []


def test_a_night_of_which_nothing_is_known_is_no_report(repo: SurveyRepo) -> None:
    assert ACTIONS["night_report"](ActionContext(repo, 20300101, 0.0)).state == "nothing"
