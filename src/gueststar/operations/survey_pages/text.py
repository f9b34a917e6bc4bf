"""The weekly and survey-long page in words."""

from __future__ import annotations

from gueststar.operations.survey_pages.html import depth_rows, sized
from gueststar.operations.survey_pages.report import SurveyReport


def survey_lines(report: SurveyReport) -> list[str]:
    """Return the page in a few lines."""
    totals = report.totals
    lines = [
        f"{report.survey}, {report.first} to {report.last}"
        + (f", as {report.reader} may see it" if report.reader else ""),
        f"{totals['exposures']} exposures in {totals['nights']} nights,"
        f" {totals['open_hours']:.1f} hours of open shutter",
    ]
    if totals.get("states"):
        states = ", ".join(f"{n} {state}" for state, n in totals["states"].items())
        lines.append(f"fates: {states}; {totals['unexplained'] or 'none'} unexplained")
    for row in depth_rows(report):
        depth = f", typical depth {row['depth']}" if row["depth"] else ""
        lines.append(f"{row['band']}: {row['exposures']} exposures of {row['fields']} fields{depth}")
    if totals["alerts_by_program"]:
        lines.append("alerts: " + ", ".join(f"{n} {name}" for name, n in totals["alerts_by_program"].items()))
    if report.references:
        lacking = [state for state in report.references if state.lacks]
        lines.append(
            f"references: {len(report.references) - len(lacking)} of {len(report.references)} fields and filters"
            f" have all of theirs"
            + (f"; field {lacking[0].field} {lacking[0].band}: {lacking[0].lacks}" if lacking else "")
        )
    below = sorted({row["name"] for row in report.metrics if row["standing"] == "below"})
    if below:
        lines.append(f"metrics below the minimum: {', '.join(below)}")
    if totals.get("bytes"):
        lines.append(f"stored: {sized(sum(totals['bytes'].values()))}")
    return lines
