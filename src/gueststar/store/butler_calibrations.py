"""Which calibration master is valid when: of several, the one nearest in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from astropy.time import Time
from lsst.daf.butler import MissingDatasetTypeError, Timespan
from lsst.daf.butler.time_utils import TimeConverter

from gueststar.core.errors import ConfigError
from gueststar.formats.calibration_master import read_master_time
from gueststar.store.butler_registry import Registry
from gueststar.store.butler_setup import CALIBRATIONS
from gueststar.store.products import DataId, Product, ProductRef

Span = tuple[float, float]
"""From and until, MJD TAI."""

_INSTANT_D = 1e-6
"""Days by which a question's times are widened: an instant is no span."""


@dataclass(frozen=True)
class ValidMaster:
    """A master and when it is valid."""

    ref: ProductRef
    since_ns: int
    until_ns: int
    """As the middleware counts: from the former on, until before the latter, nanoseconds of TAI."""

    def is_valid_at(self, mjd_tai: float) -> bool:
        """Return whether it is valid at a time."""
        return self.since_ns <= _nanoseconds(mjd_tai) < self.until_ns


def certify(registry: Registry, product: Product, found: ProductRef, span: Span) -> None:
    """Make a master valid during ``span``, except where another valid one is nearer in time.

    The middleware allows one valid master at a time, so the times between two are divided in the middle.
    """
    own_time = read_master_time(found.path)
    pieces, others = [span], _valid_during(registry, product, found.data_id, span)
    for other, other_span in others:
        other_time = read_master_time(other.path)
        middle = (own_time + other_time) / 2.0
        if other_time < own_time:
            pieces = without(pieces, (other_span[0], min(other_span[1], middle)))
        elif other_time > own_time:
            pieces = without(pieces, (max(other_span[0], middle), other_span[1]))
    coordinate = registry.coordinate(product, found.data_id)
    dataset_type = registry.dataset_type(product.name)
    ref = registry.butler.find_dataset(dataset_type, coordinate, collections=found.run)
    with registry.butler.transaction():
        for piece in pieces:
            validity = _timespan(piece)
            if others:  # the middleware cannot clear what was never filled
                registry.butler.registry.decertify(CALIBRATIONS, dataset_type, validity, dataIds=[coordinate])
            registry.butler.registry.certify(CALIBRATIONS, [ref], validity)


def valid_during(registry: Registry, product: Product, span: Span) -> list[ValidMaster]:
    """Return the masters of a kind valid at some time of ``span``, ends included, of all detectors (and filters)."""
    dataset_type = registry.dataset_type(product.name)
    fields = {product.name: {"dataset_id", "run", "timespan"}}
    try:
        with registry.butler.query() as query:
            query = query.join_dataset_search(dataset_type, collections=CALIBRATIONS)
            when = query.expression_factory[product.name].timespan
            query = query.where(when.overlaps(_around(span)))
            found = query.general(dataset_type.dimensions, dataset_fields=fields, find_first=False)
            valid = [(refs[0], row[f"{product.name}.timespan"]) for _, refs, row in found.iter_tuples(dataset_type)]
    except MissingDatasetTypeError:  # the repository is older than the product
        return []
    located = {(ref.run, ref.data_id): ref for ref in registry.located(list({ref for ref, _ in valid}))}
    return [ValidMaster(located[ref.run, registry.data_id_of(ref)], *during.nsec) for ref, during in valid]


def all_valid(registry: Registry, product: Product) -> list[tuple[DataId, Span]]:
    """Return when the masters of a kind are valid, of all detectors (and filters)."""
    dataset_type = registry.dataset_type(product.name)
    fields = {product.name: {"dataset_id", "run", "timespan"}}
    try:
        with registry.butler.query() as query:
            query = query.join_dataset_search(dataset_type, collections=CALIBRATIONS)
            found = query.general(dataset_type.dimensions, dataset_fields=fields, find_first=False)
            rows = [(refs[0], row[f"{product.name}.timespan"]) for _, refs, row in found.iter_tuples(dataset_type)]
    except MissingDatasetTypeError:  # the repository is older than the product
        return []
    return [(registry.data_id_of(ref), _span(valid)) for ref, valid in rows]


def without(pieces: list[Span], hole: Span) -> list[Span]:
    """Return what is left of disjoint time spans after a hole was cut."""
    if hole[1] <= hole[0]:
        return pieces
    left = [(begin, min(end, hole[0])) for begin, end in pieces]
    right = [(max(begin, hole[1]), end) for begin, end in pieces]
    return sorted({(begin, end) for begin, end in left + right if begin < end})


def _valid_during(registry: Registry, product: Product, data_id: DataId, span: Span) -> list[tuple[ProductRef, Span]]:
    dataset_type = registry.dataset_type(product.name)
    with registry.butler.query() as query:
        query = query.join_dataset_search(dataset_type, collections=CALIBRATIONS)
        query = query.where(registry.coordinate(product, data_id))
        found = query.general(
            dataset_type.dimensions, dataset_fields={product.name: {"dataset_id", "run", "timespan"}}, find_first=False
        )
        rows = [(refs[0], row[f"{product.name}.timespan"]) for _, refs, row in found.iter_tuples(dataset_type)]
    spans = [(ref, _span(valid)) for ref, valid in rows]
    return [(registry.located([ref])[0], valid) for ref, valid in spans if valid[0] < span[1] and valid[1] > span[0]]


def _span(valid: Any) -> Span:
    return float(valid.begin.tai.mjd), float(valid.end.tai.mjd)


def _around(span: Span) -> Any:
    return _timespan((span[0] - _INSTANT_D, span[1] + _INSTANT_D))


def _nanoseconds(mjd_tai: float) -> int:
    return int(TimeConverter().astropy_to_nsec(Time(mjd_tai, format="mjd", scale="tai")))


def _timespan(span: Span) -> Any:
    if not span[0] < span[1]:
        raise ConfigError(f"validity from MJD {span[0]} to {span[1]} is empty")
    return Timespan(*(Time(mjd, format="mjd", scale="tai") for mjd in span))
