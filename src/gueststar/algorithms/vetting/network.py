"""The network that looks at cut-outs, as an ONNX graph that onnxruntime evaluates."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.vetting.stamps import StampViews

if TYPE_CHECKING:
    import onnxruntime

_BATCH = 256


@dataclass(frozen=True, eq=False)
class StampNetwork:
    """A convolutional network from `StampViews` to the log odds of being real."""

    graph: bytes
    """ONNX model with the inputs ``near``, ``wide``, ``facts`` and the output ``log_odds`` ``[n]``."""
    input_version: int
    """`INPUT_VERSION` of the views that it was trained on."""

    @cached_property
    def version(self) -> str:
        """Name on the wire (``drbversion``): version of the views and a digest of the graph."""
        return f"network_s{self.input_version}_{hashlib.blake2b(self.graph, digest_size=3).hexdigest()}"

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        import onnxruntime  # imported when a network is first asked: 0.1 s

        options: Any = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # workers are processes
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(self.graph, options, providers=["CPUExecutionProvider"])

    def log_odds(self, views: StampViews) -> NDArray[np.float64]:
        """Return the log odds ``[n]`` of every candidate, in batches of bounded memory."""
        found = np.zeros(views.n)
        for start in range(0, views.n, _BATCH):
            part = views.select(slice(start, start + _BATCH))
            found[start : start + _BATCH] = self._session.run(["log_odds"], part._asdict())[0]
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Leave the session behind: it is made again where the network is unpickled."""
        return {"graph": self.graph, "input_version": self.input_version}
