"""What surveys need: the documents' own numbers come out, queues behave as queues do, contradictions are told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from gueststar.cli.size import command
from gueststar.core.errors import ConfigError, DataError
from gueststar.operations.sizing.description import read_survey, shipped_names
from gueststar.operations.sizing.measuring import measure_repo
from gueststar.operations.sizing.queueing import fewest_cores, simulate
from gueststar.operations.sizing.text import size_lines, size_of, told_rows
from gueststar.operations.sizing.throughput import (
    MeasuredSky,
    Throughput,
    costs_of,
    read_throughput,
    shipped_throughput,
)
from gueststar.store.repo import SurveyRepo


def sky(name: str, n_sources: float, cpu: float) -> MeasuredSky:
    return MeasuredSky(
        name=name, n_images=3, mpix=10.0, n_sources=n_sources, n_alerts=100, cpu_s={"science": cpu},
        steps={"science: read": 0.1, "science: detrend": 0.5, "science: write": 0.4}, bytes={"science_image": 2e7},
        alert_bytes=2e4, memory_gb=2.0,
    )  # fmt: skip


MEASURED = Throughput(
    machine="a core",
    date="2026-01-01",
    version="1",
    how="by hand",
    skies=(sky("empty", 10000, 6.0), sky("full", 50000, 10.0)),
)


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_survey_can_be_sized_and_agrees_with_its_documents(name: str) -> None:
    sizing, _, _ = size_of(read_survey(name), shipped_throughput())
    for row in told_rows(sizing):
        assert row["ratio"] == pytest.approx(1.0, abs=0.16), row
    assert sizing.value("cores_needed") >= sizing.value("cores_busy") - 1e-9
    assert sizing.latency is not None
    assert sizing.latency.is_stable
    assert sizing.survey.sources


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        ("raw_mbps", 230), ("images_per_minute", 85), ("their_cores", 340), ("raw_per_night", 1e12),
        ("their_products_per_night", 3.8e12), ("their_products_total", 3e15), ("references", 282000),
        ("their_references_bytes", 55e12),
    ],
)  # fmt: skip
def test_the_numbers_of_ztfs_review_come_out(figure: str, value: float) -> None:
    sizing, _, _ = size_of(read_survey("ztf"), MEASURED)
    assert sizing.value(figure) == pytest.approx(value, rel=0.05)


def test_magis_two_seconds_an_image_are_told_as_a_contradiction() -> None:
    sizing, findings, _ = size_of(read_survey("magis"), MEASURED)
    assert sizing.value("images_per_year") == pytest.approx(69.12e6)
    one = next(item for item in findings if "one processor" in item.statement)
    assert not one.holds
    assert "0.46 s" in one.text
    assert "15.8 million" in one.text
    assert "CONTRADICTION" in "\n".join(size_lines(sizing, findings, MEASURED))
    assert sizing.value("raw_per_year") == pytest.approx(0.7e15, rel=0.05)


def test_costs_are_a_line_through_what_was_measured() -> None:
    costs = costs_of(MEASURED)
    assert costs.per_source_s == pytest.approx(4.0 / 40000)
    assert costs.cpu_s(10.0, 10000) == pytest.approx(6.0)
    assert costs.cpu_s(20.0, 0) == pytest.approx(10.0)
    alone = costs_of(MEASURED.model_copy(update={"skies": MEASURED.skies[:1]}))
    assert alone.per_source_s == 0.0
    assert "not measured" in alone.is_extrapolated


def test_as_many_cores_as_images_keep_each_image_to_its_own_time() -> None:
    waits = simulate(images=8, interval_s=10.0, cpu_s=np.full(50, 6.0), cores=8, n_exposures=50, before_s=3.0)
    assert waits.p50 == waits.p99 == pytest.approx(9.0)
    assert waits.is_stable


def test_half_as_many_cores_take_two_rounds_and_too_few_do_not_keep_up() -> None:
    half = simulate(images=8, interval_s=20.0, cpu_s=np.full(50, 6.0), cores=4, n_exposures=50)
    assert {half.p50, half.p95} == {9.0, 12.0} or half.p95 == pytest.approx(12.0)
    few = simulate(images=8, interval_s=10.0, cpu_s=np.full(200, 6.0), cores=4, n_exposures=200)
    assert not few.is_stable


def test_the_fewest_cores_keep_the_limit_and_one_less_does_not() -> None:
    cpu = np.full(100, 6.0)
    cores, waits = fewest_cores(images=16, interval_s=30.0, cpu_s=cpu, limit_s=15.0)
    assert waits.p95 <= 15.0
    fewer = simulate(images=16, interval_s=30.0, cpu_s=cpu, cores=cores - 1, n_exposures=100)
    assert fewer.p95 > 15.0 or not fewer.is_stable


def test_a_description_with_a_wrong_word_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ntitle: t\ncamera: {images: 2, megapixels: 5}\ncadence: {}\n")
    with pytest.raises(ConfigError, match=r"camera\.mpix"):
        read_survey(str(path))
    with pytest.raises(ConfigError, match="ztf"):
        read_survey("zwicky")


def test_the_command_sizes_a_survey_of_ones_own_with_costs_of_ones_own(tmp_path: Path) -> None:
    mine = yaml.safe_load(
        "{name: mine, title: One camera, camera: {images: 1, mpix: 10},"
        " cadence: {exposure_s: 60, interval_s: 90, exposures_per_night: 300, nights_per_year: 200, years: 2},"
        " sky: {sources: 10000}}"
    )
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine))
    (tmp_path / "costs.yaml").write_text(yaml.safe_dump(MEASURED.model_dump(mode="json")))
    assert read_throughput(tmp_path / "costs.yaml") == MEASURED
    words = [str(tmp_path / "mine.yaml"), "--measured", str(tmp_path / "costs.yaml"), "--json"]
    told = json.loads(CliRunner().invoke(command, words, catch_exceptions=False).output)
    assert told["figures"]["cpu_s_per_image"]["value"] == pytest.approx(6.0)
    assert told["figures"]["cores_needed"]["value"] == 1
    assert all(figure["follows"] for figure in told["figures"].values())
    listed = CliRunner().invoke(command, [], catch_exceptions=False).output
    assert {line.split()[0] for line in listed.splitlines()} == set(shipped_names())


def test_costs_are_taken_from_what_a_repository_processed(survey: SurveyRepo) -> None:
    found = measure_repo(survey, name="mine")
    assert found.cpu_s == {"science": 1.5, "difference": 1.5, "association": 1.5}
    assert found.n_images == 15  # the first loads the compiled code
    assert found.bytes["source"] > 1000


def test_a_repository_without_images_has_nothing_to_tell(tmp_path: Path, survey: SurveyRepo) -> None:
    with (
        SurveyRepo.create(tmp_path / "new", survey.camera) as empty,
        pytest.raises(DataError, match="no processed images"),
    ):
        measure_repo(empty, name="empty")
