"""The products of a detector's electronics, made where a night's frames show them and else left alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from gueststar.core.errors import MissingInput
from gueststar.formats.raw import read_detector
from gueststar.model.calibration import CalibrationKind, CalibrationProduct, CalibrationTable
from gueststar.model.raw import RawDetector
from gueststar.pipelines.calibration.brighter_fatter import MakeBrighterFatter
from gueststar.pipelines.calibration.charge_transfer import MakeChargeTransfer
from gueststar.pipelines.calibration.crosstalk import MakeCrosstalk
from gueststar.pipelines.calibration.linearity import MakeLinearity
from gueststar.pipelines.calibration.photon_transfer import MakePhotonTransfer
from gueststar.pipelines.night.calibrations.making import LearnedImage, Learning, Maker, Making, NothingMade


def _unless_missing(make: Callable[[], CalibrationTable]) -> CalibrationProduct | NothingMade:
    """Make a product; frames that do not allow it are no failure, for science does without."""
    try:
        return make()
    except MissingInput as reason:
        return NothingMade(str(reason))


def _make_linearity(making: Making) -> CalibrationProduct | NothingMade:
    task = MakeLinearity(making.settings.linearity)
    return _unless_missing(
        lambda: task.run(making.frames, making.infos, making.detector, making.known, previous=making.previous)
    )


def _make_photon_transfer(making: Making) -> CalibrationProduct | NothingMade:
    task = MakePhotonTransfer(making.settings.photon_transfer)
    return _unless_missing(
        lambda: task.run(making.frames, making.infos, making.detector, making.known, previous=making.previous)
    )


def _make_brighter_fatter(making: Making) -> CalibrationProduct | NothingMade:
    transfer = making.known.photon_transfer
    ours = {info.exposure_id for info in making.infos}
    if transfer is None or not ours.issuperset(transfer.metadata["inputs"]):
        return NothingMade("no photon-transfer curve was made from these flats")
    task = MakeBrighterFatter(making.settings.brighter_fatter)
    return _unless_missing(lambda: task.run(transfer, previous=making.previous))


def _make_charge_transfer(making: Making) -> CalibrationProduct | NothingMade:
    task = MakeChargeTransfer(making.settings.charge_transfer)
    return _unless_missing(
        lambda: task.run(making.frames, making.infos, making.detector, making.known, previous=making.previous)
    )


ELECTRONICS_MAKERS: Mapping[CalibrationKind, Maker] = MappingProxyType(
    {
        "linearity": _make_linearity,
        "photon_transfer": _make_photon_transfer,
        "brighter_fatter": _make_brighter_fatter,
        "charge_transfer": _make_charge_transfer,
    }
)
"""How each kind is made from a night's flats, in order."""


def learn_crosstalk(learning: Learning) -> CalibrationProduct | NothingMade:
    """Measure crosstalk in the raw pixels of a night's science exposures, some of them, spread over the night."""
    detector, camera = learning.detector, learning.context.camera
    others = [camera.detector(number) for number in detector.crosstalk_with]
    if len(detector.amplifiers) + sum(len(other.amplifiers) for other in others) < 2:
        return NothingMade("the detector has one amplifier and shares its electronics with no other")
    raws = [image for image in learning.images if image.raw is not None]
    most = learning.settings.crosstalk.max_exposures
    chosen = raws[:: max(1, -(-len(raws) // most))]

    def reader(image: LearnedImage) -> Callable[[], RawDetector]:
        assert image.raw is not None
        path = image.raw
        return lambda: read_detector(path, detector, image.info, others=others)

    task = MakeCrosstalk(learning.settings.crosstalk)
    return _unless_missing(lambda: task.run(map(reader, chosen), detector, previous=learning.previous))
