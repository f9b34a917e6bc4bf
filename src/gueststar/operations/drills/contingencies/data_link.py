"""The link from the camera: outages with a backlog, glitches of the observing system, headers that lack something."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from astropy.io import fits

from gueststar.operations.drills.link import Delivery, deliver
from gueststar.operations.drills.operating import Operating
from gueststar.operations.drills.stage import Stage
from gueststar.operations.drills.verdict import Protocol
from gueststar.store.ledger import FileStatus
from gueststar.store.repo import SurveyRepo


def link_backlog(stage: Stage, told: Protocol) -> None:
    """The link is down for a part of the night; what waited arrives all at once while new exposures come in."""
    n = stage.world.n_exposures
    outage, back_s = (1, max(n // 2, 2)), stage.before_s + (n - 1) * stage.world.plan.every_s
    root = stage.survey("link-backlog")
    with stage.operating(root) as operator, stage.link(root, outage=outage, back_s=back_s) as link:
        told.did(f"exposures {outage[0]} to {outage[1] - 1} of {n} wait for {back_s:.0f} s")
        link.wait(back_s + 60)
        told.did(f"everything has arrived; done {stage.wait_for_all(root, operator):.1f} s later")
        operator.stop()
    stage.judge(root, told, may_differ_in_history=True)


def observatory_glitches(stage: Stage, told: Protocol) -> None:
    """Files come twice, in halves, out of order, empty, under odd names; the good ones count, once."""
    root = stage.survey("observatory-glitches")
    files = stage.timetable()
    science = [n for n, file in enumerate(files) if file.at_s > 0]
    odd: list[Delivery] = list(files)
    odd[science[0]] = replace(files[science[0]], how="slow", pause_s=0.5)
    odd[science[1]] = replace(files[science[1]], how="twice")
    last = files[science[-1]]
    torn = replace(last, name=f"torn_{last.name}", how="torn", at_s=files[science[0]].at_s)
    landing = stage.landing(root)
    (landing / "empty.fits").touch()
    (landing / "notes.txt").write_text("dome stuck at 03:10\n")
    (landing / ".hidden.fits").write_bytes(b"SIMPLE")
    with stage.operating(root) as operator, stage.link(root, [*odd, torn]):
        told.did("a slow file, one twice, one torn, one empty, a text, a hidden one")
        told.did(f"done {stage.wait_for_all(root, operator):.1f} s later")
        refused = _wait_for_refusals(root, operator, 1)
        operator.stop()
    told.expect(
        "the torn file is refused, with its reason", is_met=list(refused) == [torn.name] and all(refused.values()),
        seen="; ".join(f"{name}: {reason}" for name, reason in refused.items()),
    )  # fmt: skip
    told.expect("the empty one lies where it landed, and counts as arriving", is_met=(landing / "empty.fits").exists())
    stage.judge(root, told)


def missing_metadata(stage: Stage, told: Protocol) -> None:
    """Headers lack filter, exposure time or date; the account names each; what comes mended is taken."""
    root = stage.survey("missing-metadata")
    files = stage.timetable()
    science = [file for file in files if file.at_s > 0]
    landing = stage.landing(root)
    with tempfile.TemporaryDirectory() as folder:
        for card, file in zip(("FILTER", "EXPTIME", "DATE-OBS"), science, strict=False):
            deliver(Delivery(0.0, _without(card, file.source, Path(folder)), f"no_{card}_{file.name}"), landing)
    with stage.operating(root) as operator, stage.link(root, files):
        refused = _wait_for_refusals(root, operator, 3)
        told.did("three files without FILTER, EXPTIME, DATE-OBS came first, then the same exposures whole")
        told.did(f"done {stage.wait_for_all(root, operator):.1f} s later")
        operator.stop()
    for card in ("FILTER", "EXPTIME", "DATE-OBS"):
        reason = next((why for name, why in refused.items() if f"no_{card}_" in name), "it was not refused")
        told.expect(f"the file without {card} is refused by that name", is_met=card in reason, seen=reason)
    stage.judge(root, told)


def _without(card: str, source: Path, folder: Path) -> Path:
    """Write a copy of a raw file that lacks a card."""
    target = folder / f"{card}.fits"
    with fits.open(source) as units:
        for unit in units:
            unit.header.remove(card, ignore_missing=True)
        units.writeto(target, output_verify="ignore")
    return target


def _wait_for_refusals(root: Path, operator: Operating, n: int) -> dict[str, str]:
    """Wait until files were refused; return name -> reason."""

    def refused() -> dict[str, str]:
        with SurveyRepo.open(root) as repo:
            rows = repo.ledger.files(status=FileStatus.REFUSED)
        return {Path(row.path).name: row.reason for row in rows}

    operator.wait_until(lambda: len(refused()) >= n, f"{n} files were refused", timeout_s=180)
    return refused()
