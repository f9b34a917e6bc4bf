"""What people labelled, as training rows."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from gueststar.algorithms.vetting.features import psf_width
from gueststar.core.errors import DataError
from gueststar.model.columns import DIA_SOURCE
from gueststar.model.cutouts import CandidateCutouts
from gueststar.model.labels import LABELLED_SOURCE, DetectionKind, LabelledDetections, joined
from gueststar.pipelines.difference.cutouts import views_of_cutouts
from gueststar.store.labels import DetectionLabel, LabelStore
from gueststar.store.products import DataId
from gueststar.store.repo import SurveyRepo


def labelled_by_people(root: Path) -> LabelledDetections:
    """Return the detections of a survey that people labelled, with their cut-outs.

    Of several labels the last counts. Labels of detections that a reprocessing has replaced are left out; DataError if
    none is left.
    """
    with SurveyRepo.open(root) as repo:
        by_image: dict[tuple[int, int], list[DetectionLabel]] = defaultdict(list)
        for label in LabelStore.of(root, repo.settings.database).current().values():
            if label.kind is not DetectionKind.UNKNOWN:
                by_image[label.visit, label.detector].append(label)
        parts = [
            _of_image(repo, DataId(visit=visit, detector=detector), labels)
            for (visit, detector), labels in sorted(by_image.items())
        ]
    found = [part for part in parts if part is not None and part.rows.n_rows]
    if not found:
        raise DataError(f"nothing in {root} is labelled: gueststar vet page")
    return joined(found)


def _of_image(repo: SurveyRepo, data_id: DataId, labels: list[DetectionLabel]) -> LabelledDetections | None:
    if not repo.exists("dia_source", data_id):
        return None
    rows, cutouts = repo.get("dia_source", data_id), repo.get("candidate_cutouts", data_id)
    place = {key: row for row, key in enumerate(rows["dia_source_id"].tolist())}
    shown = set(cutouts.dia_source_id.tolist())
    kept = [label for label in labels if label.dia_source_id in place and label.dia_source_id in shown]
    mine = rows.select(np.array([place[label.dia_source_id] for label in kept], dtype=np.intp))
    kind = np.array([int(label.kind) for label in kept], dtype=np.int16)
    is_real = np.array([label.kind.is_real for label in kept], dtype=bool)
    if not kept:
        return None
    stamps = np.stack([cutouts.of(label.dia_source_id) for label in kept])
    views = views_of_cutouts(mine, CandidateCutouts(mine["dia_source_id"], stamps), fwhm=psf_width(rows))
    labelled = LABELLED_SOURCE.catalog(dict(DIA_SOURCE.catalog(dict(mine))) | {"is_real": is_real, "kind": kind})
    return LabelledDetections(labelled, views)
