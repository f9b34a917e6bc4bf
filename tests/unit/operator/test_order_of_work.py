"""What is begun first, what waits for what, and for how long."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gueststar.cameras.load import load_camera
from gueststar.model.camera import Camera
from gueststar.model.exposure import ExposureInfo
from gueststar.model.rights import Program
from gueststar.operations.operator.calibration_sets import CalibrationSets
from gueststar.operations.operator.landed import Landed
from gueststar.operations.operator.order import SkyOrder
from gueststar.operations.operator.queue import Unit, WorkQueue
from gueststar.operations.rules.contract import Priority
from gueststar.store.ledger import separation_deg

CAMERA = load_camera("simcam")
DETECTOR = CAMERA.detectors[0].id
FAR = CAMERA.detectors[-1].id


def info(number: int, *, ra: float = 150.0) -> ExposureInfo:
    return ExposureInfo(
        camera="simcam", observation_type="science", mjd_start=60000.0 + number / 1000.0, exposure_s=30.0,
        day_obs=20260101, program=Program.PUBLIC, ra=ra, dec=2.0, physical_filter="r", band="r", field=1,
    )  # fmt: skip


class Order:
    """The order of the sky, asked by small numbers of exposures."""

    def __init__(self, *numbers: int, patience_s: float = 100.0, camera: Camera = CAMERA) -> None:
        self.order, self.numbers = SkyOrder(camera, patience_s=patience_s), {}
        for number in numbers:
            self.expect(number, {DETECTOR})

    def expect(self, number: int, detectors: set[int], *, priority: int = 10, **place: float) -> None:
        self.numbers[info(number).exposure_id] = number
        self.order.expect(info(number, **place), detectors, priority=priority)

    def ready(self, number: int, detector: int, *, now: float, **place: float) -> None:
        self.order.ready(info(number, **place), detector, now=now)

    def ended(self, number: int, detector: int) -> None:
        self.order.ended(info(number).exposure_id, detector)

    def next(self, **how) -> tuple[int, int] | None:
        found = self.order.next(**how)
        return None if found is None else (self.numbers[found[0]], found[1])


def test_an_image_waits_for_earlier_ones_of_its_sky_and_no_longer_than_the_patience() -> None:
    order = Order(1, 2)
    order.ready(2, DETECTOR, now=0.0)
    assert order.next(now=99.0) is None
    assert order.next(now=100.0) == (2, DETECTOR)  # the first comes late then
    order.ready(1, DETECTOR, now=99.5)
    assert order.next(now=99.6) == (1, DETECTOR)
    order.ended(1, DETECTOR)
    assert order.next(now=99.7) == (2, DETECTOR)
    order.ended(2, DETECTOR)
    assert order.next(now=1e9) is None
    assert len(order.order) == 0


def test_an_image_that_fails_holds_nobody_up() -> None:
    order = Order(1, 2)
    order.ready(2, DETECTOR, now=0.0)
    order.ended(1, DETECTOR)
    assert order.next(now=0.1) == (2, DETECTOR)


def test_images_of_another_sky_do_not_wait() -> None:
    order = Order(1)
    order.expect(2, {DETECTOR}, ra=10.0)
    order.ready(2, DETECTOR, now=0.0, ra=10.0)
    assert order.next(now=0.0) == (2, DETECTOR)


def test_far_detectors_of_the_same_pointing_do_not_wait_for_each_other() -> None:
    told = CAMERA.model_dump()
    for k, detector in enumerate(told["detectors"]):
        detector["focal_plane"]["x_arcsec"] = 7200.0 * k
    wide = Camera.model_validate(told)
    order = Order(camera=wide)
    order.expect(1, {DETECTOR}, priority=10)
    order.expect(2, {DETECTOR, FAR}, priority=10)
    order.ready(2, FAR, now=0.0)
    order.ready(2, DETECTOR, now=0.0)
    assert order.next(now=0.0) == (2, FAR)
    order.ended(2, FAR)
    assert order.next(now=0.0) is None


def test_tonight_does_not_wait_for_a_backlog_of_the_same_field_but_the_backlog_is_in_order() -> None:
    order = Order()
    for number in (1, 2):
        order.expect(number, {DETECTOR}, priority=30)
    order.expect(3, {DETECTOR}, priority=10)
    order.ready(3, DETECTOR, now=0.0)
    order.ready(2, DETECTOR, now=0.0)
    assert order.next(now=0.0) == (3, DETECTOR)
    order.ended(3, DETECTOR)
    assert order.next(now=0.0) is None


def test_nothing_is_associated_while_files_wait_that_may_be_anything() -> None:
    order = Order(5)
    order.ready(5, DETECTOR, now=0.0)
    assert order.next(now=1.0, landed=Landed(n_unseen=1)) is None
    assert order.next(now=1.0) == (5, DETECTOR)
    assert order.next(now=100.0, landed=Landed(n_unseen=1)) == (5, DETECTOR)


def test_files_that_landed_hold_up_only_later_images_of_their_sky() -> None:
    order = Order(5)
    order.ready(5, DETECTOR, now=0.0)

    def is_held_up_by(*infos: ExposureInfo) -> bool:
        return order.next(now=1.0, landed=Landed(infos)) is None

    assert is_held_up_by(info(4))
    assert is_held_up_by(info(6), info(4, ra=150.05), info(7))
    assert is_held_up_by(replace(info(4), ra=None, dec=None))  # its stars will tell where it looked
    assert not is_held_up_by(info(6))
    assert not is_held_up_by(info(4, ra=10.0))
    assert not is_held_up_by(info(5))  # another detector of the same exposure
    assert not is_held_up_by(replace(info(4), observation_type="flat", ra=None, dec=None))
    assert order.next(now=100.0, landed=Landed([info(4)])) == (5, DETECTOR)


def test_tonight_does_not_wait_for_files_of_earlier_nights_but_a_backlog_does() -> None:
    earlier = Landed([replace(info(1), day_obs=20251231)])
    for priority, expected in ((10, (5, DETECTOR)), (30, None)):
        order = Order()
        order.expect(5, {DETECTOR}, priority=priority)
        order.ready(5, DETECTOR, now=0.0)
        assert order.next(now=1.0, landed=earlier) == expected


def test_new_images_go_before_late_ones_of_another_sky_and_after_those_of_their_own() -> None:
    order = Order()
    order.order.expect(info(1, ra=10.0), {DETECTOR}, priority=10, rank=30)
    order.order.expect(info(2), {DETECTOR}, priority=10, rank=30)
    order.expect(8, {DETECTOR})
    order.expect(9, {DETECTOR}, ra=80.0)
    order.numbers |= {info(n).exposure_id: n for n in (1, 2)}
    for number, ra in ((1, 10.0), (2, 150.0), (8, 150.0), (9, 80.0)):
        order.ready(number, DETECTOR, now=0.0, ra=ra)
    turns = []
    while (found := order.next(now=1.0)) is not None:
        turns.append(found[0])
        order.ended(*found)
    assert turns == [9, 1, 2, 8]


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0.0, 359.9), st.floats(-90.0, 90.0)), max_size=30))
def test_what_landed_near_is_found_as_by_asking_one_after_the_other(placed: list[tuple[int, float, float]]) -> None:
    infos = [replace(info(number, ra=ra), dec=dec) for number, ra, dec in placed]
    mine = replace(info(5, ra=359.0), dec=60.0)
    expected = [
        one for one in infos
        if one.mjd_start <= mine.mjd_start and separation_deg(one.ra, one.dec, mine.ra, mine.dec) <= 40.0
    ]  # fmt: skip
    assert list(Landed(infos).earlier_near(mine, 40.0)) == expected


@given(st.permutations(list(range(8))), st.integers(0, 1000))
def test_whatever_the_order_of_workers_a_field_is_associated_by_time(finished: list[int], seed: int) -> None:
    order, random, done = Order(*range(8)), np.random.default_rng(seed), []
    for number in finished:
        order.ready(number, DETECTOR, now=0.0)
        while (found := order.next(now=1.0)) is not None and random.random() < 0.7:
            done.append(found[0])
            order.ended(*found)
    while (found := order.next(now=1.0)) is not None:
        done.append(found[0])
        order.ended(*found)
    assert done == sorted(finished)


def unit(priority: Priority, number: int) -> Unit:
    return Unit(int(priority), float(number), number, 1)


def test_tonight_comes_first_and_the_backlog_gets_its_share() -> None:
    queue = WorkQueue(backlog_share=4)
    for k in range(9):
        queue.put(unit(Priority.TONIGHT, k))
        queue.put(unit(Priority.BACKLOG, 100 + k))
        queue.put(unit(Priority.REPROCESSING, 200 + k))
    taken = [queue.take(now=0.0) for _ in range(12)]
    numbers = [found.exposure for found in taken if found is not None]
    assert numbers == [0, 1, 2, 100, 3, 4, 5, 101, 6, 7, 8, 102]
    rest = [found.exposure for _ in range(15) if (found := queue.take(now=0.0)) is not None]
    assert rest == [*range(103, 109), *range(200, 209)]
    assert queue.take(now=0.0) is None


def test_a_unit_that_is_put_off_comes_when_it_is_due_and_one_is_never_there_twice() -> None:
    queue = WorkQueue(backlog_share=4)
    queue.put(unit(Priority.TONIGHT, 1), not_before=50.0)
    queue.put(unit(Priority.TONIGHT, 2))
    queue.put(unit(Priority.TONIGHT, 2))
    assert queue.counts() == {"tonight": 2}
    assert queue.take(now=49.0) == unit(Priority.TONIGHT, 2)
    assert queue.take(now=49.0) is None
    assert queue.next_due() == 50.0
    assert queue.take(now=50.0) == unit(Priority.TONIGHT, 1)
    assert len(queue) == 0


def test_taking_a_unit_does_not_grow_slower_with_the_queue() -> None:
    queue = WorkQueue(backlog_share=4)
    units = [replace(unit(Priority.BACKLOG, k), detector=k % 64) for k in range(20_000)]
    for one in units:
        queue.put(one)
    assert [queue.take(now=0.0) for _ in units] == units


def test_a_set_of_calibrations_is_complete_when_quiet_or_asked_for() -> None:
    sets = CalibrationSets(quiet_s=60.0, patience_s=240.0)
    sets.add(1, now=0.0)
    sets.add(1, now=30.0)
    assert sets.want(1, now=31.0)
    assert not sets.want(2, now=31.0)
    assert sets.complete(now=89.0, is_more_coming=False) == []
    assert sets.complete(now=90.0, is_more_coming=True) == []
    assert sets.complete(now=90.0, is_more_coming=False) == [1]
    assert sets.want(1, now=91.0)  # while they are made
    sets.add(1, now=92.0)  # a late frame: the products are made again, after these
    sets.ask(1)
    assert sets.complete(now=93.0, is_more_coming=False) == []
    sets.made(1)
    assert sets.complete(now=93.0, is_more_coming=False) == [1]
    sets.made(1)
    assert not sets.want(1, now=94.0)


def test_science_does_not_wait_for_ever_for_frames_that_keep_coming() -> None:
    sets = CalibrationSets(quiet_s=60.0, patience_s=240.0)
    for now in range(0, 240, 30):
        sets.add(1, now=float(now))
        sets.want(1, now=1.0)
        assert sets.complete(now=float(now), is_more_coming=True) == []
    assert sets.complete(now=242.0, is_more_coming=True) == [1]
