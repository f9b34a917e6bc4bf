"""The fields of a night that comes: where they are, whether the survey knows them, and has stars there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gueststar.operations.rules.facts import field_radius_deg
from gueststar.store.expected import Expectations
from gueststar.store.ledger import Field
from gueststar.store.refcats import RefcatStore
from gueststar.store.repo import SurveyRepo

LEAST_COVERED = 0.8
"""A field is covered when a catalog has stars in this part of the pixels (0.46 degrees) that it touches."""


@dataclass(frozen=True)
class Place:
    """A pointing, in degrees ICRS."""

    ra: float
    dec: float
    field: int | None
    """As the list names it; None: by its place only."""
    why: str
    """Who wants it: expected, or observed."""


def places_of(repo: SurveyRepo, *, expected_on: int, observed_on: int) -> tuple[list[Place], list[int]]:
    """Return the pointings expected on a night and observed on another, and the fields whose place nobody tells."""
    places, nowhere = list[Place](), set[int]()
    for row in Expectations(repo.ledger).of_night(expected_on):
        if row.observation_type != "science":
            continue
        known = repo.ledger.field(row.field) if row.field is not None else None
        if row.ra is not None and row.dec is not None:
            places.append(Place(row.ra, row.dec, row.field, "expected"))
        elif known is not None:
            places.append(Place(known.ra, known.dec, known.id, "expected"))
        elif row.field is not None:
            nowhere.add(row.field)
    for exposure in repo.ledger.exposures(day_obs=observed_on, observation_type="science"):
        info = exposure.info
        if info.ra is not None and info.dec is not None:
            places.append(Place(info.ra, info.dec, info.field, "observed"))
    return places, sorted(nowhere)


def known_field(repo: SurveyRepo, place: Place) -> Field | None:
    """Return the field of a place if the survey has it."""
    if place.field is not None:
        return repo.ledger.field(place.field)
    from gueststar.store.ledger import separation_deg

    tolerance = tolerance_deg(repo)
    near = [(separation_deg(f.ra, f.dec, place.ra, place.dec), f.id, f) for f in repo.ledger.fields()]
    found = min(near, default=None)
    return found[2] if found is not None and found[0] <= tolerance else None


def register(repo: SurveyRepo, place: Place) -> Field:
    """Make the field of a place known; return it."""
    if place.field is None:
        return repo.ledger.assign_field(ra=place.ra, dec=place.dec, tolerance_deg=tolerance_deg(repo))
    repo.ledger.add_field(Field(place.field, place.ra, place.dec))
    return Field(place.field, place.ra, place.dec)


def tolerance_deg(repo: SurveyRepo) -> float:
    """Return within which distance two pointings are one field."""
    return (repo.settings.field_tolerance_arcmin or repo.camera.pointing_tolerance_arcmin) / 60.0


def catalog_radius_deg(repo: SurveyRepo) -> float:
    """Return how far from a pointing stars are needed: to the camera's furthest corner, as far as it may point off."""
    return field_radius_deg(repo.camera) + repo.camera.pointing_tolerance_arcmin / 60.0


def covered(store: RefcatStore, place: Place, *, radius_deg: float) -> float:
    """Return the part of a field in which the best catalog has stars."""
    fractions = (
        store.covered_fraction(ra=place.ra, dec=place.dec, radius_deg=radius_deg, name=name) for name in store.names()
    )
    return max(fractions, default=0.0)


def one_a_field(repo: SurveyRepo, places: Iterable[Place]) -> list[tuple[Place, Field | None]]:
    """Return each field's first place, with the field where the survey has it."""
    seen = set[tuple[float, float] | int]()
    found = []
    for place in places:
        field = known_field(repo, place)
        key = field.id if field is not None else place.field if place.field is not None else _cell(repo, place)
        if key not in seen:
            seen.add(key)
            found.append((place, field))
    return found


def _cell(repo: SurveyRepo, place: Place) -> tuple[float, float]:
    """Return a place to the tolerance of pointing: the same for pointings that are the same by the list."""
    step = tolerance_deg(repo)
    return round(place.ra / step), round(place.dec / step)
