"""Objects as the stream of one program may know them: names and places from its own detections only."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.association.footprint import is_inside
from gueststar.algorithms.association.mean_position import PositionSums, mean_position
from gueststar.core import ids, times
from gueststar.model.catalog import Catalog
from gueststar.model.detections import WorkingSet
from gueststar.model.rights import Program, RightsPolicy
from gueststar.model.visit import VisitRecord

_SUMS = ("weight", "sum_x", "sum_y", "sum_z", "inverse_variance_ra", "inverse_variance_dec")


def programs_in_view(stream: Program, policy: RightsPolicy) -> tuple[Program, ...]:
    """Return the programs whose exposures a stream may always show, whatever has been released."""
    return tuple(
        program for program in Program
        if policy.may_appear(program, in_stream=stream, item_day_obs=99_999_999, at_mjd_tai=-math.inf)
    )  # fmt: skip


def objects_in_view(working_set: WorkingSet, stream: Program, policy: RightsPolicy) -> Catalog:
    """Return the `DIA_OBJECT` rows with the places that a stream's own detections give them.

    Fluxes forced there tell nothing of other programs' images. An object of which the stream has no
    detection keeps the place that all detections give: what is measured there is not shown to the stream.
    """
    parts = _visible_parts(working_set.parts, stream, policy)
    if parts.n_rows == 0:
        return working_set.objects
    object_ids, group = np.unique(parts["dia_object_id"], return_inverse=True)
    sums = PositionSums(*(np.bincount(group, weights=parts[name]).astype(np.float64) for name in _SUMS))
    place = mean_position(sums)
    objects = working_set.objects
    row = np.searchsorted(object_ids, objects["dia_object_id"])
    row = np.minimum(row, len(object_ids) - 1)
    is_known = object_ids[row] == objects["dia_object_id"]
    return objects.replace(
        **{name: np.where(is_known, getattr(place, name)[row], objects[name]) for name in place._fields}
    )


def objects_in_footprint(working_set: WorkingSet, record: VisitRecord, policy: RightsPolicy) -> Catalog:
    """Return the `DIA_OBJECT` rows that lie on a visit's image, at the places its stream gives them."""
    objects = objects_in_view(working_set, Program(record.program), policy)
    corner_ra, corner_dec = record.corners
    return objects.select(is_inside(corner_ra[None], corner_dec[None], objects["ra"], objects["dec"])[0])


def object_names(
    object_ids: NDArray[np.int64],
    working_set: WorkingSet,
    record: VisitRecord,
    numbers: Mapping[int, int],
    *,
    policy: RightsPolicy,
    prefix: str,
) -> dict[int, str]:
    """Return each object's name in the stream of a visit.

    The letters are the object's; the year is that of the first commit which the stream may show, or of
    this visit if it is the first, so that a name never tells of an earlier exposure that is hidden.
    """
    parts = _visible_parts(working_set.parts, Program(record.program), policy)
    order = np.argsort(-parts["first_sequence"], kind="stable")  # the first commit is written last
    years = dict(zip(parts["dia_object_id"][order].tolist(), parts["named_year"][order].tolist(), strict=True))
    this_year = int(times.isot_utc(record.mjd_start)[:4])
    return {
        i: ids.object_name(numbers[i], prefix=prefix, year=years.get(i, this_year)) for i in object_ids.tolist() if i
    }


def _visible_parts(parts: Catalog, stream: Program, policy: RightsPolicy) -> Catalog:
    return parts.select(np.isin(parts["program"], [int(program) for program in programs_in_view(stream, policy)]))
