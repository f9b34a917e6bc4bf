"""Random numbers that depend on what they are for, never on the order of the work."""

from __future__ import annotations

import numpy as np

from gueststar.core.ids import content_id


def generator_for(seed: int, *parts: object) -> np.random.Generator:
    """Return the generator of one named thing, such as ``(seed, "readout", exposure, detector)``.

    The same seed and name give the same numbers in any process and in any order; different names give
    independent streams.
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, content_id(*parts)])))
