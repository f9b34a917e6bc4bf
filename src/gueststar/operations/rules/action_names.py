"""The actions that rules may name, with what each does: for complaints, explanations and the documentation."""

from __future__ import annotations

from collections.abc import Mapping

PIPELINES: Mapping[str, str] = {
    "calibrate": "makes masters of the night's bias, dark and flat frames, and certifies them",
    "references": "makes and deepens the references that the good epochs allow",
    "movers": "links the night's moving detections into tracklets",
    "precover": "measures the night's new objects on images from before they were known",
    "learn": "makes the calibration products that science images show: star flats, fringes, crosstalk, distortion",
    "inject": "puts artificial sources into a sample of the night's images and scores what is found of them",
    "publish": "sends alerts that wait, and asks the users' filters",
    "reprocess": "works on a night again, with the calibrations and parameters of now",
}
"""Actions that go through the operator's queue."""

HOUSEKEEPING: Mapping[str, str] = {
    "update_ephemerides": "takes in the newest orbits of known bodies that were dropped in",
    "moving_objects": "tells whether the night has enough data for moving objects",
    "coverage_maps": "draws the sky maps of what was observed, by filter",
    "night_report": "makes the night's account and mails it",
    "clean_sandbox": "removes what can be made again, or is proven to lie in the archive",
    "archive_products": "copies raw files and products into the archive, and verifies them there",
    "verify_archive": "reads a sample of the archive again and tells what is broken",
    "check_archive_disk": "tells the archive's free space and days left, and prepares the coming night's folders",
    "clean_depot": "removes old refused copies, logs and exports by age, never raw files",
    "export_candidates": "writes the night's candidates as files for fast association with history",
    "prepare_off_grid_fields": "registers new fields and makes their calibrator catalogs",
    "readiness": "goes through the checklist of what the coming night needs",
    "reference_synopsis": "tells coverage and quality of the references, and which fields could deepen",
    "source_matching": "matches sources of all nights into light curves",
    "maintenance": "keeps databases and logs in shape, and backs databases up",
    "weekly_report": "makes the weekly synopsis and mails it",
    "measure_metrics": "measures the named metrics and keeps their history",
}
"""Actions of `gueststar.operations.actions`."""


OF_A_NIGHT = frozenset({
    "references", "movers", "precover", "learn", "inject", "publish", "reprocess", "moving_objects", "coverage_maps",
    "night_report", "export_candidates", "measure_metrics",
})  # fmt: skip
"""Actions whose work is of the very night that they are run for: one that was missed lacks what they make."""

KNOWN = frozenset(PIPELINES) | frozenset(HOUSEKEEPING)
"""The names that rules may use."""
