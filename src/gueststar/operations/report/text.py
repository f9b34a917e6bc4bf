"""The nightly report for a terminal."""

from __future__ import annotations

from gueststar.operations.report.account import RAW, Fate, NightAccount
from gueststar.operations.report.arrivals import arrival_lines
from gueststar.operations.report.completeness import class_lines, injection_lines
from gueststar.operations.report.disk import disk_lines
from gueststar.operations.report.drift import drift_lines
from gueststar.operations.report.expected import expected_lines
from gueststar.operations.report.filters import filter_lines
from gueststar.operations.report.latency import latency_lines
from gueststar.operations.report.night_report import NightReport
from gueststar.operations.report.recipes import share_lines
from gueststar.operations.report.repeatability import repeatability_lines
from gueststar.operations.report.stream import stream_lines
from gueststar.operations.report.timeline import timeline_lines
from gueststar.operations.report.trends import trend_lines
from gueststar.operations.streaks import report_lines as streak_lines


def report_lines(report: NightReport) -> list[str]:
    """Return the report as lines of text."""
    account = report.account
    parts = [f"{account.count(fate)} {fate.value}" for fate in Fate if account.count(fate)]
    verdict = "every one is explained" if report.is_explained else "NOT EVERY ONE IS EXPLAINED"
    lines = [
        f"{report.survey}, camera {report.camera}, night {account.day_obs}",
        f"{len(account.units)} detector images received = {' + '.join(parts) or '0'}: {verdict}",
    ]
    if report.reader:
        lines[0] += f", as {report.reader} may see it"
    if origins := [f"{n} {origin}" for origin, n in account.origins()] if _has_own(account) else []:
        lines.append(f"  came in as: {', '.join(origins)}")
    lines += [f"  {fate}: {n} x {reason}" for fate, reason, n in account.reasons()]
    if account.refused:
        lines.append(f"{len(account.refused)} files refused:")
        lines += [f"  {path}: {reason}" for path, reason in account.refused]
    lines += [landing.line() for landing in report.landing]
    lines += arrival_lines(report.arrivals)
    lines += expected_lines(report.expected)
    lines += share_lines(report.by_program, "program") + share_lines(report.by_field, "field")
    lines += [f"{n} exposures to {recipe} only: {why}" for recipe, why, n in report.fallbacks]
    lines += latency_lines(report.latency)
    if report.references:
        lines.append("references made or deepened:")
        lines += [
            f"  field {r['field']} detector {r['detector']} {r['band']}: {r['n_epochs']} epochs, {r['state']}"
            + (f" ({r['reason']})" if r["reason"] else "")
            for r in report.references
        ]
    if report.metrics:
        lines.append(f"{'metric':<31}{'median':>11}{'16%':>12}{'84%':>12}  {'unit':<9}good/fair/poor")
    for m in report.metrics:
        grades = (
            "/".join(str(m.grades.get(grade, 0)) for grade in ("good", "fair", "poor")) if m.fair is not None else ""
        )
        lines.append(f"{m.name:<31}{m.median:>11.4g}{m.low:>12.4g}{m.high:>12.4g}  {m.unit:<9}{grades}")
    if report.clouds:
        lines.append(f"clouds dimmed {len(report.clouds)} exposures:")
        lines += [f"  {cloudy.line()}" for cloudy in report.clouds]
    if report.calibrations:
        lines.append("calibration products, by detectors:")
        lines += [f"  {made.line()}" for made in report.calibrations]
    lines += repeatability_lines(list(report.repeatability))
    lines += injection_lines(report.injections) + class_lines(report.injections)
    lines += drift_lines(report.drift)
    if report.alerts:
        lines.append("alerts: " + ", ".join(f"{n} {program}" for program, n in sorted(report.alerts.items())))
    lines += stream_lines(report.stream)
    lines += filter_lines(list(report.filters))
    if report.tracklets:
        n_trailed = sum(bool(tracklet.get("n_trailed")) for tracklet in report.tracklets)
        trailed = f", {n_trailed} of them with trails" if n_trailed else ""
        lines.append(f"{len(report.tracklets)} tracklets of moving objects{trailed}")
    lines += streak_lines(list(report.streaks), list(report.streak_tracks))
    if not report.reader:
        lines.append(f"{report.cpu_s:.1f} s of CPU, peak memory of a worker {report.peak_rss_mb:.0f} MB")
    lines += trend_lines(report.trends) + disk_lines(report.disk) + timeline_lines(report.timeline)
    lines += truth_lines(report)
    return lines


def _has_own(account: NightAccount) -> bool:
    """Return whether anything of the night came in as a user's own product."""
    return any(origin != RAW for origin, _ in account.origins())


def truth_lines(report: NightReport) -> list[str]:
    """Return the comparison with the truth, empty where there is none."""
    return [f"  {key}: {value}" for key, value in report.truth.get("summary", {}).items()]
