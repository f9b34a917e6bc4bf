"""Charge-transfer inefficiency of a detector's amplifiers, from flats and the overscan behind their last pixels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from gueststar.algorithms.detrend.overscan import OverscanConfig
from gueststar.algorithms.response.charge_transfer import (
    ChargeTransfer,
    ChargeTransferConfig,
    DeferredCharge,
    mean_inefficiency,
    measure_deferred_charge,
)
from gueststar.algorithms.response.linearity import Linearity, correction_at
from gueststar.core.errors import DataError, MissingInput
from gueststar.model.calibration import NO_CALIBRATIONS, Calibrations, CalibrationTable
from gueststar.model.camera import Amplifier, Detector, Overscan, parse_section
from gueststar.model.exposure import ExposureInfo
from gueststar.model.raw import AmplifierPixels
from gueststar.pipelines.assembly import measure_zero
from gueststar.pipelines.calibration._frames import RawSource
from gueststar.pipelines.electronics import as_read, curves_of

Axis = Literal["x", "y"]


@dataclass(frozen=True)
class MakeChargeTransferConfig:
    """How charge transfer is measured, and when the result is refused."""

    measure: ChargeTransferConfig = field(default_factory=ChargeTransferConfig)
    max_frames: int = 4
    """Flats that are read: those of the longest exposure times."""
    max_change: float = 2e-5
    """An inefficiency per transfer that differs from the previous one by more than this is refused."""
    overscan: OverscanConfig = field(default_factory=OverscanConfig)


class MakeChargeTransfer:
    """Measure what fraction of the charge each transfer leaves behind."""

    def __init__(self, config: MakeChargeTransferConfig = MakeChargeTransferConfig()) -> None:
        self.config = config

    def run(
        self,
        frames: Sequence[RawSource],
        infos: Sequence[ExposureInfo],
        detector: Detector,
        known: Calibrations = NO_CALIBRATIONS,
        *,
        previous: CalibrationTable | None = None,
    ) -> CalibrationTable:
        """Return inefficiencies by amplifier and axis; of ``known``, linearity corrects the level of the flats.

        Raises MissingInput where no overscan follows the last pixels, or no loss is seen in any amplifier; DataError
        where what comes out is not to be believed.
        """
        what = f"charge transfer of detector {detector.id}"
        if not any(trailing_overscan(a.data_section, o, a) for a in detector.amplifiers for o in a.overscans):
            raise MissingInput(f"{what}: no overscan follows the pixels that are read last")
        flats = sorted((i for i in range(len(infos))), key=lambda i: -infos[i].exposure_s)[: self.config.max_frames]
        found, saturation, used = self._measure([frames[i] for i in flats])
        if known.linearity is not None:
            found = _linearised(found, curves_of(known.linearity))
        measured: dict[tuple[str, Axis], ChargeTransfer] = {}
        for key, deferred in found.items():
            try:
                measured[key] = mean_inefficiency(deferred, saturation=saturation[key[0]], config=self.config.measure)
            except ValueError as error:
                raise MissingInput(f"{what}, amplifier {key[0]}: {error}") from None
        if not any(item.is_significant for item in measured.values()):
            worst = max((item.error for item in measured.values()), default=float("nan"))
            raise MissingInput(
                f"{what}: none is lost, to {self.config.measure.min_significance * worst:.1e} per transfer"
            )
        product = _product(detector, measured, used)
        return product if previous is None else self._compared(product, previous, what)

    def _measure(
        self, sources: Sequence[RawSource]
    ) -> tuple[dict[tuple[str, Axis], list[DeferredCharge]], dict[str, float], list[ExposureInfo]]:
        """Return deferred charges by amplifier and axis, saturation above zero (ADU), and the flats that were read."""
        found: dict[tuple[str, Axis], list[DeferredCharge]] = defaultdict(list)
        saturation: dict[str, float] = {}
        used = []
        for source in sources:
            try:
                raw = source() if callable(source) else source
            except DataError:
                continue
            used.append(raw.info)
            for part in raw.amplifiers:
                zero = measure_zero(part, overscan=self.config.overscan, keep_pedestal=False)
                saturation[part.amplifier.name] = part.amplifier.saturation - float(np.median(zero.rows))
                for axis, deferred in _deferred(part, self.config.measure):
                    found[part.amplifier.name, axis].append(deferred)
        return found, saturation, used

    def _compared(self, product: CalibrationTable, previous: CalibrationTable, what: str) -> CalibrationTable:
        old = _by_place(previous)
        changes = {f"{n} {a}": value - old[n, a] for (n, a), value in _by_place(product).items() if (n, a) in old}
        for place, change in changes.items():
            if abs(change) > self.config.max_change:
                raise DataError(
                    f"{what}, amplifier {place}: inefficiency changed by {change:+.1e} since the previous measurement, "
                    f"limit {self.config.max_change:.1e}"
                )
        product.metadata["comparison"] = changes
        return product


def _linearised(
    found: dict[tuple[str, Axis], list[DeferredCharge]], curves: Mapping[str, Linearity]
) -> dict[tuple[str, Axis], list[DeferredCharge]]:
    """Return deferred charges with the flats' levels made linear; what trails is little, which needs no correction."""

    def straight(name: str, item: DeferredCharge) -> DeferredCharge:
        if name not in curves or not curves[name].is_significant:
            return item
        return item._replace(level=item.level + float(correction_at(curves[name], np.array([item.level]))[0]))

    return {(name, axis): [straight(name, item) for item in items] for (name, axis), items in found.items()}


def trailing_overscan(data_section: str, overscan: Overscan, amplifier: Amplifier) -> Axis | None:
    """Return along which axis an overscan is read right after the last light-sensitive pixels; None if it is not."""
    if overscan.extension not in (None, amplifier.extension):
        return None
    data, scan = parse_section(data_section), parse_section(overscan.section)
    for axis, index, is_reversed in (("x", 1, amplifier.reads_from_right), ("y", 0, amplifier.reads_from_top)):
        across = 1 - index
        is_beside = scan[across].start <= data[across].start and scan[across].stop >= data[across].stop
        is_next = scan[index].stop == data[index].start if is_reversed else scan[index].start == data[index].stop
        if is_beside and is_next:
            return "x" if axis == "x" else "y"
    return None


def _deferred(part: AmplifierPixels, config: ChargeTransferConfig) -> list[tuple[Axis, DeferredCharge]]:
    amplifier = part.amplifier
    rows, columns = parse_section(amplifier.data_section)
    found: list[tuple[Axis, DeferredCharge]] = []
    for overscan, pixels in zip(amplifier.overscans, part.overscans, strict=True):
        axis = trailing_overscan(amplifier.data_section, overscan, amplifier)
        if axis is None:
            continue
        scan_rows, scan_columns = parse_section(overscan.section)
        inside = (
            slice(rows.start - scan_rows.start, rows.stop - scan_rows.start) if axis == "x" else slice(None),
            slice(columns.start - scan_columns.start, columns.stop - scan_columns.start)
            if axis == "y"
            else slice(None),
        )
        try:
            found.append((
                axis,
                measure_deferred_charge(
                    as_read(part.data, amplifier, axis, is_assembled=False),
                    as_read(pixels[inside], amplifier, axis, is_assembled=False), config=config,
                ),
            ))  # fmt: skip
        except ValueError:
            continue
    return found


def _product(
    detector: Detector, measured: dict[tuple[str, Axis], ChargeTransfer], used: list[ExposureInfo]
) -> CalibrationTable:
    table = {
        "amplifier": np.array([name for name, _ in measured]),
        "axis": np.array([axis for _, axis in measured]),
        "inefficiency": np.array([item.inefficiency for item in measured.values()]),
        "error": np.array([item.error for item in measured.values()]),
    }
    times = [info.mjd_tai for info in used]
    facts = {"inputs": [info.exposure_id for info in used], "mjd_first": min(times), "mjd_last": max(times)}
    return CalibrationTable(
        "charge_transfer", detector.id, {"amplifiers": table}, float(np.mean(times)), len(used), metadata=facts
    )


def _by_place(product: CalibrationTable) -> dict[tuple[str, str], float]:
    rows = product.tables["amplifiers"]
    return {
        (str(name), str(axis)): float(value)
        for name, axis, value in zip(rows["amplifier"], rows["axis"], rows["inefficiency"], strict=True)
    }
