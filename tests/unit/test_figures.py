"""Pictures of the night report."""

import warnings

import pytest

from gueststar.operations.report.figures import completeness


@pytest.mark.parametrize("filled", [(10,), (3, 4), ()])
def test_completeness_is_drawn_when_few_bins_are_filled(filled: tuple[int, ...]) -> None:
    table = [
        {
            "mag_low": 15 + k / 2, "mag_high": 15.5 + k / 2, "n": 4 * (k in filled),
            "detected": 2 * (k in filled), "alerted": k in filled,
        }
        for k in range(14)
    ]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert completeness({"completeness": table}).startswith(b"\x89PNG")
