"""The alerts command finds, shows and exports packets, public ones unless asked otherwise."""

from __future__ import annotations

import json
import tarfile

import numpy as np
from click.testing import CliRunner

from gueststar.cli.alerts import command
from gueststar.formats.avro import decode_alert
from tests.unit.alerts.conftest import make_record, make_sources


def test_alerts_are_listed_shown_and_exported(make_survey, tmp_path) -> None:
    survey = make_survey()
    for mjd, program in ((61000.2, 1), (61001.2, 3)):
        record = make_record(mjd, program=program)
        survey.observe(record, make_sources(record, np.array([0.005]), np.array([20.01])))
    repo, run = str(survey.root), CliRunner()
    (line,) = run.invoke(command, ["list", repo]).output.splitlines()
    assert len(run.invoke(command, ["list", repo, "--program", "all"]).output.splitlines()) == 2
    assert run.invoke(command, ["list", repo, "--night", "20251122"]).output == ""
    candid = line.split()[0]
    picture = tmp_path / "cutouts.png"
    shown = run.invoke(command, ["show", repo, candid, "--cutouts", str(picture)])
    assert json.loads(shown.output)["candid"] == int(candid)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert run.invoke(command, ["show", repo, "12345"]).exception is not None
    out = tmp_path / "alerts.tar"
    assert run.invoke(command, ["export", repo, str(out)]).output.startswith("1 alerts")
    with tarfile.open(out) as archive:
        (member,) = archive.getmembers()
        packet = decode_alert(archive.extractfile(member).read())
    assert packet["candidate"]["programid"] == 1
