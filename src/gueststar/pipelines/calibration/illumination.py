"""Illumination correction: the response to stars over that to the flat's light, from stars at many places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.illumination.star_flat import Observations, StarFlat, StarFlatConfig, solve_star_flat
from gueststar.algorithms.photocal.spatial import ZeroPointMap
from gueststar.core.errors import DataError
from gueststar.model.calibration import CalibrationMaster
from gueststar.model.camera import Detector
from gueststar.model.exposure import ExposureInfo
from gueststar.model.image import MaskedImage
from gueststar.pipelines.calibration.not_shown import NotShown

Floats = NDArray[np.float64]

_LEAST_ERROR = 1e-4
"""Nowhere is the response known better than this fraction."""


@dataclass(frozen=True)
class MakeIlluminationConfig:
    """How an illumination correction is made, and when there is none."""

    min_exposures: int = 3
    """Fewest exposures."""
    max_exposures: int = 40
    """Of more, every second, third... is used."""
    min_stars: int = 100
    """Fewest stars in use, all exposures together."""
    min_snr: float = 25.0
    """Fainter measurements of stars are not used."""
    min_rms_mag: float = 0.003
    """A correction smaller than this is not made."""
    min_significance: float = 5.0
    """Nor one whose size over the detector is not so many times its error: a false one would harm every image."""
    max_structure_change_mag: float = 0.05
    """The product is refused if it differs from the previous one by more than this over the detector."""
    solution: StarFlatConfig = field(default_factory=StarFlatConfig)


@dataclass(frozen=True, eq=False)
class StarMeasurements:
    """Stars of one exposure, matched to the reference catalog; arrays of equal length."""

    info: ExposureInfo
    x: Floats
    """Pixels."""
    y: Floats
    magnitude: Floats
    """As measured on the flat-fielded image, every later correction undone."""
    error: Floats
    star: NDArray[np.int64]
    """Which star of the catalog, the same number in every exposure."""


class MakeIllumination:
    """Solve for the response of a detector to stars."""

    def __init__(self, config: MakeIlluminationConfig = MakeIlluminationConfig()) -> None:
        self.config = config

    def run(
        self,
        exposures: Sequence[StarMeasurements],
        detector: Detector,
        *,
        catalog_magnitude: Floats,
        catalog_error: Floats,
        applied: CalibrationMaster | None = None,
        previous: CalibrationMaster | None = None,
    ) -> CalibrationMaster:
        """Return by what flat-fielded images are to be divided, mean one over the detector.

        ``catalog_magnitude`` is by number of the star, in the system of the measurements (colour term in it). What was
        ``applied`` to the images already is multiplied in. Raises NotShown where there are too few stars, or no effect
        beyond the errors; DataError where it is not that of ``previous``.
        """
        config = self.config
        if len(exposures) < config.min_exposures:
            raise NotShown(f"{len(exposures)} exposures, {config.min_exposures} are needed")
        observations = _observations(exposures)
        shape = (detector.shape[0], detector.shape[1])
        try:
            solved = solve_star_flat(
                observations, catalog_magnitude=catalog_magnitude, catalog_error=catalog_error, shape=shape,
                config=config.solution,
            )  # fmt: skip
        except ValueError as error:
            raise NotShown(str(error)) from None
        if solved.n_stars < config.min_stars:
            raise NotShown(f"{solved.n_stars} stars, {config.min_stars} are needed")
        if applied is None and (
            solved.rms < config.min_rms_mag or solved.rms < config.min_significance * solved.rms_error
        ):
            raise NotShown(_evenness(solved))
        master = _master(solved, exposures, detector, applied)
        return self._checked(master, previous)

    def _checked(self, master: CalibrationMaster, previous: CalibrationMaster | None) -> CalibrationMaster:
        if previous is None:
            return master
        step = max(1, min(master.pixels.shape) // 64)
        ratio = (master.pixels.image / previous.pixels.image)[::step, ::step]
        change = float(np.std(2.5 * np.log10(ratio)))
        if change > self.config.max_structure_change_mag:
            raise DataError(
                f"illumination of detector {master.detector_id}: differs from the previous one by {change:.3f} mag, "
                f"limit {self.config.max_structure_change_mag:g}"
            )
        return replace(master, metadata={**master.metadata, "comparison": {"structure_mag": change}})


def _observations(exposures: Sequence[StarMeasurements]) -> Observations:
    numbers = np.concatenate([np.full(item.x.size, row) for row, item in enumerate(exposures)])
    x, y, magnitude, error, star = (
        np.concatenate([getattr(item, name) for item in exposures]) for name in ("x", "y", "magnitude", "error", "star")
    )
    return Observations(x, y, magnitude, error, star, numbers)


def _master(
    solved: StarFlat, exposures: Sequence[StarMeasurements], detector: Detector, applied: CalibrationMaster | None
) -> CalibrationMaster:
    image = 1.0 / _factor(solved.response)
    if applied is not None:
        image = image * applied.pixels.image
        image /= np.float32(image.mean(dtype=np.float64))
    times = [item.info.mjd_tai for item in exposures]
    facts: dict[str, Any] = {
        "inputs": [item.info.exposure_id for item in exposures],
        "mjd_first": min(times),
        "mjd_last": max(times),
        "order": solved.response.order,
        "coefficients": [float(value) for value in solved.response.coefficients],
        "is_on_top_of_previous": applied is not None,
        "rms_mag": solved.rms,
        "rms_error_mag": solved.rms_error,
        "n_stars": solved.n_stars,
        "n_observations": solved.n_observations,
        "scatter_before_mag": solved.scatter_before,
        "scatter_after_mag": solved.scatter_after,
        "chi2_per_dof": solved.chi2_per_dof,
    }
    relative = np.float32(0.4 * np.log(10.0)) * _error_image(solved.response)
    variance = np.maximum((relative * image) ** 2, np.float32(_LEAST_ERROR**2))
    if applied is not None:  # what is left even may be so by its errors only
        variance = np.maximum(variance, applied.pixels.variance)
    pixels = MaskedImage(image.astype(np.float32), variance, np.zeros(image.shape, np.int32))
    return CalibrationMaster(
        kind="illumination", detector_id=detector.id, pixels=pixels, mjd_tai=float(np.mean(times)),
        n_frames=len(exposures), physical_filter=exposures[0].info.physical_filter, metadata=facts,
    )  # fmt: skip


def _evenness(solved: StarFlat) -> str:
    if solved.response.order == 0:
        return f"the response to stars is even: no change over the detector explains {solved.n_stars} stars better"
    return f"the response to stars is even within its error: {solved.rms:.4f} +- {solved.rms_error:.4f} mag"


def _factor(response: ZeroPointMap) -> NDArray[np.float32]:
    """Return by what fluxes are to be multiplied where stars are measured fainter by the response."""
    turned = ZeroPointMap(-response.coefficients, response.shape, response.order)
    return turned.factor_image()


def _error_image(response: ZeroPointMap) -> NDArray[np.float32]:
    """Return the error of the response at every pixel, mag: computed on a coarse grid."""
    ny, nx = response.shape
    rows, columns = np.linspace(0, ny - 1, 33), np.linspace(0, nx - 1, 33)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    coarse = response.error(x=x, y=y)
    along_x = np.array([np.interp(np.arange(nx), columns, line) for line in coarse])
    weight = np.interp(np.arange(ny), rows, np.arange(33.0))
    low = np.minimum(weight.astype(int), 31)
    share = (weight - low)[:, None]
    return np.asarray((1.0 - share) * along_x[low] + share * along_x[low + 1], dtype=np.float32)
