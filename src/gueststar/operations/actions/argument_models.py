"""What rules may tell each action, so that a file of rules is checked before an action runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from gueststar.operations.actions.archive_products import ArchiveArguments, VerifyArguments
from gueststar.operations.actions.arguments import Arguments
from gueststar.operations.actions.check_archive_disk import ArchiveDiskArguments
from gueststar.operations.actions.clean_depot import DepotArguments
from gueststar.operations.actions.clean_sandbox import SandboxArguments
from gueststar.operations.actions.maintenance import MaintenanceArguments
from gueststar.operations.actions.measure_metrics import MeasureArguments
from gueststar.operations.actions.moving_objects import EnoughToLink
from gueststar.operations.actions.prepare_off_grid_fields import FieldArguments
from gueststar.operations.actions.readiness import ReadinessArguments
from gueststar.operations.actions.reference_synopsis import SynopsisArguments
from gueststar.operations.actions.survey_pages import CoverageArguments, WeeklyArguments
from gueststar.operations.actions.update_ephemerides import EphemerisArguments

ARGUMENTS: Mapping[str, type[Arguments]] = {
    "archive_products": ArchiveArguments,
    "check_archive_disk": ArchiveDiskArguments,
    "clean_depot": DepotArguments,
    "clean_sandbox": SandboxArguments,
    "coverage_maps": CoverageArguments,
    "export_candidates": Arguments,
    "maintenance": MaintenanceArguments,
    "measure_metrics": MeasureArguments,
    "moving_objects": EnoughToLink,
    "prepare_off_grid_fields": FieldArguments,
    "readiness": ReadinessArguments,
    "reference_synopsis": SynopsisArguments,
    "source_matching": Arguments,
    "update_ephemerides": EphemerisArguments,
    "verify_archive": VerifyArguments,
    "weekly_report": WeeklyArguments,
}
"""Action -> its arguments; others check theirs when they run."""


def wrong_arguments(action: str, arguments: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the arguments of an action, as far as it can be told beforehand."""
    kind = ARGUMENTS.get(action)
    if kind is None:
        return []
    try:
        kind.model_validate(dict(arguments))
    except ValidationError as problem:
        known = ", ".join(kind.model_fields) or "none"
        return [f"argument {_key(item)}: {_words(item)}; arguments are {known}" for item in problem.errors()]
    return []


def _key(item: Any) -> str:
    return repr(".".join(map(str, item["loc"])))


def _words(item: Any) -> str:
    if item["type"] == "extra_forbidden":
        return "is no argument here"
    return f"{item['input']!r}: {item['msg'][0].lower()}{item['msg'][1:]}"
