"""What rules are told of a survey follows from its ledger, registry and catalogs; the diary keeps what they did."""

from __future__ import annotations

import time

import numpy as np
import pytest
from click.testing import CliRunner

from gueststar.cli.rules import command as rules_command
from gueststar.core.errors import AccessDenied, ConfigError
from gueststar.model.calibration import CalibrationMaster
from gueststar.model.columns import REFCAT
from gueststar.model.readers import Reader
from gueststar.model.rights import Program
from gueststar.operations.rules import desk
from gueststar.operations.rules.contract import Decision, Recipe
from gueststar.operations.rules.facts import (
    ASKED_AGAIN_S,
    ExposureFactsSource,
    SurveyFactsSource,
    age_s,
    field_radius_deg,
    free_gb,
)
from gueststar.operations.rules.good_epochs import GoodEpochs
from gueststar.operations.rules.load import OWN, load_rules
from gueststar.operations.rules.record import (
    decisions_on,
    last_fired,
    operated_since,
    rules_at,
    write_decision,
    write_rules,
)
from gueststar.operations.why import story_of
from gueststar.store.operation_facts import OperationFacts
from gueststar.store.products import DataId
from gueststar.store.refcats import RefcatStore
from gueststar.store.visible import seen_by

NOW = 1677307200.0
"""2023-02-25T06:40 UTC: the exposures of the tests were taken minutes ago."""

RULES = """
rules:
  - {name: all, description: x, when: exposure, do: alerts, otherwise: [{if: {missing: reference}, do: images}]}
  - {name: report, description: x, when: night_ends, do: night_report}
"""


class Watch:
    """A monotonic clock that is set by hand."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def received(repo, info, detectors=(0, 1)):
    """Write an exposure down, with its field; return its row."""
    known = repo.add_exposure(info, detectors)
    return repo.ledger.exposure(known.exposure_id)


def certify(repo, image, kind, detector, glass=None):
    """Make a master that is valid around the time of the exposures."""
    which = DataId(detector=detector, physical_filter=glass)
    repo.put(kind, which, CalibrationMaster(kind, detector, image.pixels, 60000.0, 10, glass, {}))
    repo.certify(kind, which, 59990.0, 60010.0)


def fired(repo, rule, night, *, at, occasion=""):
    """Write a firing down as the operator does."""
    repo.ledger.event(
        "rule", rule, f"readiness: {rule} is due", night=night, actions=[["readiness", {}]], state="fired", at=at,
        occasion=occasion,
    )  # fmt: skip


# Exposures


def test_calibrations_are_there_when_every_detector_has_what_the_camera_takes(repo, exposure, make_image):
    row = received(repo, exposure())
    assert ExposureFactsSource(repo).facts(row, now=NOW).has_calibrations  # the camera takes no such frames
    received(repo, exposure(1, observation_type="bias", ra=None, dec=None, physical_filter=None, band=None))
    received(repo, exposure(2, observation_type="flat", ra=None, dec=None, physical_filter="tiny g", band="g"))
    watch = Watch()
    source = ExposureFactsSource(repo, monotonic=watch)
    assert not source.facts(row, now=NOW).has_calibrations
    for detector in (0, 1):
        certify(repo, make_image(detector), "bias", detector)
    certify(repo, make_image(), "flat", 0, "tiny g")
    watch.time += 2 * ASKED_AGAIN_S
    assert not source.facts(row, now=NOW).has_calibrations  # the second detector has no flat
    certify(repo, make_image(), "flat", 1, "tiny g")
    assert not source.facts(row, now=NOW).has_calibrations  # not asked again so soon
    watch.time += 2 * ASKED_AGAIN_S
    assert source.facts(row, now=NOW).has_calibrations
    early = received(repo, exposure(0, mjd_start=59950.25, day_obs=20230105))
    assert not source.facts(early, now=NOW).has_calibrations  # not valid then
    red = received(repo, exposure(3, physical_filter="tiny r", band="r"))
    assert source.facts(red, now=NOW).has_calibrations  # no flats are taken through this glass


def test_a_reference_is_there_when_every_detector_of_the_exposure_has_one(repo, exposure, make_image):
    row = received(repo, exposure())
    watch = Watch()
    source = ExposureFactsSource(repo, monotonic=watch)
    for detector in (0, 1):
        assert not source.facts(row, now=NOW).has_reference
        repo.put("reference_image", DataId(field=row.info.field, detector=detector, band="g"), make_image(detector))
        watch.time += 2 * ASKED_AGAIN_S
    assert source.facts(row, now=NOW).has_reference
    assert not source.facts(received(repo, exposure(1, band="r", physical_filter="tiny r")), now=NOW).has_reference


def test_star_density_is_that_of_the_catalog_within_the_cameras_field(repo, exposure):
    row = received(repo, exposure())
    source = ExposureFactsSource(repo)
    assert source.facts(row, now=NOW).stars_per_deg2 is None
    rng, n = np.random.default_rng(1), 40_000
    columns = {column.name: np.zeros(n) for column in REFCAT.columns}
    ra, dec = rng.uniform(149.0, 151.0, n), rng.uniform(19.0, 21.0, n)
    stars = REFCAT.catalog(columns | {"ra": ra, "dec": dec, "ref_id": np.arange(n)})
    RefcatStore(repo.root / "refcats").import_catalog("sky", stars)
    radius = field_radius_deg(repo.camera)
    assert 0.01 < radius < 0.05
    expected = n / (4.0 * np.cos(np.radians(20.0)))
    in_field = expected * np.pi * radius**2
    found = source.facts(row, now=NOW).stars_per_deg2
    assert found == pytest.approx(expected, rel=4.0 / np.sqrt(in_field))


def test_facts_of_one_more_exposure_take_less_than_five_milliseconds(repo, exposure, make_image):
    received(repo, exposure(1, observation_type="bias", ra=None, dec=None, physical_filter=None, band=None))
    rows = [received(repo, exposure(n)) for n in range(20, 60)]
    for detector in (0, 1):
        certify(repo, make_image(detector), "bias", detector)
    source = ExposureFactsSource(repo)
    source.facts(rows[0], now=NOW)
    start = time.perf_counter()
    for row in rows:
        source.facts(row, now=NOW)
    assert (time.perf_counter() - start) / len(rows) < 0.005


def test_age_counts_from_the_closing_of_the_shutter_and_is_never_negative(repo, exposure):
    row = received(repo, exposure())
    closed = (60000.25 - 40587.0) * 86400.0 - 37.0 + 30.0  # TAI was ahead of UTC by 37 s
    assert age_s(row, closed + 100.0) == pytest.approx(100.0, abs=0.01)
    assert age_s(row, closed - 100.0) == 0.0


# The survey


def test_received_exposures_and_calibration_sets_are_counted_by_night(repo, exposure):
    for n in range(3):
        received(repo, exposure(n))
    received(repo, exposure(0, mjd_start=60001.25, day_obs=20230225))
    for n in range(4):
        received(repo, exposure(10 + n, observation_type="dark", ra=None, dec=None, physical_filter=None, band=None))
    facts = SurveyFactsSource(repo).facts(now=NOW, idle_since=NOW - 60.0)
    assert facts.night == 20230224
    assert facts.received == 3
    assert facts.received_by_night == {20230224: 3, 20230225: 1}
    assert [(item.night, item.kind, item.n_frames) for item in facts.calibration_sets] == [(20230224, "dark", 4)]
    assert -90.0 < facts.sun_altitude_deg < -12.0
    assert facts.free_gb["sandbox"] > 0.0
    assert "archive" not in free_gb(repo)
    assert facts.idle_since == NOW - 60.0
    assert SurveyFactsSource(repo).facts(now=NOW, is_idle=False, idle_since=NOW).idle_since is None


def test_good_epochs_are_those_that_a_reference_would_take(repo, exposure):
    good = {
        "fwhm_arcsec": 2.0,
        "limiting_mag": 20.0,
        "zero_point": 25.0,
        "astrometric_rms_mas": 50.0,
        "sky_electrons": 300.0,
    }
    counter = GoodEpochs(repo)
    assert counter.counts() == {}

    def calibrate(number, detector=0, **changes):
        info = repo.add_exposure(exposure(number, field=7, **changes), (0, 1))
        job = repo.ledger.submit("science", {"exposure": info.exposure_id, "detector": detector},
                                 exposure_id=info.exposure_id, detector=detector)  # fmt: skip
        repo.ledger.start(job)
        repo.ledger.finish(job, good | ({"fwhm_arcsec": 9.0} if number == 4 else {}))

    for number in range(5):
        calibrate(number)
    calibrate(0, detector=1)
    calibrate(9, program=Program.ENGINEERING)
    assert counter.counts() == {(7, "g"): 4}  # one is blurred, and engineering does not count
    calibrate(5)
    assert counter.counts() == {(7, "g"): 5}


# The diary


def test_rules_are_kept_in_the_diary_when_they_change_and_only_then(repo):
    assert operated_since(repo.ledger, NOW) is None
    (repo.root / OWN).write_text(RULES)
    book = load_rules(repo.root, repo.settings.operation)
    assert write_rules(repo.ledger, book, now=NOW)
    assert not write_rules(repo.ledger, book, now=NOW + 60.0)
    (repo.root / OWN).write_text(RULES + "time_zone: America/Los_Angeles\n")
    changed = load_rules(repo.root, repo.settings.operation)
    assert write_rules(repo.ledger, changed, now=NOW + 3600.0)
    assert operated_since(repo.ledger, NOW + 7200.0) == NOW
    assert rules_at(repo.ledger, NOW - 1.0) is None
    assert rules_at(repo.ledger, NOW + 100.0).data["rules"] == RULES
    assert rules_at(repo.ledger, NOW + 3601.0).subject == changed.source.sha256[:12]


def test_last_firings_are_read_from_the_diary_by_the_surveys_clock(repo):
    fired(repo, "report", 20230224, at=NOW)
    fired(repo, "report", 20230225, at=NOW + 86400.0)
    repo.ledger.event("rule", "report", "readiness: done", night=20230225, state="done", at=NOW + 90000.0)
    fired(repo, "references", 20230225, at=NOW + 5.0, occasion="field 7 g has 5")
    assert last_fired(repo.ledger) == {
        "report": NOW + 86400.0, "report @ night 20230224": NOW, "report @ night 20230225": NOW + 86400.0,
        "references": NOW + 5.0, "references @ night 20230225": NOW + 5.0, "references @ field 7 g has 5": NOW + 5.0,
    }  # fmt: skip


def test_why_tells_which_rule_decided_about_an_exposure_and_which_fired_in_a_night(repo, exposure):
    row = received(repo, exposure())
    (repo.root / OWN).write_text(RULES)
    book = load_rules(repo.root, repo.settings.operation)
    write_rules(repo.ledger, book, now=NOW - 10.0)
    decision = book.decide(ExposureFactsSource(repo).facts(row, now=NOW))
    assert decision.recipe is Recipe.IMAGES
    write_decision(repo.ledger, row.id, decision, now=NOW)
    fired(repo, "report", 20230224, at=NOW + 1.0)
    repo.ledger.event("rule", "report", "readiness: all green", night=20230224, state="done", at=NOW + 9.0)
    told = "\n".join(story_of(repo, str(row.id)))
    assert f"rule 'all': images because no reference: images only, by rules.yaml {book.source.sha256[:12]}" in told
    night = story_of(repo, "20230224")
    assert night[0] == "night 20230224: exposures 1 science"
    said = night.index(f"rules of night 20230224, by rules.yaml {book.source.sha256[:12]}")
    assert "rule 'report' fired: readiness: report is due" in night[said + 1]
    assert night[said + 2].endswith("readiness: all green (done)")
    with pytest.raises(ConfigError, match="no exposure"):
        story_of(repo, "20230301")


def test_a_reader_is_told_nothing_of_rules(repo, exposure):
    row = received(repo, exposure())
    write_decision(repo.ledger, row.id, Decision("all", Recipe.ALERTS), now=NOW)
    fired(repo, "report", 20230224, at=NOW)
    public = seen_by(repo, Reader("somebody", frozenset()))
    assert decisions_on(public.ledger, row.id) == []
    told = story_of(public, "20230224")
    assert told[0] == "night 20230224: exposures 1 science"
    assert not any("rule" in line or "report" in line for line in told)
    with pytest.raises(AccessDenied):
        OperationFacts(public.ledger)


# The command


def test_rules_are_listed_checked_explained_and_copied(repo, exposure):
    row = received(repo, exposure())
    root, run = str(repo.root), CliRunner().invoke
    assert "readiness" in run(rules_command, ["list", root]).output
    assert "the shipped rules" in run(rules_command, ["check", root]).output
    explained = run(rules_command, ["explain", root, "--exposure", str(row.id)]).output
    assert "rule 'backlog' matches" in explained
    assert "-> images, priority backlog" in explained
    assert "rule 'account' is due" in run(rules_command, ["explain", root, "--at", "2023-02-25T18:00"]).output
    assert run(rules_command, ["copy", root]).exit_code == 0
    assert (repo.root / OWN).read_text().startswith("# What triggers what")
    with pytest.raises(ConfigError, match="is there already"):
        desk.copy_shipped(repo)
    with pytest.raises(ConfigError, match="no exposure 17"):
        desk.explain(repo, exposure=17, at=None, now=NOW)


def test_a_file_that_cannot_be_followed_ends_with_status_2_and_every_complaint(repo, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("rules:\n- {name: a, description: x, when: {exposure: {type: sciense}}, do: alerts}\n")
    done = CliRunner().invoke(rules_command, ["check", str(repo.root), str(file)])
    assert done.exit_code == 2
    assert f"{file}:2: rule 'a': when.exposure.type: 'sciense' is no type" in done.output
    (repo.root / OWN).write_text(file.read_text() + "- {name: b, when: night_ends, do: readiness}\n")
    with pytest.raises(ConfigError, match="and 1 more: gueststar rules check"):
        load_rules(repo.root, repo.settings.operation)
