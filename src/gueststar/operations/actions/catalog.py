"""All actions by the names that rules use."""

from __future__ import annotations

from collections.abc import Mapping

from gueststar.operations.actions.contract import Action
from gueststar.operations.actions.night_report import night_report

ACTIONS: Mapping[str, Action] = {
    "night_report": night_report,
}
"""Name -> action."""
