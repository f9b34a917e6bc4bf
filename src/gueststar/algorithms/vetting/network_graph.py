"""Write the weights of the network as an ONNX graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.vetting.stamps import N_PLANES, NEAR_SIDE, WIDE_SIDE
from gueststar.core.errors import ConfigError

_OPSET = 17
_IR_VERSION = 8
"""Old enough for every onnxruntime of the last years."""


def network_graph(weights: dict[str, NDArray[np.float32]]) -> bytes:
    """Return the ONNX model of weights by name, kernels ``[y, x, in, out]``; raises ConfigError without ``onnx``."""
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as problem:
        raise ConfigError(f"writing a network needs onnx: pip install 'gueststar[train]' ({problem})") from problem
    nodes: list[Any] = []
    constants = {name: _as_onnx(values) for name, values in weights.items()}
    for view in ("near", "wide"):
        nodes += _view_nodes(helper, view)
    nodes += [
        helper.make_node("Concat", ["near_flat", "wide_flat", "facts"], ["seen"], axis=1),
        helper.make_node("Gemm", ["seen", "hidden_kernel", "hidden_bias"], ["hidden_sum"]),
        helper.make_node("Relu", ["hidden_sum"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "last_kernel", "last_bias"], ["column"]),
        helper.make_node("Squeeze", ["column", "last_axis"], ["log_odds"]),
    ]
    constants["last_axis"] = np.array([1], dtype=np.int64)
    inputs = [
        helper.make_tensor_value_info("near", TensorProto.FLOAT, ["n", N_PLANES, NEAR_SIDE, NEAR_SIDE]),
        helper.make_tensor_value_info("wide", TensorProto.FLOAT, ["n", N_PLANES, WIDE_SIDE, WIDE_SIDE]),
        helper.make_tensor_value_info("facts", TensorProto.FLOAT, ["n", 2]),
    ]
    output = helper.make_tensor_value_info("log_odds", TensorProto.FLOAT, ["n"])
    tensors = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "stamp_network", inputs, [output], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _view_nodes(helper: Any, view: str) -> list[Any]:
    nodes, x = [], view
    for k in range(3):
        name = f"{view}_{k}"
        nodes.append(
            helper.make_node(
                "Conv", [x, f"{name}_kernel", f"{name}_bias"], [f"{name}_sum"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]
            )
        )
        nodes.append(helper.make_node("Relu", [f"{name}_sum"], [f"{name}_out"]))
        x = f"{name}_out"
        if k < 2:
            nodes.append(helper.make_node("MaxPool", [x], [f"{name}_pool"], kernel_shape=[2, 2], strides=[2, 2]))
            x = f"{name}_pool"
    nodes.append(helper.make_node("Flatten", [x], [f"{view}_flat"], axis=1))
    return nodes


def _as_onnx(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return kernels of convolutions as [out, in, y, x], all else as it is."""
    return np.ascontiguousarray(values.transpose(3, 2, 0, 1)) if values.ndim == 4 else values
