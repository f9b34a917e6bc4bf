"""Searches find what is in the log, all of it, and nothing of a program that they do not name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from gueststar.algorithms.association.sky_index import unit_vectors
from gueststar.cli.alerts import command
from gueststar.core.errors import ConfigError
from gueststar.model.readers import PacketNights
from gueststar.model.rights import Program
from gueststar.store.alerts.log import AlertLog
from gueststar.store.alerts.search import AlertQuery, AlertSearch, Cone
from tests.unit.archive.packets import NIGHT_JD, alert, alerts

EVERYONE = tuple(Program)


@pytest.fixture
def search(tmp_path: Path):
    with AlertLog(tmp_path) as log, AlertSearch(log) as made:
        yield made


def candids(search: AlertSearch, **asked: object) -> list[int]:
    return search.run(AlertQuery(**asked))["candid"].to_pylist()  # type: ignore[arg-type]


def test_alerts_are_found_by_identifier_object_time_night_and_condition(search: AlertSearch) -> None:
    search.log.append(
        [
            alert(1, magpsf=16.5, rb=0.95), alert(2, night=1, magpsf=16.5), alert(3, night=2, magpsf=19.0, rb=0.99),
            alert(4, night=2, magpsf=15.0, rb=None, object_name="GST26twice"),
            alert(5, night=3, object_name="GST26twice"),
        ]
    )  # fmt: skip
    assert candids(search, candids=[2, 4, 77]) == [2, 4]
    assert candids(search, object_name="GST26twice") == [4, 5]
    assert candids(search, since_jd=NIGHT_JD + 1, until_jd=NIGHT_JD + 2) == [2, 3, 4]
    assert candids(search, first_night=20260103, last_night=20260103) == [3, 4]
    assert candids(search, where="magpsf < 17 AND rb > 0.9 AND fid = 1") == [1]
    assert candids(search, where="rb IS NULL") == [4]
    assert candids(search, where="n_det_30d = 1", limit=2) == [1, 2]
    counted = search.count_by_night(AlertQuery(where="magpsf < 17")).to_pylist()
    assert [(row["night"], row["n"]) for row in counted] == [(20260101, 1), (20260102, 1), (20260103, 1)]


@pytest.mark.parametrize("place", [(10.0, -20.0), (0.0, 0.0), (359.9999, 45.0), (123.0, 89.99), (45.0, -90.0)])
def test_a_cone_holds_what_lies_within_its_radius_also_at_the_poles_and_at_ra_zero(
    search: AlertSearch, place: tuple[float, float]
) -> None:
    random, (ra, dec) = np.random.default_rng(5), place
    centre = unit_vectors(ra, dec)
    vectors = centre + random.normal(0.0, 4e-4, (300, 3))
    vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    where = [(float(np.degrees(np.arctan2(v[1], v[0])) % 360.0), float(np.degrees(np.arcsin(v[2])))) for v in vectors]
    search.log.append([alert(k + 1, ra=a, dec=d) for k, (a, d) in enumerate(where)])
    separation = np.degrees(2.0 * np.arcsin(np.linalg.norm(vectors - centre, axis=1) / 2.0)) * 3600.0
    expected = [k + 1 for k in np.flatnonzero(separation <= 120.0)]
    assert 20 < len(expected) < 280
    assert sorted(candids(search, cone=Cone(ra, dec, 120.0))) == expected
    assert sorted(candids(search, where=f"cone({ra}, {dec}, 120)")) == expected


def test_no_search_tells_of_a_program_or_night_that_it_does_not_name(search: AlertSearch) -> None:
    mixed = [alert(10 * p + k, program=p, night=k, object_name="GST26same") for p in (1, 2, 3) for k in range(3)]
    search.log.append(mixed)
    for asked in (
        {}, {"object_name": "GST26same"}, {"candids": range(40)}, {"cone": Cone(10.0, -20.0, 5.0)},
        {"where": "programid > 0"}, {"where": "programid = 2 OR TRUE = TRUE"}, {"first_night": 20260101},
    ):  # fmt: skip
        assert all(candid // 10 == 1 for candid in candids(search, **asked))
    assert candids(search, programs=(Program.PRIVATE,)) == [30, 31, 32]
    nights = PacketNights({Program.PUBLIC: 29991231, Program.PARTNERSHIP: 20260102})
    assert sorted(candids(search, programs=nights)) == [10, 11, 12, 20, 21]
    assert candids(search, programs=()) == []
    assert {row["programid"] for row in search.count_by_night(AlertQuery()).to_pylist()} == {1}
    assert [entry.candid for entry in search.entries(AlertQuery(programs=nights, first_night=20260102))] == [11, 21, 12]


def test_what_cannot_be_asked_is_refused_in_one_line(search: AlertSearch) -> None:
    search.log.append(alerts([1]))
    for where, reason in (
        ("magpfs < 3", "nearest: magpsf"), ("serial = 1", "serial"), ("rb > 0.9; DROP VIEW alert", "refused"),
        ("magpsf < (SELECT 1)", "refused"), ("rb = 'a'", "refused"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=reason) as caught:
            candids(search, where=where)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="no field 'rbb'; near it are rb"):
        search.run(AlertQuery(columns=["candid", "rbb"]))
    with pytest.raises(ConfigError, match="healpix_29"):
        search.run(AlertQuery(columns=["healpix_29"]))
    for cone in (Cone(10.0, 91.0, 3.0), Cone(10.0, 0.0, -3.0)):
        with pytest.raises(ConfigError):
            candids(search, cone=cone)


def test_an_empty_archive_knows_its_fields(search: AlertSearch) -> None:
    assert candids(search, where="magpsf < 17 AND rise_rate > 0.1", cone=Cone(0.0, 0.0, 60.0)) == []
    assert {"magpsf", "rb", "rise_rate", "night"} <= {field.name for field in search.fields()}


def test_the_command_answers_as_text_csv_json_and_parquet(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    (tmp_path / "a").mkdir()
    with AlertLog(tmp_path / "a") as log:
        log.append([*alerts([1, 2, 3], night=1), alert(4, program=2, night=1)])
    repo, run = str(tmp_path / "a"), CliRunner()
    asked = ["search", repo, "--cone", "10", "-20", "5", "--since", "2026-01-01", "--where", "fid = 1"]
    lines = run.invoke(command, asked).output.splitlines()
    assert lines[0].split()[:3] == ["candid", "objectId", "night"]
    assert len(lines) == 4
    columns = ["--columns", "candid,ra"]
    assert run.invoke(command, [*asked, *columns, "--format", "csv"]).output.splitlines()[1] == "1,10"
    told = json.loads(run.invoke(command, [*asked, "--program", "all", "--format", "json"]).output)
    assert [row["candid"] for row in told] == [1, 2, 3, 4]
    out = tmp_path / "found.parquet"
    assert run.invoke(command, [*asked, "--columns", "all", "--format", "parquet", "--out", str(out)]).exit_code == 0
    assert pq.read_table(out).num_rows == 3
    assert "serial" not in pq.read_schema(out).names
    assert run.invoke(command, ["search", repo, "--as", "anonymous", "--count"]).output.split()[-1] == "3"
    for wrong, reason in ((["--since", "yesterday"], "no time"), (["--survey", "ztf"], "no packets of 'ztf'")):
        assert reason in str(run.invoke(command, ["search", repo, *wrong]).exception)
