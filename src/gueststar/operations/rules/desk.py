"""What `gueststar rules` does: list, check, explain and copy the rules of a survey."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from gueststar.core import times
from gueststar.core.errors import ConfigError
from gueststar.operations.rules.explain import explain_exposure, explain_moment, table_of
from gueststar.operations.rules.load import OWN, SHIPPED, check_rules, load_rules, name_of, rules_path
from gueststar.operations.rules.reading import read_text
from gueststar.operations.rules.record import last_fired, operated_since
from gueststar.operations.rules.words import moment_words
from gueststar.store.repo import SurveyRepo


def list_rules(repo: SurveyRepo, *, now: float) -> list[str]:
    """Return the survey's rules as a table, and its planned downtimes."""
    book = load_rules(repo.root, repo.settings.operation)
    title = f"{book.source.name}; local times in {book.almanac.zone.key}, last and next in UTC"
    lines = [title, *table_of(book, last_fired(repo.ledger), now=now)]
    for window in book.maintenance:
        lines.append(f"downtime from {moment_words(window.start)} to {moment_words(window.end)}: {window.reason}")
    return lines


def check_file(repo: SurveyRepo, path: Path | None) -> tuple[bool, list[str]]:
    """Return whether a file of rules (None: the survey's) can be followed, and every complaint or what it holds."""
    chosen = path or rules_path(repo.root, repo.settings.operation)
    checked = check_rules(read_text(chosen, str(path) if path else name_of(chosen)), repo.camera)
    if checked.file is None:
        return False, list(checked.complaints)
    n_on = sum(rule.enabled for rule in checked.file.rules)
    return True, [f"{checked.source.name}: {len(checked.file.rules)} rules, {n_on} of them enabled", *_remarks(repo)]


def _remarks(repo: SurveyRepo) -> list[str]:
    """Return what is no mistake but should be known."""
    site = repo.camera.site
    if site.is_placed:
        return []
    return [f"camera {repo.camera.name} has no site: nights are taken from 18 to 6 h of the time of its longitude"]


def explain(repo: SurveyRepo, *, exposure: int | None, at: str | None, now: float) -> list[str]:
    """Return what the rules say of an exposure, or of a moment (ISO, UTC; None: now).

    ConfigError if the exposure was never received or the moment is none.
    """
    from gueststar.operations.rules.facts import ExposureFactsSource, SurveyFactsSource  # imports the pipelines

    book = load_rules(repo.root, repo.settings.operation)
    moment = now if at is None else times.unix_of_jd_utc(times.jd_of_text(at))
    if exposure is not None:
        row = repo.ledger.exposure(exposure)
        if row is None:
            raise ConfigError(f"the ledger has no exposure {exposure}")
        return explain_exposure(book, ExposureFactsSource(repo).facts(row, now=moment))
    facts = SurveyFactsSource(repo).facts(now=moment)
    if operated_since(repo.ledger, moment) is not None:
        return explain_moment(book, facts, last_fired(repo.ledger))
    told = "nothing operated this survey by then: told as if something had, and no rule had fired"
    return [told, *explain_moment(book, replace(facts, since=0.0), {})]


def copy_shipped(repo: SurveyRepo) -> Path:
    """Bring the shipped rules into the survey, to be changed; ConfigError if it has rules of its own."""
    target = repo.root / OWN
    try:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        raise ConfigError(f"{target} is there already: change it, or remove it first") from None
    with os.fdopen(handle, "w") as file:
        file.write(SHIPPED.read_text())
    return target
