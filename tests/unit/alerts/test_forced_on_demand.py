"""Fluxes on demand: places and names as a reader may know them, images as a reader may see them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gueststar.cameras.load import load_camera
from gueststar.core.errors import DataError
from gueststar.core.ids import object_name, object_name_parts
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import CalibratedImage, MaskedImage
from gueststar.model.photocal import PhotoCal
from gueststar.model.readers import ANONYMOUS, Reader
from gueststar.model.rights import Program, RightsPolicy
from gueststar.model.wcs import Wcs
from gueststar.operations.forced import forced_on_differences, place_of_object
from gueststar.store.alerts.log import AlertLog
from gueststar.store.detections.store import DetectionStore
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo
from gueststar.store.visible import seen_by
from tests.unit.alerts.conftest import NIGHT_ZERO, Survey, make_record, make_sources
from tests.unit.alerts.test_limits import varying_psf

PLACE = np.array([0.005]), np.array([20.01])
PRIVATE = Reader.of_programs([Program.PRIVATE])
SHAPE = (300, 340)


@pytest.fixture
def repo(tmp_path: Path):
    """A repository with a public and a private exposure of one place, each with its difference image."""
    camera = load_camera("simcam")
    with SurveyRepo.create(tmp_path / "survey", camera) as made:
        rng, glass = np.random.default_rng(1), camera.filters[0]
        for k, program in enumerate((Program.PUBLIC, Program.PRIVATE)):
            info = ExposureInfo(
                camera.name, "science", NIGHT_ZERO + 0.1 + k, 30.0, 20251121 + k, program, glass.physical_filter,
                glass.band, 0.0, 20.0,
            )  # fmt: skip
            visit = made.add_exposure(info, [0]).exposure_id
            noise = (4.0 * rng.standard_normal(SHAPE)).astype(np.float32)
            noise[138:163, 158:183] -= 2000.0 * varying_psf().stamp(x=170.0, y=150.0)
            pixels = MaskedImage(noise, np.full(SHAPE, 16.0, np.float32), np.zeros(SHAPE, np.int32))
            wcs = Wcs.tangent(ra=0.005, dec=20.01, x=170.0, y=150.0, scale_arcsec=1.0)
            image = CalibratedImage(pixels, wcs, varying_psf(), PhotoCal(27.0, 0.01), {"visit": visit, "detector": 0})
            made.put("difference_image", DataId(visit=visit, detector=0), image)
        yield made


def test_a_fading_star_is_measured_on_the_differences_that_the_reader_may_see(repo: SurveyRepo) -> None:
    store = DetectionStore.at(repo.root, name_key=b"k")
    survey = Survey(repo.root, store, AlertLog(repo.root), RightsPolicy())
    record = make_record(NIGHT_ZERO + 0.1)
    survey.observe(record, make_sources(record, *PLACE))
    name = survey.log.entries()[0].object_name
    store.close()
    everybody = seen_by(repo, ANONYMOUS)
    place = place_of_object(everybody, name)
    public = forced_on_differences(everybody, place)
    assert public.n_rows == 1
    both = forced_on_differences(seen_by(repo, PRIVATE), place)
    assert both.n_rows == 2
    assert forced_on_differences(seen_by(repo, PRIVATE), place, night=20251122).n_rows == 1
    njy = PhotoCal(27.0, 0.01).njy_per_unit
    assert np.all(np.abs(both["psf_flux"] + 2000.0 * njy) < 5.0 * both["psf_flux_err"]), "negative, as it is"
    with pytest.raises(DataError, match="no difference image"):
        forced_on_differences(everybody, place, night=20251122)


def test_an_object_that_only_the_private_program_knows_does_not_exist_for_others(repo: SurveyRepo) -> None:
    store = DetectionStore.at(repo.root, name_key=b"k")
    survey = Survey(repo.root, store, AlertLog(repo.root), RightsPolicy())
    for mjd, program, shift in ((NIGHT_ZERO + 1.1, 3, 1.0), (NIGHT_ZERO + 60.1, 1, 0.0)):
        record = make_record(mjd, program=program)
        survey.observe(record, make_sources(record, PLACE[0], PLACE[1] + shift / 3600))
        private = survey.log.entries(programs=(Program.PRIVATE,))[0].object_name
        if program == 3:
            with pytest.raises(DataError, match="anonymous knows no object"):
                place_of_object(seen_by(repo, ANONYMOUS), private)
    public = survey.log.entries()[0].object_name
    store.close()
    assert public[5:] == private[5:]
    everybody = seen_by(repo, ANONYMOUS)
    assert place_of_object(everybody, public)["dec"][0] == pytest.approx(20.01, abs=1e-9), (
        "of its public detection only"
    )
    assert place_of_object(seen_by(repo, PRIVATE), private)["dec"][0] > 20.0101
    assert public[3:5] == "26"
    with pytest.raises(DataError, match="anonymous knows no object"):
        place_of_object(everybody, private)


def test_a_name_is_taken_apart_as_it_was_made() -> None:
    for number in (0, 25, 26**7 - 1, 123_456_789):
        assert object_name_parts(object_name(number, prefix="GST", year=2026)) == ("GST", 26, number)
    for wrong in ("", "GST26", "GST26abcdefG", "GST2aabcdefg", "GST26abcdefgh"):
        with pytest.raises(DataError, match="not the name"):
            object_name_parts(wrong)
