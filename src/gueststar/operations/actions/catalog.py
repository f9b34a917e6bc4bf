"""All actions by the names that rules use."""

from __future__ import annotations

from collections.abc import Mapping

from gueststar.operations.actions.contract import Action

ACTIONS: Mapping[str, Action] = {}
"""Name -> action."""
