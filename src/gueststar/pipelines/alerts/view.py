"""Objects as the stream of one program may know them: names and places from its own detections only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.association.footprint import is_inside
from gueststar.algorithms.association.mean_position import PositionSums, mean_position
from gueststar.core import ids, times
from gueststar.model.catalog import Catalog, concatenate
from gueststar.model.detections import WorkingSet
from gueststar.model.rights import Program, RightsPolicy
from gueststar.model.visit import VisitRecord

_SUMS = ("weight", "sum_x", "sum_y", "sum_z", "inverse_variance_ra", "inverse_variance_dec")


def tiers_of_view(working_set: WorkingSet, stream: Program, policy: RightsPolicy) -> list[Catalog]:
    """Return the objects in the order in which a stream's detections may join them (`DIA_OBJECT` rows).

    First those of which the stream may show detections, at the places that these give: they are found
    alike whatever other programs have seen. Then those that the partnership knows, those that the private
    program knows, and all others, each at the place that is known there.
    """
    left, tiers = working_set.objects, []
    for viewer in (stream, Program.PARTNERSHIP, Program.PRIVATE):
        if left.n_rows == 0:
            tiers.append(left)
            continue
        parts = _visible_parts(working_set.parts, viewer, policy)
        is_known = np.isin(left["dia_object_id"], parts["dia_object_id"])
        tiers.append(_placed(left.select(is_known), parts))
        left = left.select(~is_known)
    return [*tiers, left]


def _placed(objects: Catalog, parts: Catalog) -> Catalog:
    """Return objects at the mean places of these of their parts; each has one."""
    object_ids, group = np.unique(parts["dia_object_id"], return_inverse=True)
    sums = PositionSums(*(np.bincount(group, weights=parts[name]).astype(np.float64) for name in _SUMS))
    place = mean_position(sums)
    row = np.searchsorted(object_ids, objects["dia_object_id"])
    return objects.replace(**{name: values[row] for name, values in place._asdict().items()})


def objects_in_footprint(tiers: Sequence[Catalog], record: VisitRecord) -> Catalog:
    """Return the `DIA_OBJECT` rows of `tiers_of_view` that lie on a visit's image, at the places its stream gives them.

    Fluxes forced there tell nothing of other programs' images. An object that the stream does not know is
    at the place that others give it: what is measured there is not shown to the stream.
    """
    objects = concatenate(list(tiers))
    corner_ra, corner_dec = record.corners
    return objects.select(is_inside(corner_ra[None], corner_dec[None], objects["ra"], objects["dec"])[0])


def known_since(parts: Catalog, stream: Program, policy: RightsPolicy) -> dict[int, int]:
    """Return the commit from which on a stream knows each object (of `OBJECT_PART` rows); unknown ones are left out."""
    parts = _visible_parts(parts, stream, policy)
    since: dict[int, int] = {}
    for object_id, sequence in zip(parts["dia_object_id"].tolist(), parts["first_sequence"].tolist(), strict=True):
        since[object_id] = min(sequence, since.get(object_id, sequence))
    return since


def object_names(
    object_ids: NDArray[np.int64],
    parts: Catalog,
    record: VisitRecord,
    numbers: Mapping[int, int],
    *,
    policy: RightsPolicy,
    prefix: str,
) -> dict[int, str]:
    """Return each object's name in the stream of a visit; ``parts`` are their `OBJECT_PART` rows.

    The letters are the object's; the year is that of the first commit which the stream may show, or of
    this visit if it is the first, so that a name never tells of an earlier exposure that is hidden.
    """
    parts = _visible_parts(parts, Program(record.program), policy)
    order = np.argsort(-parts["first_sequence"], kind="stable")  # the first commit is written last
    years = dict(zip(parts["dia_object_id"][order].tolist(), parts["named_year"][order].tolist(), strict=True))
    this_year = int(times.isot_utc(record.mjd_start)[:4])
    return {
        i: ids.object_name(numbers[i], prefix=prefix, year=years.get(i, this_year)) for i in object_ids.tolist() if i
    }


def object_names_known(known: WorkingSet, stream: Program, *, policy: RightsPolicy, prefix: str) -> list[str]:
    """Return the names by which a stream knows objects; those that it does not know are left out."""
    parts = _visible_parts(known.parts, stream, policy)
    names = []
    for object_id, number in zip(known.objects["dia_object_id"].tolist(), known.name_numbers.tolist(), strict=True):
        mine = parts.select(parts["dia_object_id"] == object_id)
        if mine.n_rows:
            year = int(mine["named_year"][np.argmin(mine["first_sequence"])])
            names.append(ids.object_name(number, prefix=prefix, year=year))
    return names


def _visible_parts(parts: Catalog, stream: Program, policy: RightsPolicy) -> Catalog:
    return parts.select(np.isin(parts["program"], [int(program) for program in policy.programs_in(stream)]))
