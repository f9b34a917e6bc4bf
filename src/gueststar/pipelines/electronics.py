"""What is known of a detector's electronics, made ready for its pixels: gains, linearity, crosstalk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.response.crosstalk import subtract_crosstalk_in_place
from gueststar.algorithms.response.linearity import Linearity, LinearityTable, linearise_in_place, table_of
from gueststar.core.errors import DataError
from gueststar.model.calibration import Calibrations, CalibrationTable
from gueststar.model.camera import Amplifier, Camera, Detector, parse_section
from gueststar.model.image import Float32Image
from gueststar.model.raw import AmplifierPixels, RawDetector


class CrosstalkTerm(NamedTuple):
    """One source of crosstalk into an amplifier."""

    detector: int
    """Id of the source's detector."""
    source: str
    """Name of the source amplifier."""
    coefficient: float
    """Counts per count."""


@dataclass(frozen=True)
class Electronics:
    """Corrections of one detector by amplifier name; what is absent is not corrected."""

    linearity: Mapping[str, LinearityTable] = field(default_factory=dict)
    crosstalk: Mapping[str, tuple[CrosstalkTerm, ...]] = field(default_factory=dict)
    pedestal: Mapping[str, float] = field(default_factory=dict)
    """Zero level of amplifiers without overscan, from the bias master, ADU."""

    def corrects(self, amplifier: str) -> bool:
        """Return whether anything is to be done to an amplifier's counts."""
        return amplifier in self.linearity or amplifier in self.crosstalk

    @property
    def detectors(self) -> frozenset[int]:
        """Detectors whose signal is seen in this one, itself included where its amplifiers see each other."""
        return frozenset(term.detector for terms in self.crosstalk.values() for term in terms)


NO_ELECTRONICS = Electronics()
"""Counts are taken as they are."""


def electronics_of(known: Calibrations, detector: Detector) -> Electronics:
    """Return the corrections that a detector's calibration products ask for."""
    linearity = {} if known.linearity is None else linearity_tables(known.linearity)
    crosstalk = {} if known.crosstalk is None else crosstalk_terms(known.crosstalk)
    if not linearity and not crosstalk:
        return NO_ELECTRONICS
    pedestal = {}
    for amplifier in detector.amplifiers:
        if known.bias is not None and not amplifier.overscans:
            part = known.bias.pixels.image[parse_section(amplifier.detector_section)]
            pedestal[amplifier.name] = float(np.median(part[::4, ::4]))
    return Electronics(linearity, crosstalk, pedestal)


def seen_detectors(known: Calibrations, detector: Detector, camera: Camera) -> list[Detector]:
    """Return the other detectors whose pixels are needed to take their crosstalk out of one."""
    if known.crosstalk is None:
        return []
    seen = {term.detector for terms in crosstalk_terms(known.crosstalk).values() for term in terms}
    return [camera.detector(number) for number in sorted(seen - {detector.id})]


def linearity_tables(product: CalibrationTable) -> dict[str, LinearityTable]:
    """Return the tables of those amplifiers that need one."""
    return {name: table for name, curve in curves_of(product).items() if (table := table_of(curve)) is not None}


def curves_of(product: CalibrationTable) -> dict[str, Linearity]:
    """Return the curves of a linearity product by amplifier."""
    rows = product.tables["curves"]
    return {
        str(name): Linearity(
            rows["knots"][i][: int(rows["n_knots"][i])].astype(np.float64),
            rows["correction"][i][: int(rows["n_knots"][i])].astype(np.float64),
            rows["error"][i][: int(rows["n_knots"][i])].astype(np.float64),
            float(rows["largest_error"][i]), bool(rows["is_significant"][i]), float(rows["lamp_scatter"][i]),
            float(rows["lamp_drift_per_hour"][i]), float(rows["chi2_per_dof"][i]), int(rows["n_levels"][i]),
        )
        for i, name in enumerate(rows["amplifier"])
    }  # fmt: skip


def crosstalk_terms(product: CalibrationTable) -> dict[str, tuple[CrosstalkTerm, ...]]:
    """Return the coefficients that are not zero, by target amplifier."""
    rows = product.tables["coefficients"]
    terms: dict[str, list[CrosstalkTerm]] = {}
    for target, detector, source, value in zip(
        rows["target"], rows["source_detector"], rows["source"], rows["coefficient"], strict=True
    ):
        if value != 0.0:
            terms.setdefault(str(target), []).append(CrosstalkTerm(int(detector), str(source), float(value)))
    return {target: tuple(found) for target, found in terms.items()}


def gains_of(known: Calibrations) -> dict[str, float]:
    """Return electrons per ADU by amplifier: those the flat was made with, else those of the photon-transfer curve.

    A flat evens out what gains leave over between amplifiers, so it must meet the gains that it was made with.
    """
    if known.flat is not None and "gain_assumed" in known.flat.metadata:
        return {name: float(gain) for name, gain in known.flat.metadata["gain_assumed"].items()}
    return {} if known.photon_transfer is None else measured_gains(known.photon_transfer)


def measured_gains(product: CalibrationTable) -> dict[str, float]:
    """Return the gains of a photon-transfer product by amplifier."""
    rows = product.tables["amplifiers"]
    return {str(name): float(gain) for name, gain in zip(rows["amplifier"], rows["gain"], strict=True)}


def with_gains(detector: Detector, gains: Mapping[str, float]) -> Detector:
    """Return a detector with these gains in the place of the camera's, where there are any."""
    if not any(gains.get(a.name, a.gain) != a.gain for a in detector.amplifiers):
        return detector
    amplifiers = tuple(a.model_copy(update={"gain": gains.get(a.name, a.gain)}) for a in detector.amplifiers)
    return detector.model_copy(update={"amplifiers": amplifiers})


def read_with_gains(raw: RawDetector, gains: Mapping[str, float]) -> RawDetector:
    """Return raw pixels whose amplifiers have these gains."""
    detector = with_gains(raw.detector, gains)
    if detector is raw.detector:
        return raw
    by_name = {amplifier.name: amplifier for amplifier in detector.amplifiers}
    parts = tuple(replace(part, amplifier=by_name[part.amplifier.name]) for part in raw.amplifiers)
    return replace(raw, detector=detector, amplifiers=parts)


class Signal(NamedTuple):
    """What one amplifier read."""

    amplifier: Amplifier
    counts: Float32Image
    """ADU above zero, as the raw file has them."""
    is_saturated: NDArray[np.bool_]


Counts = Mapping[tuple[int, str], Signal]
"""By detector id and amplifier name."""


def correct_counts(detector: int, part: AmplifierPixels, counts: Counts, electronics: Electronics) -> Float32Image:
    """Return an amplifier's counts (ADU above zero) with crosstalk removed, then made proportional to light.

    Crosstalk is a matter of the voltages that are being converted, which are what other amplifiers' counts say as
    they stand; so it goes first. DataError where a source of crosstalk was not read or has another shape.
    """
    own, values = part.amplifier, counts[detector, part.amplifier.name].counts.copy()
    for term in electronics.crosstalk.get(own.name, ()):
        found = counts.get((term.detector, term.source))
        if found is None or found.counts.shape != values.shape:
            raise DataError(
                f"crosstalk into amplifier {own.name} comes from {term.source} of detector {term.detector}, which was "
                "not read, or in another shape: is the camera file that of the crosstalk's?"
            )
        flip_x, flip_y = _flips(own, found.amplifier)
        subtract_crosstalk_in_place(values, found.counts, term.coefficient, flip_x=flip_x, flip_y=flip_y)
    if own.name in electronics.linearity:
        linearise_in_place(values, electronics.linearity[own.name])
    return values


def ill_corrected(detector: int, part: AmplifierPixels, counts: Counts, electronics: Electronics) -> NDArray[np.bool_]:
    """Return the pixels whose crosstalk is from saturated ones, of which the true signal is not known, and matters.

    It matters if it exceeds the read noise. As the raw file has them.
    """
    own = part.amplifier
    is_ill = np.zeros(part.data.shape, bool)
    for term in electronics.crosstalk.get(own.name, ()):
        source = counts[term.detector, term.source]
        if abs(term.coefficient) * source.amplifier.saturation > own.read_noise / own.gain:
            flip_x, flip_y = _flips(own, source.amplifier)
            is_ill |= source.is_saturated[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    return is_ill


def _flips(own: Amplifier, other: Amplifier) -> tuple[bool, bool]:
    """Return whether another amplifier's pixels must be mirrored along x and y to meet those read at their moment."""
    return other.reads_from_right != own.reads_from_right, other.reads_from_top != own.reads_from_top


def as_read(part: NDArray[Any], amplifier: Amplifier, axis: str, *, is_assembled: bool = True) -> NDArray[Any]:
    """Return a view of an amplifier's pixels in which reading goes along the second axis, the first read first.

    ``is_assembled`` says whether they lie as in the detector image, or as in the raw file.
    """
    is_right = amplifier.reads_from_right != (amplifier.flip_x and is_assembled)
    is_top = amplifier.reads_from_top != (amplifier.flip_y and is_assembled)
    turned = part[:: -1 if is_top else 1, :: -1 if is_right else 1]
    return turned if axis == "x" else np.swapaxes(turned, 0, 1)
