"""Distortion: the camera's own, of one detector, learned from the stars of a night's exposures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.astrometry.distortion import Distortion
from gueststar.algorithms.astrometry.learn_distortion import (
    Comparison,
    LearnDistortionConfig,
    Learned,
    MatchedStars,
    combine_with_last,
    learn_distortion,
    scatter_with,
)
from gueststar.algorithms.astrometry.polynomial import polynomial_powers
from gueststar.core.errors import DataError
from gueststar.model.calibration import CalibrationTable
from gueststar.model.camera import Detector

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DistortionField:
    """The stars of one exposure that teach, and when it was taken."""

    stars: MatchedStars
    mjd_tai: float


class LearnDistortion:
    """Learn what all exposures of a detector have in common, and join it with what was known before."""

    def __init__(self, config: LearnDistortionConfig | None = None) -> None:
        self.config = config or LearnDistortionConfig()

    def run(
        self, fields: list[DistortionField], detector: Detector, *, previous: CalibrationTable | None = None
    ) -> CalibrationTable | None:
        """Return the distortion; None where exposures or stars are too few to teach any.

        Every fifth star is kept aside: they are fitted with the new distortion and with ``previous``. Raises DataError
        with figures where the new one is worse.
        """
        taught = [_part(field.stars, is_aside=False) for field in fields]
        learned = learn_distortion(taught, detector.shape, self.config)
        if learned is None:
            return None
        mjd = float(np.mean([field.mjd_tai for field in fields]))
        distortion, comparison = learned.distortion, None
        if previous is not None:
            distortion, comparison = combine_with_last(
                learned.distortion, distortion_of(previous), days=mjd - previous.mjd_tai, config=self.config
            )
        aside = [_part(field.stars, is_aside=True) for field in fields if field.stars.x.size >= self.config.min_stars]
        scatter = self._checked(distortion, aside, detector, previous)
        times = [field.mjd_tai for field in fields]
        facts = _facts(distortion, learned, comparison, scatter)
        return CalibrationTable(
            "distortion", detector.id, {"terms": _table_of(distortion)}, mjd, learned.n_exposures,
            metadata=facts | {"mjd_first": min(times), "mjd_last": max(times)},
        )  # fmt: skip

    def _checked(
        self, distortion: Distortion, aside: list[MatchedStars], detector: Detector, previous: CalibrationTable | None
    ) -> dict[str, float | None]:
        """Return the scatter of the stars kept aside with the new, the last and no distortion, pixels."""
        zero = np.zeros_like(distortion.coefficients)
        scatter: dict[str, float | None] = {
            "scatter_pixel": scatter_with(distortion, aside),
            "scatter_without_pixel": scatter_with(Distortion(detector.shape, zero, zero, zero), aside),
            "scatter_with_last_pixel": None if previous is None else scatter_with(distortion_of(previous), aside),
        }
        new, bare = scatter["scatter_pixel"], scatter["scatter_without_pixel"]
        for name, other in (("the last one", scatter["scatter_with_last_pixel"]), ("none at all", bare)):
            if other is not None and new is not None and new > self.config.max_worse * other:
                raise DataError(
                    f"distortion of {detector.name}: stars kept aside scatter by {new:.4f} pixel with it and by "
                    f"{other:.4f} with {name}, it may be worse by {self.config.max_worse - 1:.0%}"
                )
        return scatter


def _part(stars: MatchedStars, *, is_aside: bool) -> MatchedStars:
    chosen = (np.arange(stars.x.size) % 5 == 4) == is_aside
    return MatchedStars(*(values[chosen] for values in stars))


def _table_of(distortion: Distortion) -> dict[str, NDArray[Any]]:
    """Return one row a term P_i(u) P_j(v), u and v from -1 to 1 across the detector; pixels."""
    powers = np.array(polynomial_powers(distortion.order), dtype=np.int64)
    table: dict[str, NDArray[Any]] = {"degree_x": powers[:, 0], "degree_y": powers[:, 1]}
    for axis, name in enumerate("xy"):
        table |= {
            f"d{name}": distortion.coefficients[axis],
            f"d{name}_err": distortion.error[axis],
            f"d{name}_change": distortion.change[axis],
        }
    return table


def distortion_of(product: CalibrationTable) -> Distortion:
    """Return the distortion that a product holds; DataError if it holds none."""
    try:
        ny, nx = product.metadata["shape"]
        values = [
            np.stack([product.column("terms", f"d{axis}{part}") for axis in "xy"]) for part in ("", "_err", "_change")
        ]
    except (KeyError, TypeError, ValueError) as problem:
        raise DataError(f"{product.kind} of detector {product.detector_id} holds no distortion: {problem}") from None
    return Distortion((int(ny), int(nx)), values[0], values[1], values[2])


def _facts(
    distortion: Distortion, learned: Learned, comparison: Comparison | None, scatter: Mapping[str, float | None]
) -> dict[str, Any]:
    ny, nx = distortion.shape
    x, y = (g.ravel() for g in np.meshgrid(np.linspace(0, nx - 1, 9), np.linspace(0, ny - 1, 9)))
    size = np.hypot(*distortion.displacement(x, y).T)
    return {
        "shape": [ny, nx],
        "order": distortion.order,
        "n_exposures": learned.n_exposures,
        "n_stars": learned.n_stars,
        "rms_pixel": learned.rms_pixel,
        "largest_displacement_pixel": float(size.max()),
        "largest_error_pixel": float(distortion.error.max()),
        "change_pixel": float(np.sqrt(np.mean(distortion.change[:, 1:] ** 2))),
        **scatter,
        "comparison": None if comparison is None else _plain(comparison._asdict()),
    }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(v, float) and not np.isfinite(v) else v for name, v in values.items()}
