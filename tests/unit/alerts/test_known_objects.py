"""Known Solar-System objects: read from the files of the world, found where they are, told in packets."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from gueststar.algorithms.moving.observer import barycentric, observer_position
from gueststar.algorithms.moving.orbits import Elements, seen_from
from gueststar.cameras.load import load_camera
from gueststar.cli.orbits import command
from gueststar.core.errors import ConfigError, DataError
from gueststar.formats.avro import decode_alert
from gueststar.formats.orbit_table import read_orbits, short_name
from gueststar.model.camera import Site
from gueststar.model.catalog import Catalog
from gueststar.model.orbit_columns import ORBIT
from gueststar.pipelines.alerts.solar_system import KnownObjects, SolarSystemConfig, match_known_objects
from gueststar.store.orbits import OrbitStore
from gueststar.store.repo import SurveyRepo
from tests.unit.alerts.conftest import Survey, make_record, make_sources

SITE = Site(name="Palomar", latitude_deg=33.36, longitude_deg=-116.86, height_m=1700.0)
EPOCH = 60800.0

MPCORB = """\
MINOR PLANET CENTER ORBIT DATABASE (MPCORB)

Des'n     H     G   Epoch     M        Peri.      Node       Incl.       e            n           a
{line}
{first}
{second}
garbage
"""


def mpcorb_line(packed: str, title: str, e: float, a: float) -> str:
    """Return a line as the Minor Planet Center writes them."""
    line = f"{packed:7s} {10.31:5.2f} {0.25:5.2f} K2555 {123.45678:9.5f}  {73.70000:9.5f}  {80.25000:9.5f}  "
    line += f"{10.58780:9.5f}  {e:9.7f} {0.21393:11.8f} {a:11.7f}"
    return line.ljust(166) + title.ljust(28) + "20250505"


def some_orbits(n: int, *, seed: int = 1) -> Catalog:
    """Return orbits of the main belt and of near-Earth bodies."""
    rng = np.random.default_rng(seed)
    is_near = np.arange(n) % 4 == 0
    angles = rng.uniform(0.0, 360.0, (3, n))
    return ORBIT.catalog(
        {
            "name": np.arange(n).astype(str), "title": np.arange(n).astype(str),
            "a": np.where(is_near, rng.uniform(0.9, 2.5, n), rng.uniform(2.1, 3.3, n)),
            "e": np.where(is_near, rng.uniform(0.1, 0.7, n), rng.uniform(0.0, 0.3, n)),
            "inclination": rng.rayleigh(8.0, n), "node": angles[0], "perihelion": angles[1], "mean_anomaly": angles[2],
            "epoch_mjd": np.full(n, EPOCH), "absolute_magnitude": np.full(n, 15.0), "slope": np.full(n, 0.15),
        }
    )  # fmt: skip


def test_files_of_the_minor_planet_center_and_of_jpl_are_read(tmp_path: Path) -> None:
    mpc = tmp_path / "MPCORB.DAT.gz"
    lines = {
        "line": "-" * 160, "first": mpcorb_line("00433", "   (433) Eros", 0.2229, 1.458),
        "second": mpcorb_line("K20K11Y", "          2020 KY11", 0.1, 2.5),
    }  # fmt: skip
    mpc.write_bytes(gzip.compress(MPCORB.format(**lines).encode()))
    read = read_orbits(mpc)
    assert (read.catalog["name"].tolist(), read.n_left_out) == (["433", "2020KY11"], 0)
    first = {name: values[0] for name, values in read.catalog.items()}
    assert first["epoch_mjd"] == 60800.0, "K2555 is 2025-05-05"
    assert (first["a"], first["e"], first["mean_anomaly"], first["node"]) == (1.458, 0.2229, 123.45678, 80.25)
    assert (first["absolute_magnitude"], first["slope"], first["inclination"]) == (10.31, 0.25, 10.5878)
    jpl = tmp_path / "sbdb.json"
    fields = ["full_name", "H", "G", "epoch_mjd", "e", "a", "i", "om", "w", "ma"]
    rows = [
        ["   433 Eros (A898 PA)", "10.31", None, "60800", ".2229", "1.458", "10.6", "80.25", "73.7", "123.4"],
        ["       C/2020 F3 (NEOWISE)", None, None, "60800", "1.0003", None, "128", "61", "37", None],
    ]
    jpl.write_text(json.dumps({"fields": fields, "data": rows}))
    read = read_orbits(jpl)
    assert (read.catalog["name"].tolist(), read.n_left_out) == (["433"], 1)
    assert read.catalog["slope"].tolist() == [0.15]
    table = tmp_path / "sbdb.csv"
    table.write_text("full_name,epoch,a,e,i,om,w,ma,H\n1 Ceres,2460800.5,2.77,0.08,10.6,80.3,73.5,334.3,3.33\n")
    assert read_orbits(table).catalog["epoch_mjd"].tolist() == [60800.0]


def test_what_is_no_table_of_orbits_is_refused(tmp_path: Path) -> None:
    for name, text in (("a.json", "{}"), ("b.csv", "ra,dec\n1,2\n"), ("c.dat", "nothing\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=name):
            read_orbits(tmp_path / name)


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("433 Eros (A898 PA)", "433"), ("(433) Eros", "433"), ("(2020 KY11)", "2020KY11"), ("2020 KY11", "2020KY11"),
        ("2040 P-L", "2040P-L"), ("1P/Halley", "1P/Halley"), ("C/1995 O1 (Hale-Bopp)", "C/1995O1"),
        ("(123456)", "123456"), ("123456 (2001 AB12)", "123456"),
    ],
)  # fmt: skip
def test_bodies_are_named_as_alerts_of_the_world_name_them(title: str, name: str) -> None:
    assert short_name(title) == name


def test_nobody_who_is_in_the_field_is_overlooked() -> None:
    orbits = some_orbits(2000)
    known = KnownObjects(orbits, SITE)
    elements = Elements(*(orbits[name] for name in Elements._fields))
    rng = np.random.default_rng(3)
    place = {"longitude_deg": SITE.longitude_deg, "latitude_deg": SITE.latitude_deg, "height_m": SITE.height_m}
    for mjd in rng.uniform(EPOCH - 60.0, EPOCH + 60.0, 4):
        seen = seen_from(
            elements, observer=observer_position(mjd, **place), sun=barycentric("sun", mjd), mjd=mjd + 32.184 / 86400.0
        )
        body = int(rng.integers(2000))
        found = known.near(ra=seen.ra[body], dec=seen.dec[body], radius_deg=8.0, mjd_tai=mjd)
        a, d = np.radians(seen.ra), np.radians(seen.dec)
        cosine = np.sin(d) * np.sin(d[body]) + np.cos(d) * np.cos(d[body]) * np.cos(a - a[body])
        inside = np.flatnonzero(cosine > np.cos(np.radians(8.0)))
        assert found["name"].tolist() == orbits["name"][inside].tolist()
        np.testing.assert_allclose(found["ra"], seen.ra[inside], atol=1e-9)


def test_old_orbits_and_invisible_bodies_are_not_told() -> None:
    orbits = some_orbits(200)
    known = KnownObjects(orbits, SITE)
    everywhere = {"ra": 0.0, "dec": 0.0, "radius_deg": 180.0}
    assert known.near(**everywhere, mjd_tai=EPOCH + 10.0).n_rows == 200
    late = EPOCH + SolarSystemConfig().max_epoch_days + 1.0
    assert known.near(**everywhere, mjd_tai=late).n_rows == 0
    bright = known.near(**everywhere, mjd_tai=EPOCH, faintest_mag=18.0)
    assert 0 < bright.n_rows < 200
    assert (bright["mag_v"] <= 18.0).all()
    none = KnownObjects(ORBIT.empty(), SITE).near(**everywhere, mjd_tai=EPOCH)
    assert none.n_rows == 0
    assert match_known_objects(make_sources(make_record(61000.2), [0.0], [0.0]), none, max_arcsec=30.0).n_rows == 0


def test_a_packet_tells_the_nearest_known_object(make_survey: Callable[..., Survey]) -> None:
    record = make_record(EPOCH + 20.2)
    orbits = some_orbits(400)
    known = KnownObjects(orbits, SITE).near(ra=0.0, dec=0.0, radius_deg=180.0, mjd_tai=record.mjd_tai)
    one = known.select(np.argsort(np.abs(known["dec"]))[:1])
    ra, dec = float(one["ra"][0]), float(one["dec"][0])
    record = make_record(EPOCH + 20.2, ra=ra, dec=dec)
    sources = make_sources(record, np.array([ra, ra + 0.02]), np.array([dec + 3.0 / 3600, dec]))
    survey = make_survey()
    survey.observe(record, sources, solar_system=match_known_objects(sources, known, max_arcsec=30.0))
    near, far = (decode_alert(data)["candidate"] for _, data in survey.log.replay())
    assert near["ssdistnr"] == pytest.approx(3.0, abs=1e-3)
    assert near["ssnamenr"] == one["name"][0]
    assert near["ssmagnr"] == pytest.approx(float(one["mag_v"][0]), abs=1e-3)
    assert (far["ssdistnr"], far["ssmagnr"], far["ssnamenr"]) == (-999.0, -999.0, "null")


def test_orbits_are_imported_and_renewed_by_the_command(tmp_path: Path) -> None:
    runner, repo = CliRunner(), tmp_path / "survey"
    SurveyRepo.create(repo, load_camera("simcam")).close()
    file = tmp_path / "one.csv"
    text = "full_name,epoch_mjd,a,e,i,om,w,ma,H\n1 Ceres,{},2.77,0.08,10.6,80.3,73.5,334.3,3.33\n"
    for epoch in (60800, 61000):
        file.write_text(text.format(epoch))
        done = runner.invoke(command, ["import", str(repo), str(file)], catch_exceptions=False)
        assert "1 orbits; 1 bodies" in done.output
    assert OrbitStore(repo).read()["epoch_mjd"].tolist() == [61000.0]
    near = ["near", str(repo), "180", "-0.5", "2025-11-21T00:00:00", "--radius", "10"]
    assert runner.invoke(command, near, catch_exceptions=False).exit_code == 0
    with pytest.raises(ConfigError, match="not a survey repository"):
        runner.invoke(command, ["import", str(tmp_path), str(file)], catch_exceptions=False)
    assert "1 orbits; epochs MJD 61000" in runner.invoke(command, ["show", str(repo)]).output
