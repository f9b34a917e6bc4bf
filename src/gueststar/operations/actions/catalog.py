"""All actions by the names that rules use."""

from __future__ import annotations

from collections.abc import Mapping

from gueststar.operations.actions.archive_products import archive_products, verify_archive
from gueststar.operations.actions.check_archive_disk import check_archive_disk
from gueststar.operations.actions.clean_depot import clean_depot
from gueststar.operations.actions.clean_sandbox import clean_sandbox
from gueststar.operations.actions.contract import Action
from gueststar.operations.actions.export_candidates import export_candidates
from gueststar.operations.actions.maintenance import maintenance
from gueststar.operations.actions.measure_metrics import measure_metrics
from gueststar.operations.actions.moving_objects import moving_objects
from gueststar.operations.actions.night_report import night_report
from gueststar.operations.actions.prepare_off_grid_fields import prepare_off_grid_fields
from gueststar.operations.actions.readiness import readiness
from gueststar.operations.actions.reference_synopsis import reference_synopsis
from gueststar.operations.actions.source_matching import source_matching
from gueststar.operations.actions.survey_pages import coverage_maps, weekly_report
from gueststar.operations.actions.update_ephemerides import update_ephemerides

ACTIONS: Mapping[str, Action] = {
    "archive_products": archive_products,
    "check_archive_disk": check_archive_disk,
    "clean_depot": clean_depot,
    "clean_sandbox": clean_sandbox,
    "coverage_maps": coverage_maps,
    "export_candidates": export_candidates,
    "maintenance": maintenance,
    "measure_metrics": measure_metrics,
    "moving_objects": moving_objects,
    "night_report": night_report,
    "prepare_off_grid_fields": prepare_off_grid_fields,
    "readiness": readiness,
    "reference_synopsis": reference_synopsis,
    "source_matching": source_matching,
    "update_ephemerides": update_ephemerides,
    "verify_archive": verify_archive,
    "weekly_report": weekly_report,
}
"""Name -> action."""
