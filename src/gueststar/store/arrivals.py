"""When files of exposures came, and which of some files were ever seen: the operator's questions to the ledger."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import and_, func, select

from gueststar.store.ledger import FileStatus, Ledger
from gueststar.store.tables import EXPOSURE_DETECTORS, EXPOSURES, FILES

_AT_ONCE = 400


def received_times(ledger: Ledger, night: int) -> dict[tuple[int, int], float]:
    """Return (exposure, detector) -> Unix time at which the file that holds its pixels was there, whole.

    Cameras that send a file a CCD have detectors of one exposure that come one after the other.
    """
    parts, same = EXPOSURE_DETECTORS, FILES.c.pixel_checksum == EXPOSURE_DETECTORS.c.pixel_checksum
    query = (
        select(parts.c.exposure_id, parts.c.detector, func.min(FILES.c.received))
        .join(EXPOSURES, EXPOSURES.c.id == parts.c.exposure_id)
        .join(FILES, and_(FILES.c.exposure_id == parts.c.exposure_id, same))
        .where(EXPOSURES.c.day_obs == night, FILES.c.status == FileStatus.INGESTED)
        .group_by(parts.c.exposure_id, parts.c.detector)
    )
    with ledger.of_operator().reading() as connection:
        return {(exposure, detector): float(time) for exposure, detector, time in connection.execute(query)}


def seen_paths(ledger: Ledger, paths: Collection[str]) -> set[str]:
    """Return those of some paths from which a file was received before, whatever became of it."""
    wanted, found = sorted(paths), set[str]()
    with ledger.of_operator().reading() as connection:
        for start in range(0, len(wanted), _AT_ONCE):
            some = FILES.c.path.in_(wanted[start : start + _AT_ONCE])
            found |= set(connection.execute(select(FILES.c.path).where(some)).scalars())
    return found
