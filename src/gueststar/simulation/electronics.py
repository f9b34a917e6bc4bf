"""What amplifiers do to charge: loss in transfer, counts that are not proportional, crosstalk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gueststar.model.camera import Amplifier, Detector
from gueststar.model.catalog import Catalog, Column, Schema, concatenate
from gueststar.simulation.charge import area_changes, trail_in_place
from gueststar.simulation.scenario import DetectorPlan
from gueststar.simulation.seeds import generator_for

Image = NDArray[np.float32]

TRUE_AMPLIFIER = Schema(
    "true_amplifier",
    (
        Column("detector", "i4", "", "detector id"),
        Column("amplifier", "U32", "", "name"),
        Column("gain", "f8", "electron/adu", "electrons per count, for few electrons"),
        Column("read_noise", "f8", "electron", "read noise"),
        Column(
            "nonlinearity", "f8", "", "fraction of the counts that is missing at full_scale, growing with the counts"
        ),
        Column("full_scale", "f8", "adu", "counts above zero at which that is so"),
        Column("transfer_inefficiency", "f8", "", "fraction of the charge that each transfer along x leaves behind"),
        Column("repulsion", "f8", "1/electron", "fraction of its area that a pixel loses for each electron in it"),
    ),
)

TRUE_CROSSTALK = Schema(
    "true_crosstalk",
    (
        Column("detector", "i4", "", "detector id"),
        Column("target", "U32", "", "amplifier that sees another's signal"),
        Column("source", "U32", "", "that other amplifier"),
        Column("coefficient", "f8", "", "counts in the target per count in the source"),
    ),
)


@dataclass(frozen=True, eq=False)
class ElectronicsTruth:
    """How one detector's amplifiers answer, by name."""

    nonlinearity: dict[str, float]
    """Fraction of the counts that is missing at full scale."""
    full_scale: dict[str, float]
    """ADU above zero."""
    crosstalk: dict[tuple[str, str], float]
    """(target, source) -> counts per count."""


def make_electronics(detector: Detector, plan: DetectorPlan, *, seed: int) -> ElectronicsTruth:
    """Return how the amplifiers of one detector answer."""
    random = generator_for(seed, "electronics", detector.id)
    names = [amplifier.name for amplifier in detector.amplifiers]
    bend = {name: plan.nonlinearity * (1.0 + 0.2 * float(random.normal())) for name in names}
    zero = {a.name: a.bias_level if a.bias_level > 0 else plan.bias_adu for a in detector.amplifiers}
    scale = {a.name: a.saturation - zero[a.name] for a in detector.amplifiers}
    crosstalk = {
        (target, source): plan.crosstalk * (1.0 + plan.crosstalk_scatter * float(random.normal()))
        for target in names for source in names if target != source
    }  # fmt: skip
    return ElectronicsTruth(bend, scale, crosstalk)


def compressed(counts: Image, amplifier: Amplifier, truth: ElectronicsTruth) -> Image:
    """Return counts (above zero, ADU) as a bending amplifier gives them."""
    bend = truth.nonlinearity[amplifier.name]
    if bend == 0.0:
        return counts
    return counts * (1.0 - np.float32(bend / truth.full_scale[amplifier.name]) * counts)


def crosstalk_of(
    amplifier: Amplifier, detector: Detector, signals: dict[str, Image], truth: ElectronicsTruth
) -> Image | np.float32:
    """Return what an amplifier sees of the others of its shape, ADU; pixels that are read together meet."""
    total: Image | np.float32 = np.float32(0.0)
    own = signals[amplifier.name]
    for source in detector.amplifiers:
        coefficient = truth.crosstalk.get((amplifier.name, source.name), 0.0)
        signal = signals[source.name]
        if coefficient and signal.shape == own.shape:
            y = -1 if source.reads_from_top != amplifier.reads_from_top else 1
            x = -1 if source.reads_from_right != amplifier.reads_from_right else 1
            total = total + np.float32(coefficient) * signal[::y, ::x]
    return total


def trailed(charge: Image, amplifier: Amplifier, plan: DetectorPlan) -> tuple[Image, Image | None]:
    """Return the charge that arrives, and what the last pixels left to be read behind them (None: nothing)."""
    if not plan.transfer_inefficiency or amplifier.reads_from_right:
        return charge, None
    beyond = 2
    read = np.pad(charge, ((0, 0), (0, beyond))).astype(np.float32)
    trail_in_place(read, plan.transfer_inefficiency)
    return read[:, :-beyond], read[:, -beyond:]


def electronics_tables(
    detectors: tuple[Detector, ...], plan: DetectorPlan, *, seed: int
) -> tuple[Catalog, Catalog, list[list[float]]]:
    """Return the truth of all amplifiers, of all pairs of them, and the area changes of pixels by lag."""
    amplifiers, pairs = [TRUE_AMPLIFIER.empty()], [TRUE_CROSSTALK.empty()]
    for detector in detectors:
        truth = make_electronics(detector, plan, seed=seed)
        n = len(detector.amplifiers)
        names = np.array([amplifier.name for amplifier in detector.amplifiers])
        amplifiers.append(
            TRUE_AMPLIFIER.catalog(
                {
                    "detector": np.full(n, detector.id), "amplifier": names,
                    "gain": np.array([a.gain for a in detector.amplifiers]),
                    "read_noise": np.array([a.read_noise for a in detector.amplifiers]),
                    "nonlinearity": np.array([truth.nonlinearity[name] for name in names]),
                    "full_scale": np.array([truth.full_scale[name] for name in names]),
                    "transfer_inefficiency": np.full(n, plan.transfer_inefficiency),
                    "repulsion": np.full(n, plan.repulsion),
                }
            )
        )  # fmt: skip
        if truth.crosstalk:
            pairs.append(
                TRUE_CROSSTALK.catalog(
                    {
                        "detector": np.full(len(truth.crosstalk), detector.id),
                        "target": np.array([target for target, _ in truth.crosstalk]),
                        "source": np.array([source for _, source in truth.crosstalk]),
                        "coefficient": np.array(list(truth.crosstalk.values())),
                    }
                )
            )
    changes = area_changes(plan.repulsion, 8).tolist() if plan.repulsion else []
    return concatenate(amplifiers), concatenate(pairs), changes
