"""Linearity: what counts mean in light, from flats of many exposure times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.detrend.overscan import OverscanConfig
from gueststar.algorithms.response.even_light import even_blocks, level_in
from gueststar.algorithms.response.linearity import FlatLevels, Linearity, LinearityConfig, correction_at, fit_linearity
from gueststar.core.errors import DataError, MissingInput
from gueststar.model.calibration import Calibrations, CalibrationTable
from gueststar.model.camera import Detector
from gueststar.model.exposure import ExposureInfo
from gueststar.pipelines.calibration._frames import RawSource
from gueststar.pipelines.calibration._ladder import (
    BLOCK,
    LadderFrame,
    choose_ladder,
    ladder_facts,
    part_of,
    read_ladder_frame,
)
from gueststar.pipelines.electronics import Electronics, crosstalk_terms, curves_of


@dataclass(frozen=True)
class MakeLinearityConfig:
    """How linearity is measured, and when the result is refused."""

    fit: LinearityConfig = field(default_factory=LinearityConfig)
    max_correction: float = 0.2
    """A correction above this fraction of the counts is refused."""
    max_change: float = 0.01
    """A curve that differs from the previous one by more than this fraction of the counts is refused."""
    overscan: OverscanConfig = field(default_factory=OverscanConfig)


class _Measured(NamedTuple):
    """One flat by amplifier."""

    info: ExposureInfo
    level: dict[str, float]
    error: dict[str, float]
    saturation: dict[str, float]


class MakeLinearity:
    """Measure how counts depart from proportionality to light."""

    def __init__(self, config: MakeLinearityConfig = MakeLinearityConfig()) -> None:
        self.config = config

    def run(
        self,
        frames: Sequence[RawSource],
        infos: Sequence[ExposureInfo],
        detector: Detector,
        known: Calibrations,
        *,
        previous: CalibrationTable | None = None,
    ) -> CalibrationTable:
        """Return the curves of a detector's amplifiers from flats, of which one filter's are used.

        ``frames`` belong to ``infos`` one by one and are read one at a time. Raises MissingInput where the flats are no
        ladder, or tell too little; DataError where what comes out is not to be believed.
        """
        config = self.config
        chosen = choose_ladder(infos, min_levels=config.fit.min_levels, min_span=config.fit.min_span)
        measured, rejected = self._measure([frames[i] for i in chosen], detector, known)
        if not measured:
            raise MissingInput(f"linearity of detector {detector.id}: no flat could be read")
        curves = {}
        for amplifier in detector.amplifiers:
            try:
                levels = _levels_of(amplifier.name, measured)
                curves[amplifier.name] = fit_linearity(
                    levels, saturation=measured[0].saturation[amplifier.name], config=config.fit
                )
            except ValueError as error:
                raise MissingInput(
                    f"linearity of detector {detector.id}, amplifier {amplifier.name}: {error}"
                ) from None
        infos = [item.info for item in measured]
        product = CalibrationTable(
            "linearity", detector.id,
            {"curves": _curve_rows(curves), "flats": _flat_rows(measured)},
            float(np.mean([info.mjd_tai for info in infos])), len(infos),
            metadata={**ladder_facts(infos, rejected), "largest_correction": _largest(curves)},
        )  # fmt: skip
        return _checked(product, detector, previous, config)

    def _measure(
        self, sources: Sequence[RawSource], detector: Detector, known: Calibrations
    ) -> tuple[list[_Measured], list[dict[str, Any]]]:
        """Read all flats; return their levels in order of time, and what could not be read."""
        crosstalk = {} if known.crosstalk is None else crosstalk_terms(known.crosstalk)
        electronics = Electronics(crosstalk=crosstalk)
        measured: list[_Measured] = []
        rejected: list[dict[str, Any]] = []
        blocks: dict[str, NDArray[np.bool_]] = {}
        for number, source in enumerate(sources):
            try:
                frame = read_ladder_frame(
                    source, detector, known, overscan=self.config.overscan, electronics=electronics
                )
            except DataError as error:
                rejected.append({"frame": number, "reason": str(error)})
                continue
            for amplifier in detector.amplifiers:
                if amplifier.name not in blocks:
                    blocks[amplifier.name] = even_blocks(part_of(frame.image, amplifier), block=BLOCK)
            measured.append(_levels(frame, detector, blocks))
        return sorted(measured, key=lambda item: item.info.mjd_start), rejected


def _levels(frame: LadderFrame, detector: Detector, blocks: dict[str, NDArray[np.bool_]]) -> _Measured:
    level, error = {}, {}
    for amplifier in detector.amplifiers:
        value, n = level_in(part_of(frame.image, amplifier), blocks[amplifier.name], block=BLOCK)
        level[amplifier.name] = value
        noise = max(value, 0.0) / amplifier.gain + frame.noise_adu[amplifier.name] ** 2
        error[amplifier.name] = float(np.sqrt(noise / max(n, 1)))
    return _Measured(frame.info, level, error, frame.saturation)


def _levels_of(amplifier: str, measured: list[_Measured]) -> FlatLevels:
    return FlatLevels(
        np.array([item.level[amplifier] for item in measured]),
        np.array([item.error[amplifier] for item in measured]),
        np.array([item.info.exposure_s for item in measured]),
        24.0 * np.array([item.info.mjd_tai - measured[0].info.mjd_tai for item in measured]),
    )


def _curve_rows(curves: dict[str, Linearity]) -> dict[str, NDArray[Any]]:
    width = max(curve.knots.size for curve in curves.values())

    def padded(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.pad(values, (0, width - values.size), constant_values=np.nan)

    found = list(curves.values())
    return {
        "amplifier": np.array(list(curves)),
        "n_knots": np.array([curve.knots.size for curve in found]),
        "knots": np.array([padded(curve.knots) for curve in found]),
        "correction": np.array([padded(curve.correction) for curve in found]),
        "error": np.array([padded(curve.error) for curve in found]),
        "largest_error": np.array([curve.largest_error for curve in found]),
        "is_significant": np.array([curve.is_significant for curve in found]),
        "lamp_scatter": np.array([curve.lamp_scatter for curve in found]),
        "lamp_drift_per_hour": np.array([curve.lamp_drift_per_hour for curve in found]),
        "chi2_per_dof": np.array([curve.chi2_per_dof for curve in found]),
        "n_levels": np.array([curve.n_levels for curve in found]),
    }


def _flat_rows(measured: list[_Measured]) -> dict[str, NDArray[Any]]:
    rows = [(item, name) for item in measured for name in item.level]
    return {
        "exposure_id": np.array([item.info.exposure_id for item, _ in rows]),
        "exposure_s": np.array([item.info.exposure_s for item, _ in rows]),
        "amplifier": np.array([name for _, name in rows]),
        "level": np.array([item.level[name] for item, name in rows]),
        "error": np.array([item.error[name] for item, name in rows]),
    }


def _largest(curves: dict[str, Linearity]) -> dict[str, float]:
    """Return the largest correction of each amplifier as a fraction of the counts, zero where insignificant."""
    return {
        name: float(np.max(np.abs(curve.correction[1:] / curve.knots[1:]))) if curve.is_significant else 0.0
        for name, curve in curves.items()
    }


def _checked(
    product: CalibrationTable, detector: Detector, previous: CalibrationTable | None, config: MakeLinearityConfig
) -> CalibrationTable:
    for name, largest in product.metadata["largest_correction"].items():
        if largest > config.max_correction:
            raise DataError(
                f"linearity of detector {detector.id}: amplifier {name} would be corrected by {largest:.1%}, at most "
                f"{config.max_correction:.0%} is believed"
            )
    if previous is None:
        return product
    changes = {}
    old = curves_of(previous)
    for name, curve in curves_of(product).items():
        if name in old:
            changes[name] = change_between(curve, old[name])
            if changes[name] > config.max_change:
                raise DataError(
                    f"linearity of detector {detector.id}: amplifier {name} differs from the previous curve by "
                    f"{changes[name]:.2%} of the counts, limit {config.max_change:.2%}"
                )
    product.metadata["comparison"] = changes
    return product


def change_between(new: Linearity, old: Linearity) -> float:
    """Return by which fraction of the counts two curves differ at most, the scale (which the gain takes up) aside."""
    level = np.linspace(0.05, 1.0, 20) * min(new.highest_level, old.highest_level)
    ratios = [1.0 + (correction_at(curve, level) / level if curve.is_significant else 0.0) for curve in (new, old)]
    ratio = ratios[0] / ratios[1]
    return float(np.ptp(ratio / np.median(ratio)) / 2.0)
