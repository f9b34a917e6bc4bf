"""How amplifiers make detectors, and detectors a focal plane."""

from __future__ import annotations

from typing import Any

import numpy as np

from gueststar.cameras.check_wcs import rotation_of
from gueststar.cameras.drafting.adjacency import SOURCE, group_by_wcs
from gueststar.cameras.drafting.amplifiers import GAIN, NOISE, SATURATION, DraftAmplifier
from gueststar.cameras.drafting.guess import Guess
from gueststar.cameras.drafting.pixels import PixelFacts, measure_pixels
from gueststar.cameras.drafting.sections import Span, binning
from gueststar.cameras.header_wcs import in_detector_frame
from gueststar.formats.raw import RawFile, read_section
from gueststar.model.camera import Amplifier
from gueststar.model.wcs import Wcs

_GROUP = ("CCDNAME", "CCDNUM", "CCDID", "CCD_ID", "CHIPID", "CHIP", "DETNAME", "CCDNO")


def group_into_detectors(raw: RawFile, amplifiers: list[DraftAmplifier]) -> list[list[DraftAmplifier]]:
    """Return the amplifiers of each detector: of one image, one CCD name, one tiled area, or one WCS that runs on."""
    keys = [_group_key(raw, amplifier) for amplifier in amplifiers]
    groups: dict[Any, list[DraftAmplifier]] = {}
    for key, amplifier in zip(keys, amplifiers, strict=True):
        groups.setdefault(key, []).append(amplifier)
    if len(groups) == len(amplifiers) > 1 and not any(isinstance(key, str) for key in keys):
        if _tile_one(amplifiers):
            return [amplifiers]
        if not any(amplifier.place for amplifier in amplifiers):
            return group_by_wcs(raw, amplifiers)
    return list(groups.values())


def _group_key(raw: RawFile, amplifier: DraftAmplifier) -> str | int:
    own = amplifier.image.header if amplifier.image.index else {}
    for name in _GROUP:
        if name in own and name not in raw.primary:
            return f"{name} {own[name]}"
    return amplifier.image.index


def _tile_one(amplifiers: list[DraftAmplifier]) -> bool:
    """Whether the places of the amplifiers fill one rectangle without gap or overlap."""
    spans = [amplifier.place[1].relative_to(1, 1) for amplifier in amplifiers if amplifier.place]
    if len(spans) != len(amplifiers):
        return False
    whole = _bounding_box(spans)
    area = sum(span.size[0] * span.size[1] for span in spans)
    return area == whole.size[0] * whole.size[1] and len(set(spans)) == len(spans)


def _bounding_box(spans: list[Span]) -> Span:
    return Span(
        min(span.x1 for span in spans), max(span.x2 for span in spans),
        min(span.y1 for span in spans), max(span.y2 for span in spans),
    )  # fmt: skip


def describe_detector(raw: RawFile, amplifiers: list[DraftAmplifier], *, number: int) -> dict[str, Any]:
    """Return the keys of one detector."""
    targets, source = _targets(raw, amplifiers)
    whole = _bounding_box(targets)
    name = _detector_name(raw, amplifiers, number)
    return {
        "id": number,
        "name": name,
        "ccd": number + 1,
        "shape": [whole.y2, whole.x2],
        "readout_axis": Guess("y", "usual: charge moves along columns", "assumed"),
        "amplifiers": [
            _describe_amplifier(raw, amplifier, target, source, serial)
            for serial, (amplifier, target) in enumerate(zip(amplifiers, targets, strict=True), start=1)
        ],
    }


def _detector_name(raw: RawFile, amplifiers: list[DraftAmplifier], number: int) -> Any:
    image = amplifiers[0].image
    for key in (*_GROUP, "EXTNAME"):
        value = image.header.get(key) if len(raw.images) > 1 else None
        if value not in (None, ""):
            names = [str(amplifier.image.header.get(key, "")) for amplifier in amplifiers]
            return Guess(_common_start(names).rstrip("_- ") or str(value), key)
    return f"D{number + 1}"


def _common_start(names: list[str]) -> str:
    n_same = next((i for i, letters in enumerate(zip(*names, strict=False)) if len(set(letters)) > 1), len(min(names)))
    return names[0][:n_same]


def _targets(raw: RawFile, amplifiers: list[DraftAmplifier]) -> tuple[list[Span], Guess]:
    """Return where each amplifier's pixels go in the assembled detector, and how sure that is."""
    sizes = [amplifier.span.size for amplifier in amplifiers]
    if len(amplifiers) == 1:
        return [Span(1, sizes[0][0], 1, sizes[0][1])], Guess(None, "one amplifier")
    places = [amplifier.place for amplifier in amplifiers]
    if all(place is not None for place in places):
        told = [place for place in places if place is not None]
        corner = _bounding_box([span.relative_to(1, 1) for _, span in told])
        bins = binning(raw.cards_of(amplifiers[0].image))
        targets = [span.relative_to(corner.x1, corner.y1, bins) for _, span in told]
        if [span.size for span in targets] == sizes:
            return targets, Guess(None, told[0][0], "inferred" if told[0][0] == SOURCE else "read")
    if len({amplifier.image.index for amplifier in amplifiers}) == 1:
        order = sorted(range(len(amplifiers)), key=lambda i: (amplifiers[i].span.y1, amplifiers[i].span.x1))
        corner = _bounding_box([amplifier.span for amplifier in amplifiers])
        if corner.size[0] > sum(sizes[i][0] for i in order) or corner.size[1] == sizes[0][1]:
            return _side_by_side(sizes, order), Guess(None, "order in the image, overscans left out", "inferred")
        return [a.span.relative_to(corner.x1, corner.y1) for a in amplifiers], Guess(
            None, "place in the image", "inferred"
        )
    return _side_by_side(sizes, list(range(len(sizes)))), Guess(None, "side by side in order of extensions", "assumed")


def _side_by_side(sizes: list[tuple[int, int]], order: list[int]) -> list[Span]:
    targets: dict[int, Span] = {}
    x = 1
    for index in order:
        nx, ny = sizes[index]
        targets[index] = Span(x, x + nx - 1, 1, ny)
        x += nx
    return [targets[index] for index in range(len(sizes))]


def _describe_amplifier(
    raw: RawFile, amplifier: DraftAmplifier, target: Span, source: Guess, serial: int
) -> dict[str, Any]:
    cards, facts = raw.cards_of(amplifier.image), _measure(raw, amplifier)
    described: dict[str, Any] = {
        "name": str(amplifier.image.header.get("AMPNAME") or amplifier.suffix or serial),
        "extension": extension_of(raw, amplifier),
        "data_section": Guess(amplifier.span.text(), amplifier.data.source, amplifier.data.sureness),
        "detector_section": Guess(target.text(), source.source, source.sureness),
    }
    if amplifier.overscans:
        described["overscans"] = [_describe_overscan(raw, amplifier, item) for item in amplifier.overscans]
    if amplifier.place is not None:
        flips = zip(("flip_x", "flip_y"), amplifier.place[1].is_reversed, strict=True)
        described |= {key: Guess(True, source.source, source.sureness) for key, is_flipped in flips if is_flipped}
    gain = amplifier.number(GAIN, cards) or Guess(
        1.0, "no card tells: FILL IN or measure from pairs of flats", "assumed"
    )
    described["gain"] = gain
    described["read_noise"] = amplifier.number(NOISE, cards) or facts.read_noise(gain.value)
    described["saturation"] = amplifier.number(SATURATION, cards) or facts.saturation
    if facts.bias_level is not None:
        described["bias_level"] = facts.bias_level
    return described


def _measure(raw: RawFile, amplifier: DraftAmplifier) -> PixelFacts:
    data = read_section(raw, extension_of(raw, amplifier), amplifier.span.text())
    strips = [read_section(raw, image.index or 0, guess.value.text()).ravel() for guess, image in amplifier.overscans]
    return measure_pixels(data, np.concatenate(strips)[None, :] if strips else None)


def _describe_overscan(raw: RawFile, amplifier: DraftAmplifier, overscan: tuple[Guess, Any]) -> dict[str, Any]:
    guess, image = overscan
    described: dict[str, Any] = {"section": Guess(guess.value.text(), guess.source, guess.sureness)}
    if image.index != amplifier.image.index:
        described["extension"] = image.name or image.index
    return described


def extension_of(raw: RawFile, amplifier: DraftAmplifier) -> int | str:
    """Return how the description names an amplifier's extension: by name where that is unique, else by number."""
    image = amplifier.image
    if len(raw.images) == 1:
        return 0
    names = [item.name for item in raw.images]
    return image.name if image.name and names.count(image.name) == 1 else image.index


def wcs_on_detector(wcs: Wcs, described: dict[str, Any]) -> Wcs:
    """Return a WCS of an amplifier's extension in the frame of its detector."""
    return in_detector_frame(wcs, Amplifier.model_validate(described))


def describe_place(
    wcs: Wcs, shape: tuple[int, int], boresight: tuple[float, float], *, is_alone: bool
) -> dict[str, Any]:
    """Return the focal-plane keys that a detector's WCS implies.

    A lone detector on which the boresight lies is put on it: the rest is the telescope's pointing error.
    """
    place: dict[str, Any] = {}
    source = "WCS of the header"
    ny, nx = shape
    ra, dec = wcs.pixel_to_sky(x=(nx - 1) / 2, y=(ny - 1) / 2)
    frame = Wcs.tangent(ra=boresight[0], dec=boresight[1], x=0.0, y=0.0, scale_arcsec=1.0)
    x, y = (float(value) for value in frame.sky_to_pixel(ra=ra, dec=dec))
    is_aside = max(abs(x), abs(y)) > 0.5 * max(shape) * wcs.pixel_scale_arcsec
    if np.isfinite(x + y) and (is_aside or not is_alone):
        place |= {
            "x_arcsec": Guess(round(x, 1), source, "inferred"),
            "y_arcsec": Guess(round(y, 1), source, "inferred"),
        }
    place["rotation_deg"] = Guess(round(rotation_of(wcs), 1) + 0.0, source, "inferred")
    if wcs.parity == -1:
        place["parity"] = Guess(-1, source, "inferred")
    return place
