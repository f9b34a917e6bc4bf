"""Times as the operator needs them."""

from __future__ import annotations

from gueststar.model.camera import Camera
from gueststar.operations.rules.sun import survey_night


def night_of(unix: float, camera: Camera) -> int:
    """Return the survey's night at a Unix time."""
    return survey_night(camera.site, unix)
