"""Quality and coverage of the references, week by week (item 11 of the day): which fields lack one or could deepen."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from gueststar.formats.atomic import appearing_whole
from gueststar.operations.actions.arguments import Arguments, arguments_of
from gueststar.operations.actions.contract import ActionContext, ActionResult
from gueststar.operations.rules.good_epochs import quality_of
from gueststar.pipelines.night.reference_standing import DEEPEN_FACTOR
from gueststar.pipelines.night.settings import PipelineSettings
from gueststar.pipelines.reference.select_epochs import EpochQuality, EpochSelection, SelectEpochs, SelectEpochsConfig
from gueststar.store.operation_facts import OperationFacts
from gueststar.store.products import ProductRef
from gueststar.store.repo import SurveyRepo

_DAY_S = 86400.0
_MOST_TOLD = 100
_FEW = 20


class SynopsisArguments(Arguments):
    """What is looked at."""

    days: float | None = Field(default=8.0, gt=0)
    """Fields that got images within this many days; None: all."""


@dataclass(frozen=True)
class FieldSynopsis:
    """One field in one band, over its detectors."""

    field: int
    band: str
    n_detectors: int
    """Detectors with calibrated images."""
    n_with_reference: int
    n_makeable: int
    """Detectors without a reference that have enough good epochs for one."""
    n_deepenable: int
    """Detectors whose reference would gain enough depth."""
    n_good: int
    """Good epochs of the detector that has fewest."""
    n_needed: int
    n_in_reference: int
    """Epochs of the shallowest reference; 0: none."""
    median_fwhm_arcsec: float | None
    median_limiting_mag: float | None

    @property
    def state(self) -> str:
        """What is to be said of it, in a word or two."""
        if self.n_makeable:
            return "can be made"
        if self.n_with_reference < self.n_detectors:
            return "lacks epochs"
        return "could deepen" if self.n_deepenable else "good"


def reference_synopsis(context: ActionContext) -> ActionResult:
    """Count the good epochs of fields and bands, and tell which references are missing or could be deepened."""
    arguments = arguments_of(context, SynopsisArguments, action="reference_synopsis")
    repo = context.repo
    after = 0.0 if arguments.days is None else context.now - arguments.days * _DAY_S
    places = OperationFacts(repo.ledger).places_calibrated(after=after)
    if not places:
        return ActionResult("nothing", "no images were calibrated since then")
    references = _references(repo, places)
    config = PipelineSettings.of(repo.camera.settings, repo.settings.parameters).reference_selection
    rows = [_synopsis(repo, field, band, references.get((field, band), []), config) for field, band in places]
    path = repo.root / "reports" / "references" / f"{context.night}.json"
    if not context.is_dry:
        _write(path, rows)
    states = {
        state: sum(row.state == state for row in rows)
        for state in ("good", "could deepen", "can be made", "lacks epochs")
    }
    told = ", ".join(f"{n} {state}" for state, n in states.items() if n)
    short = sorted((row for row in rows if row.state == "lacks epochs"), key=lambda row: row.n_good - row.n_needed)
    text = f"{len(rows)} fields and bands: {told}"
    text += (
        f"; fewest good epochs: field {short[0].field} {short[0].band}, {short[0].n_good} of {short[0].n_needed}"
        if short
        else ""
    )
    wanting = [_plain(row) for row in rows if row.state != "good"]
    data = {"n": len(rows), "states": states, "file": str(path), "fields": wanting[:_MOST_TOLD]}
    return ActionResult("nothing" if context.is_dry else "done", text, data)


def _references(repo: SurveyRepo, places: list[tuple[int, str]]) -> dict[tuple[int, str], list[ProductRef]]:
    """Return the references of places: asked for band by band where there are many of them."""
    found: dict[tuple[int, str], list[ProductRef]] = defaultdict(list)
    for band in sorted({band for _, band in places}):
        fields = [field for field, mine in places if mine == band]
        asked: list[dict[str, Any]] = [{}] if len(fields) > _FEW else [{"field": field} for field in fields]
        for one in asked:
            for ref in repo.find("reference_metrics", band=band, **one):
                found[int(ref.data_id.field or 0), band].append(ref)
    return found


def _synopsis(
    repo: SurveyRepo, field: int, band: str, references: list[ProductRef], settings: SelectEpochsConfig
) -> FieldSynopsis:
    epochs: dict[int, list[EpochQuality]] = defaultdict(list)
    for image in OperationFacts(repo.ledger).calibrated_images(field, band):
        epochs[image.detector].append(quality_of(image))
    select = SelectEpochs(settings)
    scale = repo.camera.pixel_scale_arcsec
    chosen = {detector: select.run(mine, pixel_scale_arcsec=scale) for detector, mine in epochs.items()}
    have = {int(ref.data_id.detector or 0): int(repo.read(ref)["n_epochs"]) for ref in references}
    good = [q for detector, mine in epochs.items() for q in mine if q.name in _good(chosen[detector])]
    return FieldSynopsis(
        field=field, band=band, n_detectors=len(epochs), n_with_reference=len(have.keys() & epochs.keys()),
        n_makeable=sum(choice.is_enough and detector not in have for detector, choice in chosen.items()),
        n_deepenable=sum(
            detector in have and _would_deepen(len(choice.used), have[detector], settings.max_epochs)
            for detector, choice in chosen.items()
        ),
        n_good=min((len(_good(choice)) for choice in chosen.values()), default=0), n_needed=settings.min_epochs,
        n_in_reference=min(have.values(), default=0),
        median_fwhm_arcsec=_median([q.fwhm_arcsec for q in good]),
        median_limiting_mag=_median([q.limiting_mag for q in good]),
    )  # fmt: skip


def _would_deepen(n_used: int, n_have: int, most: int) -> bool:
    return n_used > n_have and n_used >= min(DEEPEN_FACTOR * n_have, most)


def _good(choice: EpochSelection) -> set[str]:
    return {item.name for item in choice.decisions if item.is_used or item.reason.startswith("good")}


def _median(values: list[float]) -> float | None:
    return round(float(np.median(values)), 4) if values else None


def _plain(row: FieldSynopsis) -> dict[str, object]:
    return {**asdict(row), "state": row.state}


def _write(path: Path, rows: list[FieldSynopsis]) -> None:
    with appearing_whole(path) as temporary:
        temporary.write_text(json.dumps([_plain(row) for row in rows], indent=1))
