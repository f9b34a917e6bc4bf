"""All actions by the names that rules use."""

from __future__ import annotations

from collections.abc import Mapping

from gueststar.operations.actions.contract import Action
from gueststar.operations.actions.export_candidates import export_candidates
from gueststar.operations.actions.maintenance import maintenance
from gueststar.operations.actions.moving_objects import moving_objects
from gueststar.operations.actions.source_matching import source_matching
from gueststar.operations.actions.update_ephemerides import update_ephemerides

ACTIONS: Mapping[str, Action] = {
    "export_candidates": export_candidates,
    "maintenance": maintenance,
    "moving_objects": moving_objects,
    "source_matching": source_matching,
    "update_ephemerides": update_ephemerides,
}
"""Name -> action."""
