"""Defects of a detector, as its bias, dark and flat masters show them."""

import numpy as np
import pytest

from gueststar.algorithms.detrend.defects import Columns, find_flat_defects, find_offset_defects
from gueststar.model.camera import Amplifier, Detector
from gueststar.pipelines.calibration._frames import columns_of

SIDE, HALF, BAD, HOT = 200, 100, 77, (30, 140)


def four_amplifiers(readout_axis: str) -> Detector:
    amplifiers = tuple(
        Amplifier(
            name=f"{row}{column}", data_section=f"[1:{HALF},1:{HALF}]",
            detector_section=f"[{1 + column * HALF}:{(column + 1) * HALF},{1 + row * HALF}:{(row + 1) * HALF}]",
            gain=2.0, read_noise=6.0, saturation=60_000.0,
        )
        for row in (0, 1) for column in (0, 1)
    )  # fmt: skip
    return Detector(id=1, name="d1", shape=(SIDE, SIDE), amplifiers=amplifiers, readout_axis=readout_axis)


@pytest.fixture
def master() -> np.ndarray:
    """A bias whose column `BAD` is off in the lower half, with a hot pixel in the upper one."""
    values = np.random.default_rng(6).normal(0.0, 0.5, (SIDE, SIDE)).astype(np.float32)
    values[:HALF, BAD] += 40.0
    values[HOT[1], HOT[0]] = 300.0
    return values


def test_a_bad_column_ends_where_other_amplifiers_begin(master: np.ndarray) -> None:
    columns = columns_of(four_amplifiers("y"))
    assert columns == Columns(0, (slice(0, HALF), slice(HALF, SIDE)))
    found = find_offset_defects(master, noise=3.0, both_signs=True, columns=columns)
    assert found[:HALF, BAD].all()
    assert found[HOT[1], HOT[0]]
    assert np.count_nonzero(found) == HALF + 1
    whole = find_offset_defects(master, noise=3.0, both_signs=True)
    assert whole[:, BAD].all(), "read out by one amplifier, all of it is spoilt"


def test_columns_lie_along_the_axis_of_readout(master: np.ndarray) -> None:
    columns = columns_of(four_amplifiers("x"))
    assert columns.axis == 1
    found = find_offset_defects(master.T.copy(), noise=3.0, both_signs=True, columns=columns)
    upright = find_offset_defects(master, noise=3.0, both_signs=True, columns=columns_of(four_amplifiers("y")))
    np.testing.assert_array_equal(found.T, upright)


@pytest.mark.parametrize("axis", ["y", "x"])
def test_so_does_one_of_a_flat(axis: str) -> None:
    flat = np.random.default_rng(7).normal(1.0, 0.01, (SIDE, SIDE)).astype(np.float32)
    flat[HALF : HALF + 60, BAD] = 0.2
    turned = flat if axis == "y" else flat.T.copy()
    found = find_flat_defects(turned, columns=columns_of(four_amplifiers(axis)))
    found = found if axis == "y" else found.T
    assert found[HALF:, BAD].all()
    assert np.count_nonzero(found) == HALF
