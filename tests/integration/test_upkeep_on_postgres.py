"""A survey whose database is a server is kept in shape, and dumped so that it can be brought back."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from gueststar.cameras.load import load_camera
from gueststar.core.errors import TransientError
from gueststar.operations.actions.contract import ActionContext
from gueststar.operations.actions.maintenance import maintenance
from gueststar.store.repo import SurveyRepo
from gueststar.store.upkeep import dump_command, dump_server, tidy_server

from ..postgres_server import running_server


def test_a_survey_on_a_server_is_tidied_up_dumped_and_the_dump_holds_its_tables(tmp_path) -> None:
    with running_server() as server:
        SurveyRepo.create(tmp_path / "survey", load_camera("simcam"), server.url).close()
        with SurveyRepo.open(tmp_path / "survey") as repo:
            repo.ledger.event("filler", "one", "text")
            assert repo.settings.database is not None
            cares = tidy_server(repo.settings.database)
            assert [care.name for care in cares] == ["postgresql schema gueststar", "postgresql schema registry"]
            assert all(care.bytes_after > 0 and not care.problem for care in cares)
            done = maintenance(ActionContext(repo, 20260101, 1.8e9, {"even_at_night": True}))
            assert done.state == "done", done.text
            folder = Path(done.data["backups"])
            if shutil.which("pg_dump") is None:
                assert "pg_dump is not installed here" in done.text
                return
            assert done.data["not_backed_up"] == [], done.text
            assert (folder / "database.pgdump").stat().st_mode & 0o077 == 0
            listed = subprocess.run(
                ["pg_restore", "--list", folder / "database.pgdump"], capture_output=True, text=True, check=True
            )
            assert "gueststar events" in listed.stdout
            assert "registry dataset" in listed.stdout


def test_the_command_that_dumps_by_hand_is_told_where_it_did_not_work(tmp_path, monkeypatch) -> None:
    url = "postgresql+psycopg2://nobody@127.0.0.1:1/none"
    assert dump_command(url, tmp_path / "d")[-1] == "postgresql://nobody@127.0.0.1:1/none"
    monkeypatch.setenv("PATH", "")
    with pytest.raises(TransientError, match=r"pg_dump is not installed here.*postgresql://nobody@127.0.0.1:1/none"):
        dump_server(url, tmp_path / "d")
    monkeypatch.undo()
    if shutil.which("pg_dump"):
        with pytest.raises(TransientError, match="pg_dump failed"):
            dump_server(url, tmp_path / "d")
    assert not (tmp_path / "d").exists()
