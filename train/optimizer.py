"""LARS and RMSProp as TensorFlow's EfficientNet has them, for optax."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import (
  DictKey,
  GetAttrKey,
  KeyPath,
  tree_leaves_with_path,
)

from ..kernels.lars import lars_update
from .config import OptimizerConfig

PyTree = Any
Predicate = Callable[[KeyPath, jax.Array], bool]


def parameter_name(path: KeyPath) -> str:
  """The last name in a key path: `kernel`, `bias`, `scale`, ...

  Indices are passed over, and so is the `.value` that `flax.nnx` and
  `flax.linen` put behind the name of a variable.

  >>> parameter_name((DictKey("stem"), DictKey("kernel"), GetAttrKey("value")))
  'kernel'
  """
  for key in reversed(path):
    if isinstance(key, GetAttrKey) and key.name != "value":
      return key.name
    if isinstance(key, DictKey) and isinstance(key.key, str):
      return key.key
  return ""


def is_batch_norm(path: KeyPath, leaf: object = None) -> bool:
  """Whether this is batch norm's `scale` or `offset`: the L2 loss skips it."""
  del leaf
  return parameter_name(path) in ("scale", "offset")


def is_bias_or_batch_norm(path: KeyPath, leaf: object = None) -> bool:
  """Whether this is a bias or batch norm's: LARS gives it the raw rate."""
  return parameter_name(path) == "bias" or is_batch_norm(path)


def l2_penalty(params: PyTree, exclude: Predicate = is_batch_norm) -> jax.Array:
  """Half the squared norm of all parameters but the excluded ones.

  Biases are in it, batch norm is not, as in TensorFlow's EfficientNet
  (`main.py`: `tf.nn.l2_loss` over all that lacks `batch_normalization` in its
  name). The caller multiplies by the coefficient.

  Args:
    params: tree of arrays.
    exclude: called with each leaf's key path and the leaf.

  Returns:
    A float32 scalar.

  >>> params = {"kernel": jnp.array([3.0, 4.0]), "scale": jnp.ones(2)}
  >>> float(l2_penalty(params))
  12.5
  """
  squares = [
    jnp.sum(jnp.square(leaf.astype(jnp.float32)))
    for path, leaf in tree_leaves_with_path(params)
    if not exclude(path, leaf)
  ]
  return 0.5 * sum(squares, start=jnp.float32(0))


class LarsState(NamedTuple):
  """State of `lars`.

  Attributes:
    count: int32 scalar; the updates done so far.
    momenta: tree like the parameters, at least float32; the momentum buffers,
      which hold the learning rate of the steps they come from.
  """

  count: jax.Array  # type: ignore[assignment]  # hides tuple.count
  momenta: PyTree


def lars(
  learning_rate: optax.ScalarOrSchedule,
  *,
  weight_decay: float,
  trust_coefficient: float = 0.001,
  momentum: float = 0.9,
  epsilon: float = 0.0,
  exclude: Predicate = is_bias_or_batch_norm,
) -> optax.GradientTransformation:
  """LARS with TensorFlow's formula: `podscale.kernels.lars_update` for optax.

  `optax.lars` divides by another norm and adapts everything unless told not to;
  see `lars_update` for the formula. To wrap this in
  `optax.inject_hyperparams`, say `static_args="exclude"`.

  Args:
    learning_rate: a scalar, or a function of the number of updates done.
    weight_decay: decay of the adapted parameters.
    trust_coefficient: factor of the trust ratio.
    momentum: share of the momentum buffer that stays.
    epsilon: added to the trust ratio's denominator.
    exclude: called with each parameter's key path and value; true leaves out
      trust ratio and decay. By default biases and batch norm.

  Returns:
    An `optax.GradientTransformation` whose update needs the parameters.

  >>> params = {"kernel": jnp.array([3.0, 4.0])}
  >>> optimizer = lars(2.5, weight_decay=0.25, trust_coefficient=0.5)
  >>> state = optimizer.init(params)
  >>> grads = {"kernel": jnp.array([0.0, 5.0])}
  >>> updates, state = optimizer.update(grads, state, params)
  >>> print(optax.apply_updates(params, updates)["kernel"])
  [ 2.25 -2.  ]
  """

  def init(params):
    return LarsState(
      count=jnp.zeros([], jnp.int32),
      momenta=jax.tree.map(_zeros_at_least_float32, params),
    )

  def update(grads, state, params=None):
    if params is None:
      raise ValueError(
        "lars needs the parameters: update(grads, state, params)"
      )
    rate = (
      learning_rate(state.count) if callable(learning_rate) else learning_rate
    )
    # The new parameters are not used, and XLA drops what computes them.
    _, momenta = lars_update(
      params,
      grads,
      state.momenta,
      learning_rate=rate,
      weight_decay=weight_decay,
      trust_coefficient=trust_coefficient,
      momentum=momentum,
      epsilon=epsilon,
      exclude=exclude,
    )
    updates = jax.tree.map(lambda v, g: -v.astype(g.dtype), momenta, grads)
    count = optax.safe_increment(state.count)
    return updates, LarsState(count, momenta)

  return optax.GradientTransformation(init, update)


def _zeros_at_least_float32(param):
  wide = jnp.finfo(param.dtype).bits > 32
  return jnp.zeros_like(param, dtype=param.dtype if wide else jnp.float32)


def rmsprop(
  learning_rate: optax.ScalarOrSchedule,
  decay: float = 0.9,
  momentum: float = 0.9,
  epsilon: float = 0.001,
) -> optax.GradientTransformation:
  """RMSProp with the semantics of TensorFlow 1.

      m = decay * m + (1 - decay) * g ** 2           # starts at 1, not at 0
      v = momentum * v + learning_rate * g / sqrt(m + epsilon)
      w = w - v

  optax can do exactly this; only its defaults are others.

  Args:
    learning_rate: a scalar, or a function of the number of updates done.
    decay: share of the mean square that stays.
    momentum: share of the momentum buffer that stays.
    epsilon: added to the mean square, inside the root.

  Returns:
    An `optax.GradientTransformation`.

  Source: `tf.compat.v1.train.RMSPropOptimizer`, kernel `ApplyRMSProp`.
  """
  return optax.rmsprop(
    learning_rate,
    decay=decay,
    eps=epsilon,
    initial_scale=1.0,
    eps_in_sqrt=True,
    momentum=momentum,
  )


def make_optimizer(
  config: OptimizerConfig, schedule: optax.Schedule
) -> optax.GradientTransformation:
  """The optimizer of a run; `config.l2` belongs to the loss, not to it."""
  if config.name == "lars":
    return lars(
      schedule,
      weight_decay=config.lars_weight_decay,
      trust_coefficient=config.lars_trust_coefficient,
      momentum=config.momentum,
      epsilon=config.lars_epsilon,
    )
  return rmsprop(
    schedule,
    decay=config.rmsprop_decay,
    momentum=config.momentum,
    epsilon=config.rmsprop_epsilon,
  )
