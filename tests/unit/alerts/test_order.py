"""What is stored does not depend on the order in which things arrive, nor on what lies in the cache."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gueststar.algorithms.association.mean_position import sum_positions
from gueststar.core.errors import OutOfTurn
from gueststar.model.rights import RightsPolicy
from gueststar.model.visit import VisitRecord
from gueststar.pipelines.alerts.visit import AlertVisit, AlertVisitConfig, VisitProducts
from gueststar.store.alerts.log import AlertLog
from gueststar.store.detections.store import CACHE_FOLDER, DetectionStore
from tests.unit.alerts.conftest import NIGHT_ZERO, REFERENCE, make_cutouts, make_record, make_sources
from tests.unit.alerts.mosaic import KEY, N_DETECTORS, contents, night_of, take, taken

IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(200)), seed=st.integers(0, 99))
def test_sums_of_positions_are_the_same_to_the_bit_in_any_order(order: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    columns = [rng.uniform(0, 360, 200), rng.uniform(-90, 90, 200), *rng.uniform(0.01, 3.0, (2, 200))]
    group = rng.integers(0, 5, 200)
    one = sum_positions(*columns, group, 5)
    other = sum_positions(*(column[order] for column in columns), group[order], 5)
    first = sum_positions(*(column[:90] for column in columns), group[:90], 5)
    rest = sum_positions(*(column[90:] for column in columns), group[90:], 5)
    for total, again, a, b in zip(one, other, first, rest, strict=True):
        assert total.tolist() == again.tolist() == (a + b).tolist()
        assert (total - b).tolist() == a.tolist(), "taken out again, a part leaves no trace"


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), seed=st.integers(0, 999))
def test_detectors_of_an_exposure_may_come_in_any_order(data: st.DataObject, seed: int) -> None:
    images = night_of(seed, 2)
    exposures = [images[k : k + N_DETECTORS] for k in range(0, len(images), N_DETECTORS)]
    shuffled = [image for exposure in exposures for image in data.draw(st.permutations(exposure))]
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        assert taken(Path(folder) / "in order", images) == taken(Path(folder) / "shuffled", shuffled)


def test_of_a_late_exposure_only_who_founded_an_object_depends_on_the_order(tmp_path: Path) -> None:
    """Detections, which of them belong together, and places are the same; numbers are of the first that came."""
    place = 0.005 + 0.002 * np.arange(8), np.full(8, 20.0)
    records = [make_record(NIGHT_ZERO + 0.1 + 0.01 * k, program=1) for k in range(4)]
    rng = np.random.default_rng(3)
    moved = [rng.normal(0, 0.1, (2, 8)) / 3600 for _ in records]
    images = [
        (record, make_sources(record, place[0] + shift[0], place[1] + shift[1]))
        for record, shift in zip(records, moved, strict=True)
    ]
    orders = [[0, 1, 2, 3], [2, 0, 3, 1], [3, 2, 1, 0]]
    held = [taken(tmp_path / str(k), [images[i] for i in order]) for k, order in enumerate(orders)]
    together, places = [], []
    for one in held:
        members: dict[int, list[int]] = {}
        for row in map(dict, one["dia_source"]):
            members.setdefault(row["dia_object_id"], []).append(row["dia_source_id"])
        together.append(sorted(map(sorted, members.values())))
        places.append(sorted((row["ra"], row["dec"]) for row in map(dict, one["dia_object"])))
    assert together[0] == together[1] == together[2]
    assert all(len(group) == 4 for group in together[0])
    assert places[0] == places[1] == places[2], "to the bit"


def test_announced_images_wait_for_earlier_ones_over_the_same_sky(tmp_path: Path) -> None:
    store, log = DetectionStore.at(tmp_path, name_key=KEY), AlertLog(tmp_path)
    first, second = make_record(NIGHT_ZERO + 0.1), make_record(NIGHT_ZERO + 0.2)
    elsewhere = make_record(NIGHT_ZERO + 0.3, ra=100.0)
    store.expect([first, second])
    store.expect([first])  # twice is once
    waited: list[float] = []
    run = AlertVisit(
        store, log, policy=RightsPolicy(), clock=lambda: NIGHT_ZERO + 1.0, sleep=waited.append,
        config=AlertVisitConfig(most_wait_s=0.1),
    )  # fmt: skip

    def observe(record: VisitRecord) -> None:
        sources = make_sources(record, np.array([0.005]), np.array([20.0]))
        run.run(VisitProducts(record, sources, make_cutouts(sources), REFERENCE))

    observe(elsewhere)
    assert not waited, "other sky, no waiting"
    with pytest.raises(OutOfTurn, match="waits for"):
        observe(second)
    assert sum(waited) == pytest.approx(0.1)
    observe(first)
    observe(second)
    third = make_record(NIGHT_ZERO + 0.25)
    store.expect([third])
    store.forget(third.visit, third.detector)
    observe(make_record(NIGHT_ZERO + 0.4))
    store.close()
    log.close()


def test_an_object_in_the_overlap_of_two_fields_is_one(make_survey) -> None:
    survey = make_survey()
    place = np.array([0.005]), np.array([20.0])
    names = set()
    for k, (ra, field) in enumerate(((359.99, 7), (0.12, 8), (359.99, 7), (0.12, 8))):
        record = VisitRecord(**(vars(make_record(NIGHT_ZERO + 0.1 * k, ra=ra, rcid=3 + field % 2)) | {"field": field}))
        survey.observe(record, make_sources(record, *place))
        found = survey.store.working_set(make_record(NIGHT_ZERO + 1.0)).objects
        names |= set(found["dia_object_id"].tolist())
    assert len(names) == 1
    assert found["n_dia_sources"].tolist() == [4]


def test_what_lies_in_the_cache_changes_nothing(tmp_path: Path) -> None:
    """Kept current, missing, damaged, cut short or of another store: the working set is that of the tables."""
    images = night_of(5, 4)
    store, log = DetectionStore.at(tmp_path, name_key=KEY), AlertLog(tmp_path)
    bare = DetectionStore(f"sqlite:///{tmp_path}/detections.sqlite")
    look = make_record(NIGHT_ZERO + 0.5, rcid=2, side=240, ra=359.999)
    path = next(iter((tmp_path / CACHE_FOLDER).glob("*/field_*/*.arrow")), None)
    for number, image in enumerate(images):
        take(store, log, [image])
        ours, tables = store.working_set(look), bare.working_set(look)
        assert ours.objects.n_rows > 0 or number == 0
        for one, other in ((ours.objects, tables.objects), (ours.parts, tables.parts), (ours.visits, tables.visits)):
            order_1, order_2 = (np.lexsort([c[n] for n in list(c)[:2]]) for c in (one, other))
            for name in one:
                assert one[name][order_1].tolist() == other[name][order_2].tolist()
        assert ours.name_numbers.tolist() == tables.name_numbers.tolist()
        path = sorted((tmp_path / CACHE_FOLDER).glob("*/field_*/detector_002.arrow"))[0]
        _spoil(path, number)
    assert store.withdraw_visit(images[0][0].visit, 0) > 0
    withdrawn = store.working_set(look).objects
    assert withdrawn["n_dia_sources"].tolist() == bare.working_set(look).objects["n_dia_sources"].tolist()
    store.close()
    bare.close()
    log.close()


def _spoil(path: Path, number: int) -> None:
    data = bytearray(path.read_bytes())
    match number % 5:
        case 1:
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        case 2:
            path.write_bytes(data[: len(data) // 2])
        case 3:
            path.unlink()
        case 4:
            path.write_bytes(b"")


def test_a_night_taken_in_again_after_the_cache_was_removed_is_the_same(tmp_path: Path) -> None:
    images = night_of(6, 2)
    whole = taken(tmp_path / "whole", images)
    store, log = DetectionStore.at(tmp_path / "bare", name_key=KEY), AlertLog(tmp_path / "bare")
    for image in images:
        take(store, log, [image])
        for path in (tmp_path / "bare" / CACHE_FOLDER).rglob("*.arrow"):
            path.unlink()
    assert contents(store) == whole
    store.close()
    log.close()
