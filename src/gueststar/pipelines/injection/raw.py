"""Artificial sources put into the counts of a raw exposure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.photocal.spatial import ZeroPointMap
from gueststar.algorithms.photometry.artificial import with_photon_noise
from gueststar.algorithms.photometry.bleeding import bleed_in_place
from gueststar.algorithms.response.crosstalk import subtract_crosstalk_in_place
from gueststar.algorithms.response.linearity import linearise_in_place, measured_counts
from gueststar.model.calibration import CalibrationMaster, Calibrations
from gueststar.model.camera import parse_section
from gueststar.model.image import CalibratedImage
from gueststar.model.raw import AmplifierPixels, RawDetector
from gueststar.pipelines.calibration._prepare import correct_shutter_in_place
from gueststar.pipelines.electronics import Electronics, electronics_of, gains_of, read_with_gains
from gueststar.pipelines.injection.inject import light_of
from gueststar.pipelines.injection.place import ArtificialSources

Electrons = NDArray[np.float32]

ADC_MAXIMUM = 65535.0


class InjectRaw:
    """Turn the light of artificial sources back into what the amplifiers would have written."""

    def run(
        self, raw: RawDetector, image: CalibratedImage, sources: ArtificialSources, calibrations: Calibrations, *,
        random: np.random.Generator, levelled_by: ZeroPointMap | None = None,
    ) -> RawDetector:  # fmt: skip
        """Return ``raw`` with the light of ``sources`` in its counts.

        ``image`` is what the chain made of the same exposure: its PSF and zero point say how much light a magnitude
        is. That light is unlevelled (by the zero point's change over the detector), weakened by shutter, flat and
        illumination, made a Poisson number of electrons, added to the charge that is there, bled where a pixel
        overflows, divided by the gain and bent by non-linearity, amplifier by amplifier, and seen by the others through
        crosstalk. Overscans stay. Sources that have faded do not shine here.
        """
        raw = read_with_gains(raw, gains_of(calibrations))
        light = light_of(image, sources, sources.flux > 0)
        if levelled_by is not None:
            light /= levelled_by.factor_image()
        if calibrations.shutter is not None:
            shortened = np.ones(raw.detector.shape, np.float32)
            correct_shutter_in_place(shortened, calibrations.shutter, raw.info.exposure_s)
            light /= shortened
        for response in (calibrations.flat, calibrations.illumination):
            if response is not None:
                light *= _sensitivity(response)
        added = with_photon_noise(light, random=random)
        charge, well = _charge_and_well(raw)
        total = charge + added
        bleed_in_place(total, np.maximum(well, charge), readout_axis=raw.detector.readout_axis)
        more = _counts_more(raw, total - charge, electronics_of(calibrations, raw.detector))
        return replace(raw, amplifiers=tuple(_rewritten(part, more[part.amplifier.name]) for part in raw.amplifiers))


def _sensitivity(response: CalibrationMaster) -> NDArray[np.float32]:
    """Return the relative response of the pixels; what is not known or negative sees nothing."""
    values = response.pixels.image
    return np.where(np.isfinite(values) & (values > 0), values, np.float32(0.0))


def _charge_and_well(raw: RawDetector) -> tuple[Electrons, Electrons]:
    """Return the electrons that each pixel of the detector holds, and those at which it overflows."""
    charge, well = np.empty(raw.detector.shape, np.float32), np.empty(raw.detector.shape, np.float32)
    for part in raw.amplifiers:
        amplifier, zero = part.amplifier, _zero_level(part)
        target = parse_section(amplifier.detector_section)
        charge[target] = _mirrored(part, np.nan_to_num(part.data) - np.float32(zero)) * np.float32(amplifier.gain)
        # One count more, so that a full pixel is seen to be saturated.
        well[target] = (amplifier.saturation - zero + 1.0) * amplifier.gain
    return charge, well


def _counts_more(raw: RawDetector, added: Electrons, electronics: Electronics) -> dict[str, NDArray[np.float32]]:
    """Return by how much each amplifier's counts grow, in the raw file's orientation, by name."""
    more, parts = {}, {part.amplifier.name: part for part in raw.amplifiers}
    for name, part in parts.items():
        light = _mirrored(part, added[parse_section(part.amplifier.detector_section)])
        more[name] = (light / np.float32(part.amplifier.gain)).astype(np.float32)
        if (table := electronics.linearity.get(name)) is not None:
            lit = more[name] != 0
            before = (part.data[lit] - np.float32(_zero_level(part)))[None].astype(np.float32)
            straight = before.copy()
            linearise_in_place(straight, table)
            more[name][lit] = (measured_counts(straight + more[name][lit], table) - before)[0]
    seen = {name: counts.copy() for name, counts in more.items()}
    for target, terms in electronics.crosstalk.items():
        for term in terms:
            if term.detector == raw.detector.id and target in more and term.source in more:
                own, source = parts[target].amplifier, parts[term.source].amplifier
                subtract_crosstalk_in_place(
                    seen[target], more[term.source], -term.coefficient,
                    flip_x=source.reads_from_right != own.reads_from_right,
                    flip_y=source.reads_from_top != own.reads_from_top,
                )  # fmt: skip
    return seen


def _rewritten(part: AmplifierPixels, more: NDArray[np.float32]) -> AmplifierPixels:
    """Return an amplifier's pixels with counts added; whole counts stay whole."""
    is_lit = more != 0
    counts = part.data[is_lit]
    sums = counts + more[is_lit]
    if counts.size and np.all(counts == np.rint(counts)):
        sums = np.clip(np.rint(sums), None, max(ADC_MAXIMUM, float(counts.max())))
    data = part.data.copy()
    data[is_lit] = sums
    return AmplifierPixels(part.amplifier, data, part.overscans)


def _mirrored(part: AmplifierPixels, pixels: Electrons) -> Electrons:
    """Carry pixels from the raw file's orientation to the detector's, or back."""
    return pixels[:: -1 if part.amplifier.flip_y else 1, :: -1 if part.amplifier.flip_x else 1]


def _zero_level(part: AmplifierPixels) -> float:
    """Return the counts of a pixel without charge, roughly."""
    levels = [float(np.median(overscan)) for overscan in part.overscans if overscan.size]
    return float(np.median(levels)) if levels else part.amplifier.bias_level
