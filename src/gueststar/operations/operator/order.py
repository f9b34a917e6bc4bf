"""In which order images of the same sky are associated: by time, whichever worker was faster.

Objects are named after the detection that was committed first, so what comes of a night would depend on chance if
images were associated as their differences happen to end. An image waits while an earlier exposure of the same sky is
still on its way, or has landed and is not taken in, but not longer than the patience of the survey: then the earlier
one comes late. Among images of different sky those go first that are of the higher priority: the new before a backlog.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from gueststar.model.camera import Camera, Detector
from gueststar.model.exposure import ExposureInfo
from gueststar.operations.operator.landed import Landed
from gueststar.operations.rules.contract import Priority
from gueststar.store.ledger import separation_deg

_MARGIN_DEG = 2.0 / 60.0
_SAME_ROTATION_DEG = 0.5


@dataclass
class _OnItsWay:
    info: ExposureInfo
    priority: int
    """Those of this and of lower priority wait for it."""
    rank: int
    """The priority that it is associated with, where nothing has to wait for anything."""
    detectors: set[int]
    """Those that have not reached their end."""


@dataclass
class _Ready:
    info: ExposureInfo
    detector: int
    since: float
    """When its candidates were ready, monotonic."""
    not_before: float = 0.0
    """It is not tried (again) before this, monotonic."""


class SkyOrder:
    """Tells which images may be associated now."""

    def __init__(self, camera: Camera, *, patience_s: float) -> None:
        self.camera, self.patience_s = camera, patience_s
        self._radius_deg = field_radius_deg(camera)
        self._on_way: dict[int, _OnItsWay] = {}
        self._ready: dict[tuple[int, int], _Ready] = {}

    def __len__(self) -> int:
        return len(self._ready)

    def expect(self, info: ExposureInfo, detectors: set[int], *, priority: int, rank: int | None = None) -> None:
        """Note that detector images of an exposure are on their way.

        ``priority``: it waits for none of lower priority. ``rank``: of those that need not wait the lowest is next;
        the priority where None.
        """
        rank = priority if rank is None else rank
        known = self._on_way.setdefault(info.exposure_id, _OnItsWay(info, priority, rank, set()))
        known.detectors |= detectors

    def ready(self, info: ExposureInfo, detector: int, *, now: float) -> None:
        """Note that the candidates of an image that was expected can be associated; ``now`` is monotonic."""
        self._ready.setdefault((info.exposure_id, detector), _Ready(info, detector, now))

    def put_off(self, exposure: int, detector: int, *, until: float) -> None:
        """Let an image rest until a (monotonic) time: its association failed, and may succeed later."""
        self._ready[exposure, detector].not_before = until

    def ended(self, exposure: int, detector: int) -> None:
        """Note that an image has reached its end: associated, failed, held, or no difference is made of it."""
        self._ready.pop((exposure, detector), None)
        if (known := self._on_way.get(exposure)) is not None:
            known.detectors.discard(detector)
            if not known.detectors:
                del self._on_way[exposure]

    def next(self, *, now: float, landed: Landed | None = None) -> tuple[int, int] | None:
        """Return (exposure, detector) of the first image whose turn it is; None where all must wait.

        ``landed``: files that are not taken in; some of them may be earlier.
        """
        for ready in sorted(self._ready.values(), key=self._by_rank):
            if now < ready.not_before:
                continue
            if now - ready.since < self.patience_s and self._must_wait(ready, landed):
                continue
            return ready.info.exposure_id, ready.detector
        return None

    def waits_for(self, info: ExposureInfo, detector: int) -> list[int]:
        """Return the earlier exposures of the same sky that are still on their way, none of lower priority."""
        mine = self._on_way.get(info.exposure_id)
        return [
            number for number, other in self._on_way.items()
            if number != info.exposure_id
            and _comes_before(other.info, info)
            and (mine is None or other.priority <= mine.priority)
            and self._shares_sky(other.info, other.detectors, info, detector)
        ]  # fmt: skip

    def waits_for_landed(self, landed: Landed, info: ExposureInfo, detector: int) -> bool:
        """Return whether an exposure that landed is to be associated before an image, or may be for all one knows.

        Which priority it will be of its rule tells later; that tonight does not wait for earlier nights is known.
        """
        if landed.n_unseen:
            return True
        mine, everywhere = self._on_way.get(info.exposure_id), [detector.id for detector in self.camera.detectors]
        is_tonight = mine is not None and mine.priority <= Priority.TONIGHT
        return any(
            other.exposure_id != info.exposure_id
            and _comes_before(other, info)
            and not (is_tonight and other.day_obs < info.day_obs)
            and self._shares_sky(other, everywhere, info, detector)
            for other in landed.earlier_near(info, 2.0 * self._radius_deg + _MARGIN_DEG)
        )

    def _must_wait(self, ready: _Ready, landed: Landed | None) -> bool:
        if landed is not None and self.waits_for_landed(landed, ready.info, ready.detector):
            return True
        return bool(self.waits_for(ready.info, ready.detector))

    def _by_rank(self, ready: _Ready) -> tuple[int, float, int, int]:
        known = self._on_way.get(ready.info.exposure_id)
        rank = known.rank if known else int(Priority.TONIGHT)
        return rank, ready.info.mjd_start, ready.info.exposure_id, ready.detector

    def next_due(self) -> float | None:
        """Return when (monotonic) the first patience ends; None where nothing waits."""
        return min((max(item.since + self.patience_s, item.not_before) for item in self._ready.values()), default=None)

    def _shares_sky(
        self, other: ExposureInfo, detectors: Iterable[int], info: ExposureInfo, detector: int
    ) -> bool:  # fmt: skip
        """Return whether some detectors of another exposure may see what an image saw."""
        if other.ra is None or other.dec is None or info.ra is None or info.dec is None:
            return True
        distance = separation_deg(other.ra, other.dec, info.ra, info.dec)
        tolerance = self.camera.pointing_tolerance_arcmin / 60.0
        if distance > tolerance or abs(other.rotation_deg - info.rotation_deg) > _SAME_ROTATION_DEG:
            return distance < 2.0 * self._radius_deg + _MARGIN_DEG
        return any(self._gap_deg(number, detector) < distance + tolerance + _MARGIN_DEG for number in detectors)

    def _gap_deg(self, one: int, other: int) -> float:
        """Return the distance between the circles around two detectors in the focal plane, degrees."""
        first, second = self.camera.detector(one), self.camera.detector(other)
        between = math.hypot(
            first.focal_plane.x_arcsec - second.focal_plane.x_arcsec,
            first.focal_plane.y_arcsec - second.focal_plane.y_arcsec,
        )
        return (between / 3600.0) - half_diagonal_deg(first, self.camera) - half_diagonal_deg(second, self.camera)


def _comes_before(one: ExposureInfo, other: ExposureInfo) -> bool:
    return (one.mjd_start, one.exposure_id) < (other.mjd_start, other.exposure_id)


def half_diagonal_deg(detector: Detector, camera: Camera) -> float:
    """Return the radius of the circle around a detector, degrees."""
    return 0.5 * math.hypot(*detector.shape) * camera.pixel_scale_arcsec / 3600.0


def field_radius_deg(camera: Camera) -> float:
    """Return how far from its pointing a camera may see, degrees: to its farthest corner, and the pointing's error."""
    reach = max(
        math.hypot(detector.focal_plane.x_arcsec, detector.focal_plane.y_arcsec) / 3600.0
        + half_diagonal_deg(detector, camera)
        for detector in camera.detectors
    )
    return reach + camera.pointing_tolerance_arcmin / 60.0
