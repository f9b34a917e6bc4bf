"""Calibration products that are tables come back as they went, and are found by time like any other."""

import numpy as np
import pytest

from gueststar.core.errors import DataError
from gueststar.formats.calibration_table import read_calibration_table, write_calibration_table
from gueststar.model.calibration import CalibrationTable


def curve():
    table = {
        "amplifier": np.array(["A", "B"]),
        "knots": np.arange(6.0).reshape(2, 3),
        "n": np.array([3, 4], dtype=np.int64),
    }
    return CalibrationTable("linearity", 3, {"curves": table}, 60000.25, 12, metadata={"largest": 0.02})


def test_tables_come_back_as_they_went(tmp_path):
    write_calibration_table(tmp_path / "t.fits", curve())
    back = read_calibration_table(tmp_path / "t.fits")
    assert (back.kind, back.detector_id, back.mjd_tai, back.n_frames) == ("linearity", 3, 60000.25, 12)
    assert back.metadata == {"largest": 0.02}
    assert list(back.tables["curves"]["amplifier"]) == ["A", "B"]
    np.testing.assert_array_equal(back.column("curves", "knots"), curve().column("curves", "knots"))


def test_columns_of_unequal_length_are_refused(tmp_path):
    broken = CalibrationTable("linearity", 3, {"curves": {"a": np.zeros(2), "b": np.zeros(3)}}, 60000.0, 1)
    with pytest.raises(DataError, match="equally long"):
        write_calibration_table(tmp_path / "t.fits", broken)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "t.fits").write_bytes(b"no fits")
    with pytest.raises(DataError):
        read_calibration_table(tmp_path / "t.fits")
