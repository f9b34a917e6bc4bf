from pathlib import Path

import numpy as np
import pytest

from gueststar.core.errors import DataError
from gueststar.formats.cutout_cube import read_cutout_cube, write_cutout_cube
from gueststar.formats.cutouts import cut_stamp, cut_stamps_in_place
from gueststar.model.cutouts import CandidateCutouts


def test_cutouts_of_many_places_are_those_cut_one_by_one() -> None:
    rng = np.random.default_rng(4)
    image, mask = rng.normal(size=(90, 120)).astype(np.float32), rng.integers(0, 4, (90, 120), dtype=np.int32)
    x, y = np.array([60.0, 0.49, 119.2, 31.5, 500.0]), np.array([45.0, 3.0, 88.6, 30.5, 20.0])
    together = np.zeros((5, 63, 63), np.float32)
    cut_stamps_in_place(image, mask, 2, x, y, together)
    for k in range(5):
        alone = cut_stamp(image, x=x[k], y=y[k], is_missing=(mask & 2) != 0)
        np.testing.assert_array_equal(together[k], alone)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_cutouts_come_back_to_the_last_bit(tmp_path: Path, n: int) -> None:
    rng = np.random.default_rng(3)
    stamps = rng.normal(size=(n, 3, 63, 63)).astype(np.float32)
    stamps[:, :, :5] = np.nan
    cutouts = CandidateCutouts(np.arange(n, dtype=np.int64) + 10**17, stamps)
    write_cutout_cube(tmp_path / "c.fits", cutouts)
    again = read_cutout_cube(tmp_path / "c.fits")
    np.testing.assert_array_equal(again.dia_source_id, cutouts.dia_source_id)
    if n:
        np.testing.assert_array_equal(again.stamps, stamps)
        np.testing.assert_array_equal(again.of(10**17), stamps[0])


def test_cutouts_of_an_unknown_candidate_are_refused() -> None:
    cutouts = CandidateCutouts(np.array([7]), np.zeros((1, 3, 9, 9), dtype=np.float32))
    with pytest.raises(DataError, match="no cut-outs of candidate 8"):
        cutouts.of(8)
