"""What stands in each field of a packet where its value is not known: the contract of our ZTF-compatible stream.

The meaning of a field is the ``doc`` of its schema; here is when it can be unknown, what it is then, and what our value
is precisely where the schema leaves room. The documentation's table is made of this, and a test holds packets to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gueststar.formats.avro import OWN_FIELDS, field_names, schema_texts

MISSING = -999.0
"""What a number that does not exist is on the wire."""
MISSING_FLUX = -99999.0
"""What a forced flux that could not be measured is on the wire."""
MISSING_NAME = "null"
"""What a name that does not exist is on the wire: the word."""


@dataclass(frozen=True)
class FieldRule:
    """One field of a record of the packet."""

    name: str
    type: str
    """As in the schema, null left out."""
    meaning: str
    unknown: tuple[Any, ...]
    """What stands there where the value is not known; empty: it always is."""
    reason: str
    """When it is not known."""
    remark: str
    """What our value is where the schema leaves room."""


@dataclass(frozen=True)
class _Unknown:
    """Fields that become unknown together."""

    value: Any
    reason: str
    fields: tuple[str, ...]


_NO_REFERENCE_SOURCE = "no reference source within 30 arcsec"
_NOT_MEASURED = "not measured"
_NOT_FITTED = "zero point not fitted (images that came with one)"
_NO_OBJECT = "no such catalog object within 30 arcsec"
_LIMIT = "upper limit"
_OBJECTS = ("sgmag", "srmag", "simag", "szmag", "sgscore", "distpsnr")
_MEASURED = (
    "magpsf", "sigmapsf", "chipsf", "sky", "fwhm", "classtar", "mindtoedge", "aimage", "bimage", "sumrat", "scorr",
    "rb",
)  # fmt: skip
_RATIOS = ("seeratio", "aimagerat", "bimagerat", "elong")
_APERTURES = ("magap", "sigmagap", "magdiff", "magfromlim", "magapbig", "sigmagapbig")
_REFERENCE_SOURCE = ("distnr", "ranr", "decnr", "magnr", "sigmagnr", "chinr", "sharpnr")
_SOLUTION = ("magzpsci", "magzpsciunc", "magzpscirms", "clrcoeff", "clrcounc")
_SOLAR_SYSTEM = ("ssdistnr", "ssmagnr", "ssnamenr")

_DETECTION = (
    _Unknown(MISSING, _NOT_MEASURED, _MEASURED),
    _Unknown(MISSING, "a width of zero or not measured", _RATIOS),
    _Unknown(MISSING, "aperture flux of the other sign", _APERTURES),
    _Unknown(MISSING, _NO_REFERENCE_SOURCE, _REFERENCE_SOURCE),
    _Unknown(MISSING, _NOT_FITTED, ("diffmaglim", *_SOLUTION)),
)

_UNKNOWN: dict[str, tuple[_Unknown, ...]] = {
    "candidate": (
        *_DETECTION,
        _Unknown(MISSING, _NOT_FITTED, ("zpclrcov", "zpmed", "clrmed", "clrrms")),
        _Unknown(MISSING, "difference without noise", ("dsnrms", "ssnrms", "dsdiff")),
        _Unknown(MISSING, "no known object within 30 arcsec, or no orbits imported", ("ssdistnr", "ssmagnr")),
        _Unknown(MISSING_NAME, "no known object within 30 arcsec, or no orbits imported", ("ssnamenr",)),
        _Unknown(
            MISSING, f"{_NO_OBJECT}, or not told by the catalog",
            tuple(f"{name}{k}" for k in (1, 2, 3) for name in _OBJECTS),
        ),
        _Unknown(int(MISSING), _NO_OBJECT, ("objectidps1", "objectidps2", "objectidps3")),
        _Unknown(MISSING, "no such star within 90 arcsec", ("neargaia", "neargaiabright", "maggaia", "maggaiabright")),
        _Unknown(MISSING, "reference made elsewhere", ("jdstartref", "jdendref")),
        _Unknown(MISSING, "no network, or a cut-out is missing", ("drb",)),
    ),
    "prv_candidate": (
        *_DETECTION,
        _Unknown(None, "not kept for the past", _SOLAR_SYSTEM),
    ),
    "fp_hist": (
        _Unknown(MISSING_FLUX, "no usable pixel at the place", ("forcediffimflux", "forcediffimfluxunc")),
        _Unknown(MISSING, "no reference source within 30 arcsec, or none known in this filter", _REFERENCE_SOURCE),
        _Unknown(
            MISSING, "not measured",
            ("sciinpseeing", "scibckgnd", "scisigpix", "adpctdif1", "adpctdif2", "diffmaglim", "exptime", *_SOLUTION),
        ),
    ),
    "alert": (
        _Unknown(None, "nothing to tell in the window", ("prv_candidates", "fp_hists")),
        _Unknown(None, "not one pixel of the image is known", ("cutoutScience", "cutoutTemplate", "cutoutDifference")),
        _Unknown(None, "earlier images are not asked (`alerts.alerts.earlier.max_images: 0`)", OWN_FIELDS),
    ),
}  # fmt: skip

ALWAYS_IN_A_LIMIT = (
    "jd", "fid", "pid", "diffmaglim", "pdiffimfilename", "programpi", "programid", "nid", "rcid", "field",
    *_SOLUTION, "rbversion",
)  # fmt: skip
"""Fields of `prv_candidate` that an upper limit tells; all others are null in it."""

_ON_WIRE = {
    "isdiffpos": "`t` or `f`",
    "candid": "see [Identifiers](../design/identifiers.md)",
    "objectId": "the stream's own name of it, see [Identifiers](../design/identifiers.md)",
    "diffmaglim": "in `prv_candidates` of an upper limit: at the object's place; else the image's",
    "pdiffimfilename": "name of the product, not of a file at an archive",
    "sky": "image units are electrons; what is left after the subtraction",
    "chipsf": "reduced chi-square",
    "chinr": "square root of the reduced chi-square",
    "sharpnr": "0: as the PSF; above: wider; below: sharper",
    "magap": "8 pixels across, or 3 FWHM where that is more",
    "sumrat": "the box is not median-filtered first",
    "scorr": "absolute value",
    "ndethist": "within the association radius; this detection counts",
    "ncovhist": "this exposure counts",
    "sgscore1": "the catalog's own score where it has one, else 1 (point-like) or 0 (extended)",
    "sgmag1": "of the reference catalog, whatever its kind (AB)",
    "objectidps1": "`ref_id` of the reference catalog",
    "nmtchps": "0 also where the catalog does not reach",
    "neargaia": "nearest point source of the reference catalog",
    "maggaia": "computed from g, r, i unless the catalog is Gaia's; 0.05 mag",
    "ssdistnr": "from two-body orbits, see [](known_objects.md)",
    "ssmagnr": "V by H and G",
    "zpclrcov": "of a straight line through calibrators of this mean colour",
    "zpmed": "the line's value at their median colour",
    "rbversion": "model and its calibration",
    "schemavsn": "our own fields, which ZTF's schema does not have, stand at the end",
    "rbhist": "`rb` where no earlier image tells anything, see [](vetting.md)",
    "nrbhist": "of those that this stream may show",
    "drbversion": "`none` where no network scored",
    "nframesref": "0: reference made elsewhere",
    "tooflag": "as the card says that `header.target_of_opportunity` names; 0 where the camera names none",
    "procstatus": "`0`, or codes: `56` unusable pixels, `57` no reference source within 5 arcsec in this filter",
    "forcediffimflux": "negative values are kept; electrons, to be used with this record's magzpsci",
    "ranr": "degrees",
    "decnr": "degrees",
    "stampData": "63 x 63 float32 electrons, NaN where there is no image; rows upwards as on the detector",
    "fileName": "`candid…_pid…_targ_sci`, `…_ref`, `…_scimref` (positive) or `…_refmsci` (negative)",
}


def field_rules(record: str) -> Iterator[FieldRule]:
    """Yield the rules of a record's fields (alert, candidate, prv_candidate, fp_hist, cutout), in schema order."""
    unknown = {name: group for group in _UNKNOWN.get(record, ()) for name in group.fields}
    schema = {field["name"]: field for field in json.loads(schema_texts()[record])["fields"]}
    for name in field_names(record):
        group = unknown.get(name)
        values, reasons = ([group.value], [group.reason]) if group else ([], [])
        if record == "prv_candidate" and name not in ALWAYS_IN_A_LIMIT and None not in values:
            values, reasons = [*values, None], [*reasons, _LIMIT]
        yield FieldRule(
            name, _type_of(schema[name]["type"]), schema[name].get("doc", ""), tuple(values), "; ".join(reasons),
            _ON_WIRE.get(name, ""),
        )  # fmt: skip


def _type_of(declared: Any) -> str:
    """Return a schema type in words, null left out."""
    if isinstance(declared, list):
        return " or ".join(_type_of(part) for part in declared if part != "null")
    if isinstance(declared, dict):
        return f"list of {_type_of(declared['items'])}" if declared["type"] == "array" else str(declared["name"])
    return str(declared).rpartition(".")[2]
