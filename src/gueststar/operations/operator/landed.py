"""What has landed and is not taken in yet, as far as its headers tell: who must wait for it, and who need not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.alerts.sky_frames import unit_vectors
from gueststar.model.exposure import ExposureInfo

_NOWHERE = float("nan")


class Landed:
    """Files that are there, whole, and not taken in."""

    def __init__(self, infos: Sequence[ExposureInfo] = (), *, n_unseen: int = 0) -> None:
        self.n_unseen = n_unseen
        """Files whose headers nobody has read yet, or that do not tell what they hold: they may be anything."""
        self.has_calibrations = n_unseen > 0 or any(info.observation_type != "science" for info in infos)
        """Whether there may be calibration frames among them."""
        self._science = [info for info in infos if info.observation_type == "science"]

    def earlier_near(self, info: ExposureInfo, radius_deg: float) -> Iterator[ExposureInfo]:
        """Yield the science exposures that began before ``info`` and point to within ``radius_deg`` of it.

        One whose position nobody knows is near everything, and everything is near it.
        """
        if not self._science:
            return
        is_chosen = self._begun <= info.mjd_start
        if info.ra is not None and info.dec is not None:
            chords = np.linalg.norm(self._pointings - unit_vectors(np.array([info.ra]), np.array([info.dec])), axis=1)
            is_chosen &= ~(chords > 2.0 * np.sin(np.radians(min(radius_deg, 180.0)) / 2.0))  # NaN stays
        for k in np.flatnonzero(is_chosen):
            yield self._science[k]

    @cached_property
    def _begun(self) -> NDArray[np.float64]:
        return np.array([info.mjd_start for info in self._science])

    @cached_property
    def _pointings(self) -> NDArray[np.float64]:
        ra, dec = (
            np.array([_NOWHERE if (value := getattr(info, name)) is None else value for info in self._science])
            for name in ("ra", "dec")
        )
        return unit_vectors(ra, dec)
