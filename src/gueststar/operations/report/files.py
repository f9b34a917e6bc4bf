"""The report of a night as files of the repository: reports/NIGHT/report.html, report.json, report.txt."""

from __future__ import annotations

import json
import os
from pathlib import Path

from gueststar.formats.atomic import appearing_whole
from gueststar.operations.report.html import render_html
from gueststar.operations.report.night_report import NightReport, as_json
from gueststar.operations.report.text import report_lines
from gueststar.operations.report.verdict import verdict_of
from gueststar.store.repo import SurveyRepo

FOLDER = "reports"


def write_report(repo: SurveyRepo, report: NightReport) -> Path:
    """Write the operator's report of a night; return its folder. Each file appears whole, and nobody else reads it."""
    folder = repo.root / FOLDER / str(report.account.day_obs)
    told = {
        "report.json": json.dumps({"verdict": verdict_of(report), **as_json(report)}, default=str),
        "report.txt": "\n".join([verdict_of(report), "", *report_lines(report)]) + "\n",
        "report.html": render_html(report, repo),
    }
    for name, text in told.items():
        with appearing_whole(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
            os.chmod(temporary, 0o600)
    return folder
