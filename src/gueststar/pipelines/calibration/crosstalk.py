"""Crosstalk between amplifiers, from the bright stars of science exposures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from gueststar.algorithms.detrend.overscan import OverscanConfig
from gueststar.algorithms.response.crosstalk import Crosstalk, CrosstalkConfig, combine_crosstalk, measure_crosstalk
from gueststar.core.errors import DataError, MissingInput
from gueststar.model.calibration import CalibrationTable
from gueststar.model.camera import Detector
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import Float32Image
from gueststar.model.raw import AmplifierPixels, RawDetector
from gueststar.pipelines.assembly import measure_zero


@dataclass(frozen=True)
class MakeCrosstalkConfig:
    """How crosstalk is measured, and when the result is refused."""

    measure: CrosstalkConfig = field(default_factory=CrosstalkConfig)
    max_exposures: int = 12
    """Exposures that are read, spread over the night."""
    max_change: float = 2e-4
    """A coefficient that differs from the previous one by more than this, and significantly, is refused."""
    overscan: OverscanConfig = field(default_factory=OverscanConfig)


class MakeCrosstalk:
    """Measure what bright pixels of each amplifier leave in the others."""

    def __init__(self, config: MakeCrosstalkConfig = MakeCrosstalkConfig()) -> None:
        self.config = config

    def run(
        self,
        raws: Iterable[Callable[[], RawDetector]],
        detector: Detector,
        *,
        previous: CalibrationTable | None = None,
    ) -> CalibrationTable:
        """Return the coefficients into each amplifier of a detector, from those of its own and of `RawDetector.others`.

        Raises MissingInput where the exposures show none; DataError where what comes out is not to be believed.
        """
        config, what = self.config, f"crosstalk of detector {detector.id}"
        measured: list[Crosstalk] = []
        used: list[ExposureInfo] = []
        sources: list[tuple[int, str]] = []
        for read in raws:
            try:
                raw = read()
            except DataError:
                continue
            found, places = _measure(raw, config)
            if sources and places != sources:
                continue
            sources = places
            measured.append(found)
            used.append(raw.info)
        if len(measured) < config.measure.min_exposures:
            raise MissingInput(f"{what}: {len(measured)} exposures, {config.measure.min_exposures} are needed")
        try:
            result = combine_crosstalk(measured, config.measure)
        except ValueError as error:
            raise DataError(f"{what}: {error}") from None
        if not result.coefficient.any():
            best = float(np.min(result.error))
            raise MissingInput(f"{what}: none is seen (best error {best:.1e} counts per count)")
        product = _product(detector, result, sources, used)
        return product if previous is None else _compared(product, previous, what, config.max_change)


def _measure(raw: RawDetector, config: MakeCrosstalkConfig) -> tuple[Crosstalk, list[tuple[int, str]]]:
    """Return the coefficients of one exposure and the sources they belong to, own amplifiers first."""
    parts = [(raw.detector.id, part) for part in raw.amplifiers]
    n_targets = len(parts)
    parts += [(other.detector.id, part) for other in raw.others for part in other.amplifiers]
    parts = [(number, part) for number, part in parts if part.data.shape == parts[0][1].data.shape]
    counts = [_as_read_out(part, config.overscan) for _, part in parts]
    saturation = [part.amplifier.saturation - zero for (_, part), (_, zero) in zip(parts, counts, strict=True)]
    found = measure_crosstalk(
        [image for image, _ in counts], saturation=saturation, targets=n_targets, config=config.measure
    )
    return found, [(number, part.amplifier.name) for number, part in parts]


def _as_read_out(part: AmplifierPixels, overscan: OverscanConfig) -> tuple[Float32Image, float]:
    """Return counts above zero with the pixel that is read first at the origin, and the zero level, ADU."""
    zero = measure_zero(part, overscan=overscan, keep_pedestal=False).rows
    y, x = -1 if part.amplifier.reads_from_top else 1, -1 if part.amplifier.reads_from_right else 1
    return np.ascontiguousarray((part.data - zero[:, None])[::y, ::x]), float(np.median(zero))


def _product(
    detector: Detector, found: Crosstalk, sources: list[tuple[int, str]], used: list[ExposureInfo]
) -> CalibrationTable:
    names = [amplifier.name for amplifier in detector.amplifiers]
    pairs = [(t, s) for t in range(len(names)) for s in range(len(sources)) if (detector.id, names[t]) != sources[s]]
    table = {
        "target": np.array([names[t] for t, _ in pairs]),
        "source_detector": np.array([sources[s][0] for _, s in pairs]),
        "source": np.array([sources[s][1] for _, s in pairs]),
        "coefficient": np.array([found.coefficient[pair] for pair in pairs]),
        "error": np.array([found.error[pair] for pair in pairs]),
    }
    times = [info.mjd_tai for info in used]
    facts = {
        "inputs": [info.exposure_id for info in used], "mjd_first": min(times), "mjd_last": max(times),
        "largest": float(np.max(np.abs(found.coefficient))),
    }  # fmt: skip
    return CalibrationTable(
        "crosstalk", detector.id, {"coefficients": table}, float(np.mean(times)), len(used), metadata=facts
    )


def _compared(product: CalibrationTable, previous: CalibrationTable, what: str, limit: float) -> CalibrationTable:
    old = _by_pair(previous)
    changes = {}
    for pair, (value, error) in _by_pair(product).items():
        if pair not in old or not np.isfinite(error + old[pair][1]):
            continue
        change = value - old[pair][0]
        if abs(change) > max(limit, 5.0 * float(np.hypot(error, old[pair][1]))):
            raise DataError(
                f"{what}: from {pair[2]} of detector {pair[1]} into {pair[0]} it changed by {change:+.1e} since the "
                f"previous measurement, limit {limit:.1e}"
            )
        changes[" ".join(str(part) for part in pair)] = change
    product.metadata["comparison"] = {"largest_change": max(map(abs, changes.values()), default=0.0)}
    return product


def _by_pair(product: CalibrationTable) -> dict[tuple[str, int, str], tuple[float, float]]:
    rows = product.tables["coefficients"]
    columns = ("target", "source_detector", "source", "coefficient", "error")
    return {
        (str(target), int(detector), str(source)): (float(value), float(error))
        for target, detector, source, value, error in zip(*(rows[c] for c in columns), strict=True)
    }
