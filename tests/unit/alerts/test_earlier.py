"""Earlier images tell peaks of noise from faint sources, and no packet asks one that its stream may not show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gueststar.algorithms.vetting.earlier import EarlierConfig, likelihood_ratio, reliability_with_earlier
from gueststar.core.bits import SourceFlag
from gueststar.formats.avro import decode_alert
from gueststar.model.rights import Program, Releases, RightsPolicy
from gueststar.pipelines.alerts.earlier import EarlierImagesConfig
from gueststar.pipelines.alerts.neighbours import SOLAR_SYSTEM_MATCH
from gueststar.pipelines.alerts.packet import AlertConfig
from gueststar.pipelines.alerts.visit import AlertVisitConfig
from gueststar.store.alerts.log import AlertLog
from gueststar.store.detections.store import DetectionStore
from tests.unit.alerts.conftest import NIGHT_ZERO, Survey, make_forced, make_record, make_sources
from tests.unit.alerts.mosaic import KEY, N_DETECTORS, night_of, take

CONFIG = EarlierConfig()
PLACE = np.array([0.005]), np.array([20.01])
NONE = np.zeros(0), np.zeros(0)


def judged(reliability: float, now: float, *before: float, near_bright: bool = False) -> float:
    """Return the reliability of one detection, fluxes in units of their errors."""
    earlier = np.array([before], dtype=float).reshape(1, -1)
    return float(
        reliability_with_earlier(
            np.array([reliability]), flux=np.array([now]), is_positive=np.array([now > 0]),
            is_near_bright=np.array([near_bright]), earlier_flux=earlier, earlier_flux_err=np.ones_like(earlier),
        )[0]
    )  # fmt: skip


def ratio(reliability: float, now: float, *before: float, near_bright: bool = False) -> float:
    earlier = np.array([before], dtype=float)
    return float(
        likelihood_ratio(
            np.array([reliability]), flux=np.array([now]), is_positive=np.array([now > 0]),
            is_near_bright=np.array([near_bright]), earlier_flux=earlier, earlier_flux_err=np.ones_like(earlier),
        )[0]
    )  # fmt: skip


def test_a_source_that_shone_before_is_likelier_real_and_one_that_did_not_is_less_likely_so() -> None:
    assert judged(0.8, 5.3, 4.5) > 0.95 > judged(0.6, 5.3, 4.5) > 0.85 > judged(0.6, 5.3, 3.0) > 0.7
    assert judged(0.94, 5.3, 0.2) < 0.9
    assert judged(0.94, 5.3, 0.2, -0.7, 0.4) < judged(0.94, 5.3, 0.2)
    assert judged(0.6, 5.3, 2.5, 2.8) > judged(0.6, 5.3, 2.5) > 0.6, "what no image detected, two together show"


@given(
    st.floats(0.0, 1.0), st.floats(-60.0, 60.0), st.lists(st.floats(-200.0, 200.0), min_size=1, max_size=5),
)  # fmt: skip
def test_odds_change_within_bounds_and_alike_for_both_signs(score: float, now: float, before: list[float]) -> None:
    factor = ratio(score, now, *before)
    q = CONFIG.lone_alike + (CONFIG.artefact_alike - CONFIG.lone_alike) * (1.0 - score) ** 2
    assert 1.0 - CONFIG.real_alike - CONFIG.flipped - 1e-9 <= factor <= CONFIG.real_alike / q + 1e-9
    assert factor == pytest.approx(ratio(score, now, *before[::-1]), rel=1e-12), "the order of the images is nothing"
    if now != 0.0:
        assert factor == pytest.approx(ratio(score, -now, *(-flux for flux in before)), rel=1e-12)


def test_what_could_not_be_measured_tells_nothing() -> None:
    assert judged(0.7, 5.2) == judged(0.7, 5.2, np.nan, np.inf) == 0.7
    assert judged(0.7, 5.2, np.nan, 4.0) == judged(0.7, 5.2, 4.0)
    assert np.isnan(judged(np.nan, 5.2, 4.0))
    for score in (0.0, 1.0):
        assert judged(score, 5.2, np.nan) == score
        assert 0.0 <= judged(score, 5.2, 4.0) <= 1.0
    useless = reliability_with_earlier(
        np.full(2, 0.7), flux=np.full(2, 9.0), is_positive=np.ones(2, dtype=bool),
        is_near_bright=np.zeros(2, dtype=bool),
        earlier_flux=np.full((2, 1), 9.0), earlier_flux_err=np.array([[0.0], [1e4]]),
    )  # fmt: skip
    assert useless == pytest.approx([0.7, 0.7], abs=0.001), "no error, and one beyond all measure"
    with pytest.raises(ValueError, match="detections 1"):
        reliability_with_earlier(
            np.ones(1), flux=np.ones(1), is_positive=np.ones(1, dtype=bool),
            is_near_bright=np.ones(1, dtype=bool), earlier_flux=np.ones((2, 3)),
            earlier_flux_err=np.ones((2, 3)),
        )  # fmt: skip


@pytest.mark.parametrize("score", [0.001, 0.02, 0.05])
def test_a_residual_that_repeats_stays_as_unlikely_as_its_cutout_makes_it(score: float) -> None:
    """A bright star leaves 20 sigma on every image, at the same place, with the same sign."""
    assert judged(score, 20.0, 21.0, 19.0, 22.0) < 1.2 * score
    assert judged(score, -20.0, -21.0, -19.0, -22.0) < 1.2 * score


def test_near_a_bright_star_a_flux_alike_decides_nothing_however_well_it_looks() -> None:
    assert ratio(0.9, 7.0, 6.0, 7.0, 5.0, near_bright=True) == pytest.approx(1.0, abs=0.01)
    assert ratio(0.9, 7.0, 6.0, 7.0, 5.0) > 5.0
    assert ratio(0.9, 7.0, 0.3, near_bright=True) == pytest.approx(1.0, abs=0.01), "nor does its absence"


def test_a_flux_of_the_other_sign_decides_nothing() -> None:
    """A variable about its mean does that, and so does a star's residual when the focus changes."""
    assert ratio(0.9, 6.0, -18.0) == pytest.approx(1.0, abs=0.2)
    assert ratio(0.9, 7.9, -83.0, -92.0, -81.0) == pytest.approx(1.0, abs=0.05)


def test_one_bad_image_neither_makes_nor_breaks_a_detection() -> None:
    assert judged(0.9, 6.0, 5.0, 6.0, -1.0) > 0.95
    assert judged(0.5, 6.0, 1e6) == pytest.approx(judged(0.5, 6.0, 12.0), abs=0.01)


def test_scores_that_came_true_come_true_with_earlier_images_too_and_part_better() -> None:
    """Sources whose fluxes are log-normal about the present one, peaks of noise, and residuals that repeat."""
    rng = np.random.default_rng(5)
    n, k = 60_000, 3
    score = rng.beta(0.5, 0.3, n)
    is_real = rng.random(n) < score
    now = rng.uniform(5.0, 9.0, n)
    near_bright = rng.random(n) < 0.2
    share = np.where(near_bright, 1.0, (1.0 - score) ** 2)
    repeats = CONFIG.lone_alike + (CONFIG.artefact_alike - CONFIG.lone_alike) * share
    shone = rng.random(n) < np.where(is_real, CONFIG.real_alike, repeats)
    before = np.where(shone[:, None], now[:, None] * rng.lognormal(-0.2, 0.5, (n, k)), 0.0) + rng.normal(0, 1, (n, k))
    sign = np.where(rng.random(n) < 0.5, 1.0, -1.0)
    after = reliability_with_earlier(
        score, flux=sign * now, is_positive=sign > 0, is_near_bright=near_bright, earlier_flux=sign[:, None] * before,
        earlier_flux_err=np.ones((n, k)),
    )  # fmt: skip
    for low, high in ((0.02, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 0.95), (0.95, 1.0)):
        mine = (after >= low) & (after < high)
        assert is_real[mine].mean() == pytest.approx(after[mine].mean(), abs=0.04), (low, high)

    def cross_entropy(p: np.ndarray) -> float:
        p = np.clip(p, 1e-6, 1.0 - 1e-6)
        return float(-np.mean(np.where(is_real, np.log(p), np.log1p(-p))))

    assert cross_entropy(after) < 0.9 * cross_entropy(score)


class Sky:
    """Fluxes on earlier images as a test tells them, and which were asked for."""

    def __init__(self, flux: float | dict[float, float] = 0.0) -> None:
        self.flux, self.asked = flux, []

    def __call__(self, image: tuple[int, int], ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.asked.append((image, len(ra)))
        flux = self.flux if isinstance(self.flux, float) else self.flux[image[0]]
        return np.full(len(ra), flux), np.full(len(ra), 3000.0)


def observe(survey: Survey, mjd: float, sky: Sky | None = None, *, seen: bool = True, **facts: Any) -> Any:
    """Observe a field in which one new source of 15 sigma may be seen (of score 0.9, if no other is told)."""
    columns = {name: facts.pop(name) for name in ("reliability", "psf_flux", "is_positive", "flags") if name in facts}
    record = make_record(mjd, **facts)
    outcome = survey.observe(
        record, make_sources(record, *(PLACE if seen else NONE), **columns), measure_earlier=sky or Sky()
    )
    return record, outcome


def packets(survey: Survey, *programs: Program) -> list[dict[str, Any]]:
    return [decode_alert(data) for _, data in survey.log.replay(programs=programs or tuple(Program))]


def test_a_new_object_is_judged_by_the_place_on_the_image_before(make_survey: Callable[..., Survey]) -> None:
    told = {}
    for flux in (12_000.0, 0.0, np.nan):
        survey, sky = make_survey(), Sky(float(flux))
        before, _ = observe(survey, NIGHT_ZERO + 0.1, seen=False)
        observe(survey, NIGHT_ZERO + 1.1, sky)
        (packet,) = packets(survey)
        assert sky.asked == [((before.visit, before.detector), 1)]
        assert packet["candidate"]["rb"] == pytest.approx(0.9)
        truth = reliability_with_earlier(
            np.array([0.9]), flux=np.array([45_000.0]), is_positive=np.array([True]),
            is_near_bright=np.array([False]), earlier_flux=np.array([[flux]]), earlier_flux_err=np.array([[3000.0]]),
        )  # fmt: skip
        assert packet["rbhist"] == pytest.approx(float(truth[0]), abs=1e-6)
        told[str(flux)] = packet["rbhist"], packet["nrbhist"]
    assert told["12000.0"][0] > 0.95 > 0.9 > told["0.0"][0]
    assert told["nan"] == (pytest.approx(0.9), 0)
    assert (told["0.0"][1], told["12000.0"][1]) == (1, 1)


def test_a_source_that_fades_is_judged_by_fluxes_of_its_sign(make_survey: Callable[..., Survey]) -> None:
    survey = make_survey()
    observe(survey, NIGHT_ZERO + 0.1, seen=False)
    observe(survey, NIGHT_ZERO + 1.1, Sky(-20_000.0), psf_flux=-45_000.0, is_positive=False)
    assert packets(survey)[0]["rbhist"] > 0.95


def test_a_public_packet_asks_no_private_image(make_survey: Callable[..., Survey]) -> None:
    for program, expected in ((1, {1}), (2, {1, 2}), (3, {1, 3})):
        survey, sky = make_survey(), Sky(20_000.0)
        visits = {observe(survey, NIGHT_ZERO + k, seen=False, program=k)[0].visit: k for k in (1, 2, 3, 0)}
        observe(survey, NIGHT_ZERO + 5.1, sky, program=program)
        assert {visits[visit] for (visit, _), _ in sky.asked} == expected
    policy = RightsPolicy(Releases({Program.PRIVATE: ((20251125, NIGHT_ZERO + 4.0),)}))
    survey, sky = make_survey(policy), Sky(20_000.0)
    observe(survey, NIGHT_ZERO + 3.1, seen=False, program=3)
    observe(survey, NIGHT_ZERO + 5.1, sky, program=1)
    assert len(sky.asked) == 1, "what has been released may be asked"


def test_a_public_packet_is_the_same_whether_or_not_the_private_program_saw_the_object(
    make_survey: Callable[..., Survey],
) -> None:
    """Neither its detections nor the fluxes forced since then have a say, though the object is one and the same."""
    told = []
    for is_seen_in_private in (True, False):
        survey = make_survey()
        observe(survey, NIGHT_ZERO + 0.1, seen=False)
        if is_seen_in_private:
            observe(survey, NIGHT_ZERO + 1.1, program=3)
            observe(survey, NIGHT_ZERO + 1.2, program=1, seen=False)
        else:
            observe(survey, NIGHT_ZERO + 1.2, program=1, seen=False)
        observe(survey, NIGHT_ZERO + 2.1, Sky(6000.0), program=1)
        (packet,) = packets(survey, Program.PUBLIC)
        told.append((packet["rbhist"], packet["nrbhist"]))
    assert told[0] == told[1]
    assert told[0][1] == 2


def test_the_latest_images_of_the_band_are_asked_first_and_no_more_than_needed(
    make_survey: Callable[..., Survey],
) -> None:
    bands = {0: 2, 1: 2, 2: 1, 3: 2, 4: 1}
    for lost, expected in (((), [3, 1]), ((3,), [3, 1, 0]), ((3, 1, 0), [3, 1, 0])):
        survey = make_survey()
        nights = {
            observe(survey, NIGHT_ZERO + 0.1 + k, seen=False, band_id=band)[0].visit: k for k, band in bands.items()
        }
        sky = Sky({visit: np.nan if night in lost else 6000.0 for visit, night in nights.items()})
        observe(survey, NIGHT_ZERO + 6.1, sky, band_id=2)
        assert [nights[visit] for (visit, _), _ in sky.asked] == expected
        assert packets(survey)[0]["nrbhist"] == len(expected) - len(lost)
    survey, sky = make_survey(), Sky()
    observe(survey, NIGHT_ZERO + 0.1, seen=False)
    observe(survey, NIGHT_ZERO + 31.1, sky)
    assert not sky.asked, "30 days are the window of all history"


def test_only_a_doubt_is_worth_a_look_and_no_image_from_later_or_elsewhere_is_asked(
    make_survey: Callable[..., Survey],
) -> None:
    for score, is_asked in ((0.35, True), (0.9, True), (0.99, False)):
        survey, sky = make_survey(), Sky(6000.0)
        observe(survey, NIGHT_ZERO + 0.1, seen=False)
        observe(survey, NIGHT_ZERO + 0.2, seen=False, ra=80.0)
        observe(survey, NIGHT_ZERO + 3.1, seen=False)
        observe(survey, NIGHT_ZERO + 1.1, sky, reliability=score)
        assert len(sky.asked) == is_asked
        (packet,) = packets(survey)
        assert packet["nrbhist"] == is_asked
        assert (packet["rbhist"] == pytest.approx(score)) is not is_asked
    survey, sky = make_survey(), Sky(6000.0)
    observe(survey, NIGHT_ZERO + 0.1, seen=False)
    observe(survey, NIGHT_ZERO + 1.1, sky, flags=int(SourceFlag.NEAR_BRIGHT_STAR))
    assert not sky.asked, "near a bright star they decide nothing"


def test_fluxes_that_are_known_already_are_not_measured_again(make_survey: Callable[..., Survey]) -> None:
    """The second detection knows the first one, and the flux that was forced between them."""
    survey, sky = make_survey(), Sky()
    observe(survey, NIGHT_ZERO + 0.1)
    between, _ = observe(survey, NIGHT_ZERO + 1.1, seen=False)
    observe(survey, NIGHT_ZERO + 2.1, sky)
    assert not sky.asked
    _, packet = packets(survey)
    known = survey.store.working_set(make_record(NIGHT_ZERO + 3.0)).objects
    forced = float(make_forced(between, known)["psf_flux"][0])
    truth = reliability_with_earlier(
        np.array([0.9]), flux=np.array([45_000.0]), is_positive=np.array([True]),
        is_near_bright=np.array([False]), earlier_flux=np.array([[forced, 45_000.0]]),
        earlier_flux_err=np.array([[900.0, 3000.0]]),
    )  # fmt: skip
    assert packet["nrbhist"] == 2
    assert packet["rbhist"] == pytest.approx(float(truth[0]), abs=1e-6)


def test_a_flux_of_bad_pixels_tells_nothing_and_is_not_measured_again(make_survey: Callable[..., Survey]) -> None:
    survey, sky = make_survey(), Sky(20_000.0)
    observe(survey, NIGHT_ZERO + 0.1)
    record = make_record(NIGHT_ZERO + 1.1)

    def spoilt(objects: Any) -> Any:
        return make_forced(record, objects).replace(
            flags=np.full(objects.n_rows, int(SourceFlag.BAD_PIXEL), dtype=np.int64)
        )

    survey.observe(record, make_sources(record, *NONE), measure_forced=spoilt)
    observe(survey, NIGHT_ZERO + 2.1, sky)
    assert not sky.asked
    assert packets(survey)[-1]["nrbhist"] == 1, "the first detection alone"


@pytest.mark.parametrize(("distance", "is_asked"), [(2.0, False), (12.0, True)])
def test_a_known_asteroid_was_elsewhere_before(
    make_survey: Callable[..., Survey], distance: float, is_asked: bool
) -> None:
    survey, sky = make_survey(), Sky(0.0)
    observe(survey, NIGHT_ZERO + 0.1, seen=False)
    record = make_record(NIGHT_ZERO + 1.1)
    sources = make_sources(record, *PLACE)
    known = SOLAR_SYSTEM_MATCH.catalog(
        {"dia_source_id": sources["dia_source_id"], "distance": [distance], "mag": [19.0], "name": ["433"]}
    )
    survey.observe(record, sources, measure_earlier=sky, solar_system=known)
    (packet,) = packets(survey)
    assert packet["candidate"]["ssdistnr"] == pytest.approx(distance)
    assert bool(sky.asked) == bool(packet["nrbhist"]) == (packet["rbhist"] < 0.8) == is_asked
    assert is_asked or packet["rbhist"] == pytest.approx(packet["candidate"]["rb"])


def test_switched_off_packets_say_so_and_nothing_else_changes(make_survey: Callable[..., Survey]) -> None:
    on, off = make_survey(), make_survey()
    off.config = AlertVisitConfig(alerts=AlertConfig(earlier=replace(EarlierImagesConfig(), max_images=0)))
    sky = Sky(-80_000.0)
    for survey in (on, off):
        observe(survey, NIGHT_ZERO + 0.1, seen=False)
        for k, score in enumerate((0.31, 0.5, 0.9)):
            observe(survey, NIGHT_ZERO + 1.1 + k, sky if survey is off else Sky(), reliability=score)
    assert not sky.asked
    with_it, without = packets(on), packets(off)
    assert len(with_it) == 3
    assert {(packet["rbhist"], packet["nrbhist"]) for packet in without} == {(None, None)}
    assert all(packet["nrbhist"] for packet in with_it)
    own = dict.fromkeys(("rbhist", "nrbhist"))
    assert [packet | own for packet in with_it] == without


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)])
def test_detectors_of_an_exposure_do_not_see_each_other_in_whatever_order_they_come(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    images = night_of(3, 3)
    held = []
    for name, places in (("in order", range(N_DETECTORS)), ("shuffled", order)):
        store, log = DetectionStore.at(tmp_path / name, name_key=KEY), AlertLog(tmp_path / name)
        take(store, log, [images[k + place] for k in range(0, len(images), N_DETECTORS) for place in places])
        told = [decode_alert(data) for _, data in log.replay(programs=tuple(Program))]
        held.append({packet["candid"]: (packet["rbhist"], packet["nrbhist"]) for packet in told})
        store.close()
        log.close()
    assert held[0] == held[1]
    assert {n for _, n in held[0].values()} >= {0, 1}
