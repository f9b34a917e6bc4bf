"""A camera that sees no sky: real absorption images of cold atoms through the ordinary commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from gueststar.core.bits import UNUSABLE
from gueststar.formats.raw import read_headers, read_section
from gueststar.operations.report.account import Fate, account_of
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo
from tests.end_to_end._survey import gueststar

pytestmark = pytest.mark.real_data


def pixels(path: Path) -> NDArray[np.float64]:
    return read_section(read_headers(path), 0, "[1:512,1:512]").astype(np.float64)


def scatter(density: NDArray[np.float64], is_free: NDArray[np.bool_], size: int) -> float:
    """Return the robust scatter of the optical density in free cells of ``size`` pixels."""
    n = 512 // size
    weight = is_free.reshape(n, size, n, size).sum(axis=(1, 3))
    total = np.where(is_free, density, 0.0).reshape(n, size, n, size).sum(axis=(1, 3))
    values = total[weight > size**2 / 2] / weight[weight > size**2 / 2]
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def test_optical_density_outside_the_atoms_scatters_less_than_over_the_shots_own_probe(
    shared_data: Path, tmp_path: Path
) -> None:
    data = shared_data / "coldatom_absorption"
    if not data.is_dir():
        pytest.skip(f"{data} is not there")
    repo = tmp_path / "lab"
    gueststar("init", repo, "--camera", "coldatom")
    assert "9 ingested (9 exposures)" in gueststar("ingest", repo, data, "--transfer", "link")
    gueststar("process", repo)
    dark = np.mean([pixels(path) for path in data.glob("Background_*")], axis=0)
    with SurveyRepo.open(repo) as survey:
        account = account_of(survey.ledger, 20201124)
        assert account.is_balanced
        assert account.count(Fate.PROCESSED) == 9
        for row in survey.ledger.exposures(observation_type="science"):
            frame = survey.get("detrended_frame", DataId(exposure=row.id, detector=0))
            shot = row.info.object_name
            image, probe = (pixels(next(data.glob(f"{kind}_*_{shot}.*"))) - dark for kind in ("Image", "Probe"))
            usual = -np.log(np.maximum(image, 1.0) / np.maximum(probe, 1.0))
            ours = -np.log(np.maximum(frame.pixels.image, 0.01) / np.median(frame.pixels.image))
            smooth = ndimage.gaussian_filter(ours - np.median(ours), 4.0)
            shows = np.abs(smooth) > 5.0 * 1.4826 * np.median(np.abs(smooth))
            is_free = ~ndimage.binary_dilation(shows, iterations=12) & frame.pixels.is_usable(UNUSABLE)
            assert is_free.mean() > 0.7
            for size in (1, 4, 8):
                assert scatter(ours, is_free, size) < 0.93 * scatter(usual, is_free, size)
            if shot == "0153":  # the one with a dense cloud, which must still be there
                assert np.median(ours[shows]) > 0.3


def test_the_night_report_accounts_for_a_laboratorys_frames(shared_data: Path, tmp_path: Path) -> None:
    data = shared_data / "coldatom_absorption"
    if not data.is_dir():
        pytest.skip(f"{data} is not there")
    repo = tmp_path / "lab"
    gueststar("init", repo, "--camera", "coldatom")
    gueststar("ingest", repo, *sorted(data.glob("Image_*")), "--transfer", "link")
    gueststar("process", repo)
    assert "3 detector images received = 3 processed" in gueststar("night", "report", repo)
