"""The photon-transfer curve of a detector, from pairs of flats of many levels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.detrend.overscan import OverscanConfig
from gueststar.algorithms.response.flat_pair import PairCovariance, measure_pair_covariance
from gueststar.algorithms.response.photon_transfer import PhotonTransfer, PhotonTransferConfig, fit_photon_transfer
from gueststar.core.errors import DataError, MissingInput
from gueststar.model.calibration import Calibrations, CalibrationTable
from gueststar.model.camera import Detector
from gueststar.model.exposure import ExposureInfo
from gueststar.pipelines.calibration._frames import RawSource
from gueststar.pipelines.calibration._ladder import (
    choose_ladder,
    ladder_facts,
    part_of,
    read_ladder_frame,
    uneven_pixels,
)
from gueststar.pipelines.electronics import electronics_of, measured_gains


@dataclass(frozen=True)
class MakePhotonTransferConfig:
    """How the photon-transfer curve is measured, and when the result is refused."""

    fit: PhotonTransferConfig = field(default_factory=PhotonTransferConfig)
    gain_tolerance: float = 0.5
    """The curve is refused if a gain is off the camera's by more than this fraction."""
    max_gain_change: float = 0.05
    """It is refused if a gain differs from the previous one by more than this fraction."""
    max_level_ratio: float = 1.1
    """Two flats of one exposure time whose levels differ by more than this factor are no pair."""
    overscan: OverscanConfig = field(default_factory=OverscanConfig)


class MakePhotonTransfer:
    """Measure gain, full well and the covariances of neighbouring pixels."""

    def __init__(self, config: MakePhotonTransferConfig = MakePhotonTransferConfig()) -> None:
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
        """Return gains, full wells and covariances of a detector's amplifiers from flats of one filter.

        Two flats of one exposure time make a pair; two are in memory at a time. Of ``known``, linearity and crosstalk
        correct the counts first. Raises MissingInput where the flats are no ladder of pairs or tell too little;
        DataError where what comes out is not to be believed.
        """
        config = self.config
        chosen = choose_ladder(infos, min_levels=config.fit.min_levels, min_span=config.fit.min_span)
        couples = _couples(chosen, infos)
        if len(couples) < config.fit.min_levels:
            raise MissingInput(
                f"photon transfer of detector {detector.id}: {len(couples)} pairs of flats of equal exposure time, "
                f"{config.fit.min_levels} are needed"
            )
        pairs, noise, rejected = self._measure(couples, frames, detector, known)
        curves = {}
        for amplifier in detector.amplifiers:
            try:
                curves[amplifier.name] = fit_photon_transfer(
                    pairs[amplifier.name], read_noise=float(np.median(noise[amplifier.name])), config=config.fit
                )
            except (ValueError, IndexError) as error:
                raise MissingInput(
                    f"photon transfer of detector {detector.id}, amplifier {amplifier.name}: {error}"
                ) from None
        used = [infos[i] for couple in couples for i in couple]
        product = CalibrationTable(
            "photon_transfer", detector.id, {"amplifiers": _curve_rows(curves), "pairs": _pair_rows(pairs)},
            float(np.mean([info.mjd_tai for info in used])), len(used),
            metadata={
                **ladder_facts(used, rejected),
                "gain": {name: curve.gain for name, curve in curves.items()},
                "gain_assumed": {a.name: a.gain for a in detector.amplifiers},
                "is_linearised": known.linearity is not None,
            },
        )  # fmt: skip
        return _checked(product, detector, previous, config)

    def _measure(
        self, couples: list[tuple[int, int]], frames: Sequence[RawSource], detector: Detector, known: Calibrations
    ) -> tuple[dict[str, list[PairCovariance]], dict[str, list[float]], list[dict[str, Any]]]:
        """Return pair covariances and read noises (ADU) by amplifier, and the pairs that could not be used."""
        electronics = electronics_of(known, detector)
        pairs: dict[str, list[PairCovariance]] = defaultdict(list)
        noise: dict[str, list[float]] = defaultdict(list)
        rejected: list[dict[str, Any]] = []
        for couple in couples:
            try:
                first, second = (
                    read_ladder_frame(
                        frames[i], detector, known, overscan=self.config.overscan, electronics=electronics
                    )
                    for i in couple
                )
            except DataError as error:
                rejected.append({"frame": couple[0], "reason": str(error)})
                continue
            for amplifier in detector.amplifiers:
                images = part_of(first.image, amplifier), part_of(second.image, amplifier)
                ratio = float(np.nanmedian(images[0]) / np.nanmedian(images[1]))
                if not 1.0 / self.config.max_level_ratio < ratio < self.config.max_level_ratio:
                    rejected.append(
                        {"frame": couple[0], "reason": f"levels of the pair differ by a factor {ratio:.3f}"}
                    )
                    continue
                found = measure_pair_covariance(
                    *images, is_masked=uneven_pixels(first, amplifier), max_lag=self.config.fit.max_lag
                )
                if np.isfinite(images[0]).mean() > 0.95:  # of partly saturated flats the rest is no fair sample
                    pairs[amplifier.name].append(found)
                noise[amplifier.name] += [first.noise_adu[amplifier.name], second.noise_adu[amplifier.name]]
        return pairs, noise, rejected


def pairs_of(product: CalibrationTable, amplifier: str) -> list[PairCovariance]:
    """Return the pair covariances that a photon-transfer product holds of an amplifier."""
    rows = product.tables["pairs"]
    return [
        PairCovariance(
            float(rows["level"][i]), rows["covariance"][i].astype(np.float64), rows["error"][i].astype(np.float64),
            int(rows["n_pixels"][i]),
        )
        for i in np.flatnonzero(rows["amplifier"] == amplifier)
    ]  # fmt: skip


def curves_of(product: CalibrationTable) -> dict[str, PhotonTransfer]:
    """Return the curves of a photon-transfer product by amplifier."""
    rows = product.tables["amplifiers"]
    return {
        str(name): PhotonTransfer(*(rows[column][i].item() for column in PhotonTransfer._fields))
        for i, name in enumerate(rows["amplifier"])
    }


def _couples(chosen: list[int], infos: Sequence[ExposureInfo]) -> list[tuple[int, int]]:
    """Return pairs of frames of one exposure time that follow each other, in order of exposure time."""
    by_time: dict[float, list[int]] = defaultdict(list)
    for i in sorted(chosen, key=lambda i: infos[i].mjd_start):
        by_time[round(infos[i].exposure_s, 4)].append(i)
    return [
        (members[k], members[k + 1]) for _, members in sorted(by_time.items()) for k in range(0, len(members) - 1, 2)
    ]


def _curve_rows(curves: dict[str, PhotonTransfer]) -> dict[str, NDArray[Any]]:
    columns = {name: np.array([getattr(curve, name) for curve in curves.values()]) for name in PhotonTransfer._fields}
    return {"amplifier": np.array(list(curves)), **columns}


def _pair_rows(pairs: dict[str, list[PairCovariance]]) -> dict[str, NDArray[Any]]:
    rows = [(name, pair) for name, members in pairs.items() for pair in members]
    return {
        "amplifier": np.array([name for name, _ in rows]),
        "level": np.array([pair.level for _, pair in rows]),
        "covariance": np.array([pair.covariance for _, pair in rows]),
        "error": np.array([pair.error for _, pair in rows]),
        "n_pixels": np.array([pair.n_pixels for _, pair in rows]),
    }


def _checked(
    product: CalibrationTable, detector: Detector, previous: CalibrationTable | None, config: MakePhotonTransferConfig
) -> CalibrationTable:
    gains = measured_gains(product)
    for amplifier in detector.amplifiers:
        if abs(gains[amplifier.name] / amplifier.gain - 1.0) > config.gain_tolerance:
            raise DataError(
                f"photon transfer of detector {detector.id}: gain of amplifier {amplifier.name} is "
                f"{gains[amplifier.name]:.3f} e-/ADU, the camera says {amplifier.gain:.3f}: mend the camera file if "
                "this is right"
            )
    if previous is None:
        return product
    old = measured_gains(previous)
    changes = {name: gain / old[name] - 1.0 for name, gain in gains.items() if name in old}
    for name, change in changes.items():
        if abs(change) > config.max_gain_change:
            raise DataError(
                f"photon transfer of detector {detector.id}: gain of amplifier {name} changed by {change:+.1%} since "
                f"the previous curve, limit {config.max_gain_change:.1%}"
            )
    product.metadata["comparison"] = {"gain_change": changes}
    return product
