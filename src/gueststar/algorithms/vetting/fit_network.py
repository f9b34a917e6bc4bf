"""Train the network that looks at cut-outs, with JAX: on a GPU where JAX finds one, else on the CPU.

Three rounds of 3 x 3 convolution and pooling a view, then two dense layers that see both views and the facts (the
layout of braai, Duev et al. 2019, MNRAS 489, 3582, with two views). Adam with decoupled weight decay
(Loshchilov & Hutter 2019), a learning rate that falls as a cosine, dropout, turned and mirrored copies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gueststar.algorithms.vetting.network import StampNetwork
from gueststar.algorithms.vetting.network_graph import network_graph
from gueststar.algorithms.vetting.stamps import INPUT_VERSION, N_PLANES, NEAR_SIDE, WIDE_SIDE, StampViews
from gueststar.core.errors import ConfigError

Bools = NDArray[np.bool_]
Weights = dict[str, Any]

_N_FACTS = 2


@dataclass(frozen=True)
class NetworkConfig:
    """Size of the network and how it is trained."""

    n_epochs: int = 12
    """How often every row is shown."""
    batch: int = 256
    learning_rate: float = 2e-3
    """Of the first step."""
    weight_decay: float = 0.02
    """Part of the learning rate by which weights shrink at each step."""
    dropout: float = 0.25
    """Fraction of the dense layer's inputs that is left out at each step."""
    channels: tuple[int, int, int] = (16, 24, 32)
    """Channels of the three convolutions."""
    n_hidden: int = 48
    """Units of the dense layer."""
    seed: int = 1


def fit_network(views: StampViews, labels: Bools, *, config: NetworkConfig = NetworkConfig()) -> StampNetwork:
    """Return a network trained on views and their labels; on one machine the same input gives the same network.

    Raises ConfigError where JAX is not installed.
    """
    try:
        import jax
        import jax.numpy as jnp
    except ImportError as problem:
        raise ConfigError(f"training a network needs JAX: pip install 'gueststar[train]' ({problem})") from problem
    random = np.random.default_rng(config.seed)
    weights = {name: jnp.asarray(values) for name, values in _first_weights(random, config, labels).items()}
    rows = tuple(jnp.asarray(part.astype(np.float16)) for part in views)
    target = jnp.asarray(labels.astype(np.float32))
    n_batches = max(len(labels) // config.batch, 1)
    step = jax.jit(partial(_step, config=config, n_steps=config.n_epochs * n_batches))
    state = (weights, jax.tree.map(jnp.zeros_like, weights), jax.tree.map(jnp.zeros_like, weights), 0)
    key = jax.random.key(config.seed)
    for _ in range(config.n_epochs):
        order = random.permutation(len(labels))[: n_batches * config.batch]
        for index in np.array_split(order, n_batches):
            state = step(state, rows, target, jnp.asarray(index), jax.random.fold_in(key, state[3]))
    final = {name: np.asarray(values, dtype=np.float32) for name, values in state[0].items()}
    return StampNetwork(network_graph(final), INPUT_VERSION)


def _first_weights(random: np.random.Generator, config: NetworkConfig, labels: Bools) -> Weights:
    """Return random weights (He et al. 2015) by name; kernels are [y, x, in, out]."""
    weights: Weights = {}

    def layer(name: str, shape: tuple[int, ...]) -> None:
        spread = np.sqrt(2.0 / np.prod(shape[:-1]))
        weights[f"{name}_kernel"] = random.normal(0.0, spread, shape).astype(np.float32)
        weights[f"{name}_bias"] = np.zeros(shape[-1], dtype=np.float32)

    channels = (N_PLANES, *config.channels)
    for view in ("near", "wide"):
        for k in range(3):
            layer(f"{view}_{k}", (3, 3, channels[k], channels[k + 1]))
    n_seen = sum(_pooled(side) ** 2 for side in (NEAR_SIDE, WIDE_SIDE)) * config.channels[-1] + _N_FACTS
    layer("hidden", (n_seen, config.n_hidden))
    layer("last", (config.n_hidden, 1))
    share = float(np.clip(labels.mean(), 0.01, 0.99))
    weights["last_bias"] = np.array([np.log(share / (1.0 - share))], dtype=np.float32)
    return weights


def _pooled(side: int) -> int:
    return side // 2 // 2


def _step(state: Any, rows: Any, target: Any, index: Any, key: Any, *, config: NetworkConfig, n_steps: int) -> Any:
    """Take one step of Adam."""
    import jax
    import jax.numpy as jnp

    weights, mean, square, count = state
    turn, drop = jax.random.split(key)
    near, wide, facts = (part[index].astype(jnp.float32) for part in rows)
    near, wide = _turned((near, wide), jax.random.bernoulli(turn, shape=(3,)))
    gradient = jax.grad(_loss)(weights, (near, wide, facts), target[index], drop, config.dropout)
    rate = config.learning_rate * 0.5 * (1.0 + jnp.cos(jnp.pi * count / n_steps))
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, gradient)
    square = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g**2, square, gradient)
    scale = jnp.sqrt(1.0 - 0.999 ** (count + 1)) / (1.0 - 0.9 ** (count + 1))
    weights = jax.tree.map(
        lambda w, m, s: w - rate * (scale * m / (jnp.sqrt(s) + 1e-8) + config.weight_decay * w), weights, mean, square
    )
    return weights, mean, square, count + 1


def _turned(views: tuple[Any, Any], flips: Any) -> tuple[Any, Any]:
    """Mirror and transpose a batch: artefacts of columns on one camera are artefacts of rows on another."""
    import jax.numpy as jnp

    near, wide = views

    def one(view: Any) -> Any:
        view = jnp.where(flips[0], view[:, :, ::-1, :], view)
        view = jnp.where(flips[1], view[:, :, :, ::-1], view)
        return jnp.where(flips[2], view.transpose(0, 1, 3, 2), view)

    return one(near), one(wide)


def _loss(weights: Weights, views: Any, target: Any, key: Any, dropout: float) -> Any:
    import jax
    import jax.numpy as jnp

    odds = _log_odds(weights, views, lambda seen: _thinned(seen, key, dropout))
    return jnp.mean(jax.nn.softplus(odds) - target * odds)


def _thinned(seen: Any, key: Any, dropout: float) -> Any:
    import jax
    import jax.numpy as jnp

    kept = jax.random.bernoulli(key, 1.0 - dropout, seen.shape)
    return jnp.where(kept, seen / (1.0 - dropout), 0.0)


def _log_odds(weights: Weights, views: Any, thin: Callable[[Any], Any]) -> Any:
    """Return the log odds as `network_graph` computes them."""
    import jax
    import jax.numpy as jnp

    near, wide, facts = views
    seen = [_convolved(weights, "near", near), _convolved(weights, "wide", wide), facts]
    flat = thin(jnp.concatenate(seen, axis=1))
    hidden = jax.nn.relu(flat @ weights["hidden_kernel"] + weights["hidden_bias"])
    return (hidden @ weights["last_kernel"] + weights["last_bias"])[:, 0]


def _convolved(weights: Weights, name: str, view: Any) -> Any:
    import jax
    import jax.numpy as jnp

    x = view.transpose(0, 2, 3, 1)
    for k in range(3):
        kernel, bias = weights[f"{name}_{k}_kernel"], weights[f"{name}_{k}_bias"]
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.nn.relu(x + bias)
        if k < 2:
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
