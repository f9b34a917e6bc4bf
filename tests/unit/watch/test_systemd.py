"""The unit files are what systemd itself takes for right, and it hears when the operator is alive."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from gueststar.core.errors import ConfigError
from gueststar.operations.watch.systemd import Services, notify, unit_files, watchdog_s, write_units
from gueststar.store.operation_settings import DiskSettings, LandingPlace, OperationSettings


def services(root: Path, **more) -> Services:
    operation = OperationSettings(
        landing=(LandingPlace(path=Path("/data/land ing")),), disks=DiskSettings(archive=Path("/archive/100%"))
    )
    return Services(root, "My survey 50%", operation, **more)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("is_user", [False, True])
def test_systemd_finds_nothing_wrong_with_them(tmp_path, is_user):
    repo = tmp_path / "a repo $x"
    repo.mkdir()
    paths = write_units(services(repo, is_user=is_user), tmp_path / "units")
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=one", *(["--user"] if is_user else [])]
    found = subprocess.run(
        [*command, *(str(path) for path in paths)], capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)},
    )  # fmt: skip
    ours = [line for line in found.stderr.splitlines() if "gueststar" in line]
    assert ours == []
    assert found.returncode == 0, found.stderr


def test_every_command_that_they_run_exists(tmp_path):
    from gueststar.cli.main import COMMANDS

    texts = unit_files(services(tmp_path)).values()
    verbs = {
        line.split(" -m gueststar ")[1].split()[0] for text in texts for line in text.splitlines()
        if line.startswith("ExecStart=")
    }  # fmt: skip
    assert verbs - {"operate"} <= COMMANDS.keys()


def test_the_operator_may_write_where_it_must_and_nowhere_else(tmp_path):
    text = unit_files(services(tmp_path))["gueststar-My-survey-50-operator.service"]
    for line in (
        "ProtectSystem=strict", f"ReadWritePaths=-{tmp_path}", 'ReadWritePaths="-/data/land ing"',
        "ReadWritePaths=-/archive/100%%", "KillMode=mixed", "Restart=always", "WatchdogSec=180", "Type=notify",
        "NoNewPrivileges=yes",
    ):  # fmt: skip
        assert line in text.splitlines()


def test_systemd_hears_what_the_process_tells(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert notify("READY=1\nSTATUS=waiting for files")
        assert listening.recv(100) == b"READY=1\nSTATUS=waiting for files"
    monkeypatch.setenv("WATCHDOG_USEC", "180000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert watchdog_s() == 180.0


def test_without_systemd_nothing_happens(monkeypatch, tmp_path):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    assert not notify("READY=1")
    assert watchdog_s() is None
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not notify("WATCHDOG=1")


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        write_units(services(tmp_path), tmp_path / "file" / "units")
