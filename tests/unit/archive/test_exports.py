"""Exports are the packets as they were sent, of the programs that were named, and the same bytes every time."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from gueststar.cli.alerts import command
from gueststar.core.errors import ConfigError
from gueststar.model.detections import OutboxAlert
from gueststar.model.rights import Program
from gueststar.store.alerts.exports import export_file, export_hats, export_nights, form_of
from gueststar.store.alerts.log import AlertLog
from tests.unit.archive.packets import alert, container, record

EVERYONE = tuple(Program)


def filled(root: Path, order: list[int]) -> AlertLog:
    """Return a log of two nights and two programs, whose alerts came in some order."""
    log = AlertLog(root)
    for candid in order:
        log.append([alert(candid, night=candid % 2, program=1 + (candid > 6), magpsf=15.0 + candid)])
    return log


def test_nightly_archives_are_the_same_whatever_the_order_of_arrival(tmp_path: Path) -> None:
    made = []
    for name, order in (("a", [1, 2, 3, 4, 7, 8]), ("b", [8, 4, 3, 7, 2, 1])):
        log, out = filled(tmp_path / name, order), tmp_path / f"out_{name}"
        for _ in range(2):
            export_nights(log, log.entries(programs=EVERYONE), out, survey="ztf")
        made.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert made[0] == made[1]
    names = {f"ztf_{program}_2026010{night}.tar.gz" for program in ("public", "partnership") for night in (1, 2)}
    assert set(made[0]) == {*names, "MD5SUMS"}
    sums = dict(reversed(line.split()) for line in made[0]["MD5SUMS"].decode().splitlines())
    assert sums == {name: hashlib.md5(made[0][name]).hexdigest() for name in names}
    with tarfile.open(tmp_path / "out_a" / "ztf_public_20260102.tar.gz") as archive:
        assert archive.getnames() == ["1.avro", "3.avro"]
        file = archive.extractfile("3.avro")
        assert file is not None
        assert file.read() == alert(3, night=1, magpsf=18.0).payload
        assert all(member.mtime == member.uid == 0 for member in archive.getmembers())


def test_parquet_has_the_candidates_fields_and_histories_as_lists(tmp_path: Path) -> None:
    log = AlertLog(tmp_path)
    told = record(5, magpsf=17.5)
    told["prv_candidates"] = [record(3, magpsf=18.5)["candidate"], record(4, rb=None)["candidate"]]
    log.append([OutboxAlert(5, told["objectId"], 20260101, 1, container([told])), alert(6)])
    path = tmp_path / "alerts.parquet"
    export_file(log, log.entries(), path)
    frame = pd.read_parquet(path)
    assert list(frame["candid"]) == [5, 6]
    assert frame["magpsf"][0] == 17.5
    assert [item["candid"] for item in frame["prv_candidates"][0]] == [3, 4]
    assert frame["prv_candidates"][1] is None
    assert "cutoutScience" not in frame
    rows = duckdb.sql(f"SELECT candid, unnest(prv_candidates).magpsf AS m FROM '{path}'").fetchall()
    assert rows == [(5, 18.5), (5, 18.0)]
    before = path.read_bytes()
    export_file(log, log.entries(), path)
    assert path.read_bytes() == before
    export_file(log, log.entries(), tmp_path / "whole.parquet", do_cutouts=True)
    assert pd.read_parquet(tmp_path / "whole.parquet")["cutoutScience"][0] == b"a picture" * 10


def test_an_export_holds_no_program_that_was_not_named(tmp_path: Path) -> None:
    filled(tmp_path / "repo", [1, 2, 7, 8]).close()
    repo, out, run = str(tmp_path / "repo"), tmp_path / "out.tar", CliRunner()
    assert run.invoke(command, ["export", repo, str(out)]).output.startswith("2 alerts")
    with tarfile.open(out) as archive:
        assert archive.getnames() == ["1.avro", "2.avro"]
    assert run.invoke(command, ["export", repo, str(out), "--program", "partnership"]).output.startswith("2 alerts")
    assert run.invoke(command, ["export", repo, str(out), "--where", "magpsf > 16.5"]).output.startswith("1 alerts")
    nights = run.invoke(command, ["export", repo, str(tmp_path / "nights"), "--program", "all", "--form", "parquet"])
    assert len(nights.output.splitlines()) == 4
    assert set(pd.read_parquet(tmp_path / "nights" / "repo_public_20260102.parquet")["programid"]) == {1}


def test_a_name_without_a_known_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"should end with \.tar"):
        form_of(tmp_path / "alerts.zip")


def test_a_catalogue_by_place_has_each_alert_once_in_the_pixel_that_it_lies_in(tmp_path: Path) -> None:
    log, random = AlertLog(tmp_path), np.random.default_rng(4)
    places = [(float(random.uniform(0, 360)), float(random.uniform(-90, 90))) for _ in range(60)]
    places += [(10.0 + 1e-3 * k, 5.0) for k in range(60)]
    log.append([alert(k + 1, ra=ra, dec=dec) for k, (ra, dec) in enumerate(places)])
    folder = tmp_path / "catalogue"
    assert export_hats(log, log.entries(), folder, name="test", rows_a_pixel=20).n_alerts == 120
    rows = (folder / "partition_info.csv").read_text().splitlines()[1:]
    candids: list[int] = []
    for order, number in (map(int, row.split(",")) for row in rows):
        path = folder / f"dataset/Norder={order}/Dir={number // 10000 * 10000}/Npix={number}.parquet"
        frame = pd.read_parquet(path)
        assert len(frame) <= 20
        keys = frame["_healpix_29"].to_numpy()
        assert set(keys >> (2 * (29 - order))) == {number}
        assert list(keys) == sorted(keys)
        candids += frame["candid"].tolist()
    assert sorted(candids) == list(range(1, 121))
    assert pq.read_metadata(folder / "dataset" / "_metadata").num_rows == 120
    with pytest.raises(ConfigError, match="not empty"):
        export_hats(log, log.entries(), folder, name="test")
