"""What a night's report says of how its files came: those that came again, and the images that came late."""

from __future__ import annotations

from typing import Any

from gueststar.operations.report.account import NightAccount
from gueststar.store.ledger import FileStatus, Ledger


def arrivals_of(ledger: Ledger, account: NightAccount) -> dict[str, Any]:
    """Return the files whose pixels were there before, and the detector images that came out of turn.

    An image is late if a later one over the same sky had been associated before it.
    """
    exposures = {unit.exposure.id for unit in account.units}
    again = [file for file in ledger.files(status=FileStatus.ALREADY) if file.exposure_id in exposures]
    late = [unit for unit in account.units if unit.metrics.get("is_late")]
    return {
        "files_again": sorted(file.path for file in again),
        "late_images": [{"exposure": unit.exposure.id, "detector": unit.detector} for unit in late],
        "late_alerts": sum(int(str(unit.metrics.get("n_alerts", 0))) for unit in late),
    }


def arrival_lines(arrivals: dict[str, Any]) -> list[str]:
    """Return it as lines of text; none where all came once and in order."""
    lines = []
    if again := arrivals.get("files_again"):
        lines.append(f"{len(again)} files came again, their pixels were there: nothing was made of them twice")
        lines += [f"  {path}" for path in again]
    if late := arrivals.get("late_images"):
        lines.append(
            f"{len(late)} detector images came late, after later ones of the same sky: "
            f"their {arrivals['late_alerts']} alerts tell only what was there before them"
        )
    return lines
