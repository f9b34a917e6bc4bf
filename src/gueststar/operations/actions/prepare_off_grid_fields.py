"""Fields that the survey does not know yet are registered and get their stars (item 9 of the day)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field as Limited

from gueststar.operations.actions.arguments import Arguments, arguments_of
from gueststar.operations.actions.contract import ActionContext, ActionResult, Condition
from gueststar.operations.actions.running_night import coming_night
from gueststar.operations.coming_fields import (
    LEAST_COVERED,
    Place,
    catalog_radius_deg,
    covered,
    one_a_field,
    places_of,
    register,
)
from gueststar.pipelines.catalog_files import CatalogFolder, folders_of
from gueststar.store.refcats import RefcatStore

_MOST_TOLD = 50
_MARGIN = 1.25
"""Stars are brought in out to this many times the radius that is needed: pointings of a field differ."""


class FieldArguments(Arguments):
    """Where stars may be found."""

    catalogs: tuple[Path, ...] = ()
    """Folders of star catalogs, each one catalog in as many tables as it likes."""
    least_covered: float = Limited(default=LEAST_COVERED, gt=0, le=1)
    """Part of a field in which there must be stars."""


def prepare_off_grid_fields(context: ActionContext) -> ActionResult:
    """Register the fields of the coming night (and of the last) that are new, and bring in stars where there are none.

    Stars come from the folders of catalogs that the rule names. Where they have none, it is told which are needed.
    """
    arguments = arguments_of(context, FieldArguments, action="prepare_off_grid_fields")
    repo, night = context.repo, coming_night(context.repo, context.now)
    if not repo.camera.has_sky:
        return ActionResult("nothing", f"camera {repo.camera.name} sees no sky")
    found, nowhere = places_of(repo, expected_on=night, observed_on=context.night)
    places = one_a_field(repo, found)
    new = [place for place, field in places if field is None]
    registered = [] if context.is_dry else [register(repo, place).id for place in new]
    store, radius = RefcatStore(repo.root / "refcats"), catalog_radius_deg(repo)
    bare = [p for p, _ in places if covered(store, p, radius_deg=radius) < arguments.least_covered]
    folders = folders_of(arguments.catalogs, root=repo.root)
    made, missing = list[dict[str, Any]](), list[dict[str, Any]]()
    for place in bare:
        done = None if context.is_dry else _bring_stars(store, folders, place, radius, arguments.least_covered)
        (missing if done is None else made).append(_told(place, radius) | (done or {}))
    data = {
        "night": night, "n_fields": len(places), "n_new": len(new), "registered": registered[:_MOST_TOLD],
        "n_made": len(made), "made": made[:_MOST_TOLD], "n_missing": len(missing), "missing": missing[:_MOST_TOLD],
        "nowhere": nowhere[:_MOST_TOLD], "unreadable": [item for f in folders for item in f.unreadable][:_MOST_TOLD],
    }  # fmt: skip
    if context.is_dry:
        return ActionResult("nothing", f"would register {len(new)} fields and look for stars in {len(bare)}", data)
    return _result(context, data, arguments, missing, nowhere)


def _bring_stars(
    store: RefcatStore, folders: list[CatalogFolder], place: Place, radius: float, least: float
) -> dict[str, Any] | None:
    """Bring in stars around a place from the first folder that has enough of them; None where none has."""
    for folder in folders:
        part = folder.around(ra=place.ra, dec=place.dec, radius_deg=_MARGIN * radius)
        if part.catalog.n_rows == 0:
            continue
        metadata = {"origin": str(folder.folder), "is_calibrated": part.is_calibrated, "is_in_parts": True}
        store.import_catalog(folder.name, part.catalog, metadata=metadata)
        if covered(store, place, radius_deg=radius) >= least:
            return {"catalog": folder.name, "n_stars": part.catalog.n_rows, "files": list(part.files)}
    return None


def _told(place: Place, radius: float) -> dict[str, Any]:
    return {"field": place.field, "ra": round(place.ra, 5), "dec": round(place.dec, 5), "radius_deg": round(radius, 4)}


def _result(
    context: ActionContext, data: dict[str, Any], arguments: FieldArguments, missing: list[dict[str, Any]],
    nowhere: list[int],
) -> ActionResult:  # fmt: skip
    told = [
        f"night {data['night']}: {data['n_fields']} fields, {data['n_new']} new, stars brought in for {data['n_made']}"
    ]
    if missing:
        first = missing[0]
        where = ", ".join(map(str, arguments.catalogs)) or "a folder that the rule names (catalogs: [FOLDER])"
        told.append(
            f"{len(missing)} fields LACK STARS, first at {first['ra']}, {first['dec']}: put tables of stars (Gaia, "
            f"Pan-STARRS, ATLAS-RefCat2...) within {first['radius_deg']} degrees into {where}"
        )
    if nowhere:
        told.append(f"fields {', '.join(map(str, nowhere[:5]))} are expected, and no list tells where they are")
    is_wrong = bool(missing or nowhere)
    state = Condition("field_unprepared", f"night {data['night']}", is_wrong, "; ".join(told), "warning")
    did = data["n_new"] or data["n_made"]
    return ActionResult(
        "failed" if is_wrong and not did else "done" if did else "nothing", "; ".join(told), data, (state,)
    )
