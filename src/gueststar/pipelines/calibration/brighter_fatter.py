"""The kernel of charge repulsion, from the covariances of a photon-transfer curve."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from gueststar.algorithms.response.brighter_fatter import BrighterFatterConfig, make_kernel
from gueststar.algorithms.response.photon_transfer import fit_area_change, mean_area_change
from gueststar.core.errors import DataError, MissingInput
from gueststar.model.calibration import CalibrationTable
from gueststar.pipelines.calibration.photon_transfer import curves_of, pairs_of


@dataclass(frozen=True)
class MakeBrighterFatterConfig:
    """How the kernel is made, and when it is refused."""

    kernel: BrighterFatterConfig = field(default_factory=BrighterFatterConfig)
    max_area_change: float = 2e-5
    """A pixel's own area change per electron larger than this is refused."""
    max_change: float = 0.3
    """A kernel that moves a pixel's nearest borders by a fraction more or less than the previous one is refused."""


class MakeBrighterFatter:
    """Turn covariances of flats into the potential by which charge moves pixel borders."""

    def __init__(self, config: MakeBrighterFatterConfig = MakeBrighterFatterConfig()) -> None:
        self.config = config

    def run(self, transfer: CalibrationTable, *, previous: CalibrationTable | None = None) -> CalibrationTable:
        """Return area changes and kernel of a detector; its amplifiers share the silicon, so they are averaged.

        Raises MissingInput where the covariances do not show the effect; DataError where what comes out is not to be
        believed.
        """
        what = f"brighter-fatter kernel of detector {transfer.detector_id}"
        parts = [fit_area_change(pairs_of(transfer, name), curve) for name, curve in curves_of(transfer).items()]
        change = mean_area_change(parts)
        try:
            kernel = make_kernel(change, self.config.kernel)
        except ValueError as error:
            raise MissingInput(f"{what}: {error}") from None
        own = float(change.coefficients[0, 0])
        if abs(own) > self.config.max_area_change:
            raise DataError(f"{what}: a pixel would lose {-own:.2e} of its area per electron: are the flats linear?")
        facts = {"area_change": own, "area_change_error": float(change.errors[0, 0])}
        if previous is not None:
            facts["comparison"] = self._compared(kernel, previous.column("kernel", "potential"), what)
        lags = np.arange(change.coefficients.shape[0])
        tables = {
            "area_change": {"lag_y": lags, "coefficient": change.coefficients, "error": change.errors},
            "kernel": {"offset_y": np.arange(kernel.shape[0]) - kernel.shape[0] // 2, "potential": kernel},
        }
        inputs = {key: transfer.metadata[key] for key in ("inputs", "mjd_first", "mjd_last")}
        return replace(transfer, kind="brighter_fatter", tables=tables, metadata={**inputs, **facts})

    def _compared(self, kernel: np.ndarray, old: np.ndarray, what: str) -> float:
        change = _step(kernel) / _step(old) - 1.0
        if abs(change) > self.config.max_change:
            raise DataError(
                f"{what} is stronger than the previous one by {change:+.0%}, limit {self.config.max_change:.0%}"
            )
        return change


def _step(kernel: np.ndarray) -> float:
    """Return the mean step of a potential from its centre to the four neighbours."""
    y, x = kernel.shape[0] // 2, kernel.shape[1] // 2
    around = kernel[y - 1, x] + kernel[y + 1, x] + kernel[y, x - 1] + kernel[y, x + 1]
    return float(kernel[y, x] - 0.25 * around)
