"""Pixels that hold much of what bright ones before them left behind."""

from __future__ import annotations

from gueststar.algorithms.response.charge_transfer import ChargeTransferConfig, mark_deferred_charge_in_place
from gueststar.model.calibration import CalibrationTable
from gueststar.model.camera import Detector, parse_section
from gueststar.model.image import Float32Image, MaskImage
from gueststar.pipelines.electronics import as_read


def mark_deferred_charge(
    mask: MaskImage,
    image: Float32Image,
    detector: Detector,
    measured: CalibrationTable | None,
    *,
    config: ChargeTransferConfig,
) -> int:
    """Mark SUSPECT what trails bright pixels (electrons) by transfers that lose charge; return how many pixels."""
    if measured is None:
        return 0
    n_marked = 0
    rows = measured.tables["amplifiers"]
    by_name = {amplifier.name: amplifier for amplifier in detector.amplifiers}
    for name, axis, inefficiency in zip(rows["amplifier"], rows["axis"], rows["inefficiency"], strict=True):
        amplifier = by_name.get(str(name))
        if amplifier is None or not inefficiency > 0:
            continue
        target = parse_section(amplifier.detector_section)
        n_marked += mark_deferred_charge_in_place(
            as_read(mask[target], amplifier, str(axis)), as_read(image[target], amplifier, str(axis)),
            float(inefficiency), noise=amplifier.read_noise, config=config,
        )  # fmt: skip
    return n_marked
