"""Earlier difference images of a survey are measured in part as in whole, and what is gone tells nothing."""

from pathlib import Path

import numpy as np
import pytest

from gueststar.formats.avro import decode_alert
from gueststar.formats.calibrated_image import read_around, read_calibrated_image
from gueststar.model.rights import Program
from gueststar.pipelines.difference.forced import DifferenceForcedConfig, MeasureOnDifference
from gueststar.pipelines.night.association import EarlierMeasurement
from gueststar.pipelines.night.worker import WorkerContext
from gueststar.store.alerts.log import AlertLog
from gueststar.store.repo import SurveyRepo
from tests.end_to_end._survey import copied_survey
from tests.integration.small_nights import processed_here


def packets_of(root: Path) -> list[dict]:
    log = AlertLog(root)
    packets = [decode_alert(data) for _, data in log.replay(programs=tuple(Program))]
    log.close()
    return packets


@pytest.mark.slow
def test_packets_tell_what_the_nights_earlier_images_show(tmp_path_factory: pytest.TempPathFactory) -> None:
    packets = packets_of(processed_here(tmp_path_factory) / "here")
    first = min(packet["candidate"]["jd"] for packet in packets)
    is_first = np.array([packet["candidate"]["jd"] == first for packet in packets])
    n_images = np.array([packet["nrbhist"] for packet in packets])
    assert not n_images[is_first].any(), "there was no difference image before"
    assert n_images[~is_first].any()
    for packet, n in zip(packets, n_images.tolist(), strict=True):
        if n == 0:
            assert packet["rbhist"] == packet["candidate"]["rb"]
        assert 0.0 <= packet["rbhist"] <= 1.0


@pytest.mark.slow
def test_a_stored_image_is_measured_in_part_as_in_whole(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = copied_survey(processed_here(tmp_path_factory) / "here", tmp_path / "copy")
    with SurveyRepo.open(root) as repo:
        stored = sorted(repo.find("difference_image"), key=lambda found: found.path)[0]
        visit, detector = stored.data_id.visit, stored.data_id.detector
        assert visit is not None
        assert detector is not None
        whole, config = read_calibrated_image(stored.path), DifferenceForcedConfig()
        ny, nx = whole.shape
        rng = np.random.default_rng(2)
        x = np.concatenate([rng.uniform(0.0, nx - 1.0, 12), [-50.0, 1.0, nx - 2.0, 256.0]])
        y = np.concatenate([rng.uniform(0.0, ny - 1.0, 12), [10.0, 1.0, ny - 2.0, 255.5]])
        ra, dec = whole.wcs.pixel_to_sky(x=x, y=y)
        truth = MeasureOnDifference(config).fluxes(whole, ra=ra, dec=dec)
        assert np.isfinite(truth[0]).sum() >= 8
        assert np.isnan(truth[0][12])

        context = WorkerContext(root)
        measure = EarlierMeasurement(repo, context, config)
        found = measure((visit, detector), ra, dec)
        context.image(stored.path)
        kept = measure((visit, detector), ra, dec)
        for flux, part, memory in zip(truth, found, kept, strict=True):
            assert flux.tobytes() == part.tobytes() == memory.tobytes()
        part = read_around(stored.path, ra=ra[:1], dec=dec[:1])
        assert (part.pixels.variance == 0.0).mean() > 0.0
        far = np.argmax(np.hypot(x - x[0], y - y[0]))
        assert np.isnan(MeasureOnDifference(config).fluxes(part, ra=ra[far : far + 1], dec=dec[far : far + 1])[0]).all()

        for flux in measure((visit + 1, detector), ra, dec):
            assert np.isnan(flux).all(), "no such image"
        stored.path.unlink()
        for flux in EarlierMeasurement(repo, WorkerContext(root), config)((visit, detector), ra, dec):
            assert np.isnan(flux).all(), "its file is gone"
