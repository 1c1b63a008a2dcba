"""LARS and RMSProp with the formulas of TensorFlow's EfficientNet."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import DictKey, GetAttrKey, KeyPath
from jax.typing import ArrayLike

from ..kernels import Packed, Shard, lars_update
from ..kernels.surface import Variant, lars_steps, rows_here
from .settings.config import OptimizerConfig

PyTree = Any
Predicate = Callable[..., bool]  # (key path, leaf); the leaf is optional


def parameter_name(path: KeyPath) -> str:
  """Return the last name in a key path, such as `kernel`, `bias` or `scale`.

  The function skips indices, and the `.value` that `flax.nnx` and `flax.linen`
  append to the name of a variable.

  >>> parameter_name((DictKey("stem"), DictKey("kernel"), GetAttrKey("value")))
  'kernel'
  """
  return [*_names(path), ""][0]


def is_batch_norm(path: KeyPath, leaf: object = None) -> bool:
  """Tell if a parameter belongs to a batch norm; L2 skips those.

  It does if its name is `scale` or `offset`, or if the name of its owner
  contains "norm", as in flax, Haiku and Equinox.

  >>> is_batch_norm((DictKey("BatchNorm_0"), DictKey("bias")))
  True
  """
  del leaf
  name, owner = [*_names(path), "", ""][:2]
  return name in ("scale", "offset") or "norm" in owner.lower()


def is_bias_or_batch_norm(path: KeyPath, leaf: object = None) -> bool:
  """Tell if LARS skips a parameter: a bias (`bias` or `b`), or batch norm's."""
  return parameter_name(path) in ("bias", "b") or is_batch_norm(path)


def _names(path: KeyPath) -> list[str]:
  """List the names in a key path, the last first."""
  names = []
  for key in reversed(path):
    if isinstance(key, GetAttrKey) and key.name != "value":
      names.append(key.name)
    if isinstance(key, DictKey) and isinstance(key.key, str):
      names.append(key.key)
  return names


def l2_penalty(
  params: Packed, shard: Shard | None = None, exclude: Predicate = is_batch_norm
) -> tuple[jax.Array, Packed]:
  """Compute half the squared norm of the parameters, and its gradient.

  By default biases count and batch norm does not, as in TensorFlow's
  EfficientNet (`main.py` applies `tf.nn.l2_loss` to every variable whose name
  lacks `batch_normalization`). The caller multiplies by the coefficient.

  Args:
    params: Weights, or this device's shard of them.
    shard: Index of that shard; None if `params` is whole.
    exclude: Function of a leaf's key path; True leaves the leaf out.

  Returns:
    The penalty of this shard alone, a float32 scalar, and its gradient.

  >>> tree = {"kernel": jnp.array([3.0, 4.0]), "scale": jnp.ones(2)}
  >>> penalty, gradient = l2_penalty(Packed.of(tree))
  >>> float(penalty), gradient.unpack()
  (12.5, {'kernel': Array([3., 4.], dtype=float32), 'scale': \
Array([0., 0.], dtype=float32)})
  """
  packing = params.packing
  counts = np.array([not exclude(path) for path in packing.paths], np.float32)
  factors = rows_here(counts[packing.leaf_of_register], params, shard)
  gradient = factors * params.buffer
  return 0.5 * jnp.sum(gradient * params.buffer), Packed(gradient, packing)


class LarsState(NamedTuple):
  """State of `lars`.

  Attributes:
    count: Number of updates done, an int32 scalar.
    momenta: Momentum buffers, a tree like the parameters in at least float32.
      They already contain the learning rate of the steps they sum.
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
  nesterov: bool = False,
  variant: Variant = "tensorflow",
  exclude: Predicate = is_bias_or_batch_norm,
) -> optax.GradientTransformation:
  """Make LARS with TensorFlow's formula, for optax.

  `optax.lars` divides by a different norm and adapts every parameter by
  default; `podscale.kernels.lars_update` has the formulas. To wrap the result
  in `optax.inject_hyperparams`, pass `static_args=("exclude", "nesterov")`.

  Args:
    learning_rate: Scalar, or function of the number of updates done.
    weight_decay: Weight decay of the adapted parameters.
    trust_coefficient: Factor of the trust ratio.
    momentum: Share of the momentum buffer that a step keeps.
    epsilon: Term added to the trust ratio's denominator.
    nesterov: True to step by the momentum's next value.
    variant: "tensorflow", "optax" or "scaled".
    exclude: Function of a parameter's key path and value; True leaves out
      trust ratio and decay. The default excludes biases and batch norm.

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
    steps, momenta = lars_steps(
      *(params, grads, state.momenta),
      learning_rate=rate,
      weight_decay=weight_decay,
      trust_coefficient=trust_coefficient,
      momentum=momentum,
      epsilon=epsilon,
      nesterov=nesterov,
      variant=variant,
      exclude=exclude,
    )
    updates = jax.tree.map(lambda x, g: -x.astype(g.dtype), steps, grads)
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
  """Make RMSProp with the semantics of TensorFlow 1, for optax.

      m = decay * m + (1 - decay) * g ** 2           # starts at 1, not at 0
      v = momentum * v + learning_rate * g / sqrt(m + epsilon)
      w = w - v

  This is `optax.rmsprop` with different defaults.

  Args:
    learning_rate: Scalar, or function of the number of updates done.
    decay: Share of the mean square that a step keeps.
    momentum: Share of the momentum buffer that a step keeps.
    epsilon: Term added to the mean square, inside the root.

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


class LarsBuffers(NamedTuple):
  """State of LARS in a training run, whose `TrainState.step` counts the steps.

  Attributes:
    momenta: Momentum buffers, packed as the weights are.
  """

  momenta: Packed


class Optimizer(NamedTuple):
  """Update rule of a training run for its packed weights.

  The caller passes the learning rate, so that a run has a single step counter.

  Attributes:
    init: Function from the weights to the first state.
    update: Function from the weights, their gradients, the state, this device's
      shard (None for the whole buffer) and the learning rate to the new weights
      and the new state.
  """

  init: Callable[[Packed], PyTree]
  update: Callable[
    [Packed, Packed, PyTree, Shard | None, ArrayLike], tuple[Packed, PyTree]
  ]


def make_optimizer(config: OptimizerConfig) -> Optimizer:
  """Make the optimizer of a training run.

  Args:
    config: Settings. The loss applies `config.l2`; the optimizer ignores it.

  >>> optimizer = make_optimizer(OptimizerConfig(name="lars"))
  >>> params = Packed.of({"kernel": jnp.array([3.0, 4.0])})
  >>> state = optimizer.init(params)
  >>> params, state = optimizer.update(params, params, state, None, 0.1)
  """
  if config.name == "rmsprop":
    # XLA fuses the update of a single buffer into one pass.
    return Optimizer(rmsprop(0.0).init, partial(_apply_rmsprop, config))
  return Optimizer(_init_lars, partial(_apply_lars, config))


def make_transformation(
  config: OptimizerConfig, learning_rate: optax.ScalarOrSchedule
) -> optax.GradientTransformation:
  """Make the same optimizer for optax, for trees of tensors.

  Args:
    config: Settings.
    learning_rate: Scalar, or function of the number of updates done.
  """
  if config.name == "lars":
    return lars(learning_rate, **_lars_settings(config))
  return rmsprop(
    learning_rate,
    decay=config.rmsprop_decay,
    momentum=config.momentum,
    epsilon=config.rmsprop_epsilon,
  )


def _lars_settings(config: OptimizerConfig) -> dict[str, Any]:
  return {
    "weight_decay": config.lars_weight_decay,
    "trust_coefficient": config.lars_trust_coefficient,
    "momentum": config.momentum,
    "epsilon": config.lars_epsilon,
  }


def _init_lars(params):
  return LarsBuffers(jax.tree.map(_zeros_at_least_float32, params))


def _apply_lars(config, params, grads, state, shard, learning_rate):
  """Update the weights in place, without writing the updates to memory."""
  params, momenta = lars_update(
    *(params, grads, state.momenta),
    learning_rate=learning_rate,
    exclude=is_bias_or_batch_norm,
    shard=shard,
    **_lars_settings(config),
  )
  return params, LarsBuffers(momenta)


def _apply_rmsprop(config, params, grads, state, shard, learning_rate):
  del shard
  transformation = make_transformation(config, learning_rate)
  updates, state = transformation.update(grads, state, params)
  return optax.apply_updates(params, updates), state
