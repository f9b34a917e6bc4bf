"""What a detection can be: the classes by which labels are given and vetting is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.vetting.stamps import StampViews
from gueststar.core.errors import DataError
from gueststar.model.catalog import Catalog, Column, Schema, concatenate
from gueststar.model.columns import DIA_SOURCE

_FIRST_ARTEFACT = 10


class DetectionKind(IntEnum):
    """Class of a detection; numbers below 10 are things on the sky that changed, others are artefacts."""

    UNKNOWN = 0
    """Real or not is known at most, not which kind."""
    TRANSIENT = 1
    """A point source that came or went, alone."""
    TRANSIENT_IN_HOST = 2
    """A point source that came or went, on a galaxy or beside another source."""
    VARIABLE = 3
    """A source of the reference that changed."""
    MOVER = 4
    """Something that moves, a point or a short trail."""
    BRIGHT_STAR = 10
    """Residual of a bright star: core, halo, spike or bleeding column."""
    COSMIC_RAY = 11
    GHOST = 12
    """Stray light that does not stay with the stars."""
    TRAIL = 13
    """Piece of the trail of a satellite or an aircraft."""
    BAD_PIXEL = 14
    """Hot or dead pixels, bad columns."""
    EDGE = 15
    """At the edge of the image or of the usable pixels."""
    DIPOLE = 16
    """Rest of a star that was subtracted displaced, too wide or too bright."""
    NOISE = 17
    """Fluctuation of the sky, of which nothing is the cause."""

    @property
    def is_real(self) -> bool:
        """Whether it is a thing on the sky that changed; False for UNKNOWN."""
        return 0 < self < _FIRST_ARTEFACT

    @property
    def title(self) -> str:
        """Name for a reader."""
        return self.name.lower().replace("_", " ")


REAL_KINDS = tuple(kind for kind in DetectionKind if kind.is_real)
ARTEFACT_KINDS = tuple(kind for kind in DetectionKind if kind >= _FIRST_ARTEFACT)


LABELLED_SOURCE = Schema(
    "labelled_source",
    (
        *DIA_SOURCE.columns,
        Column("is_real", "?", "", "a thing on the sky that changed, not an artefact"),
        Column("kind", "i2", "", "DetectionKind, 0 if not known", 0),
    ),
)
"""Training rows: detections as measured, with the truth. Rows of one visit and detector belong together."""


@dataclass(frozen=True, eq=False)
class LabelledDetections:
    """Labelled detections with what the network sees of them."""

    rows: Catalog
    """`LABELLED_SOURCE`."""
    views: StampViews | None = None
    """Of the same rows; None: there are no cut-outs."""

    def __post_init__(self) -> None:
        if self.views is not None and self.views.n != self.rows.n_rows:
            raise DataError(f"{self.rows.n_rows} labelled detections come with views of {self.views.n} cut-outs")

    @property
    def is_real(self) -> NDArray[np.bool_]:
        """``[n]``."""
        return self.rows["is_real"].astype(bool)

    def select(self, index: NDArray[np.bool_] | NDArray[np.intp]) -> LabelledDetections:
        """Return the detections that an array picks."""
        return LabelledDetections(self.rows.select(index), self.views.select(index) if self.views else None)


def joined(parts: Sequence[LabelledDetections]) -> LabelledDetections:
    """Return all detections of parts, of which at least one is needed; views only if each part has them."""
    views = [part.views for part in parts if part.views is not None]
    whole = StampViews(*map(np.concatenate, zip(*views, strict=True))) if len(views) == len(parts) else None
    return LabelledDetections(Catalog(concatenate([part.rows for part in parts]), LABELLED_SOURCE), whole)
