"""All actions by the names that rules use."""

from __future__ import annotations

from collections.abc import Mapping

from gueststar.operations.actions.contract import Action
from gueststar.operations.actions.measure_metrics import measure_metrics

ACTIONS: Mapping[str, Action] = {
    "measure_metrics": measure_metrics,
}
"""Name -> action."""
