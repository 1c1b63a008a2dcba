"""LARS and RMSProp as TensorFlow's EfficientNet has them, for optax."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import DictKey, GetAttrKey, KeyPath

from ..kernels import Packed, Shard, lars_update
from ..kernels.surface import Variant, lars_steps, rows_here
from .settings.config import OptimizerConfig

PyTree = Any
Predicate = Callable[..., bool]  # of a key path and, where given, the leaf


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


def l2_penalty(
  params: Packed, shard: Shard | None = None, exclude: Predicate = is_batch_norm
) -> tuple[jax.Array, Packed]:
  """Half the squared norm of all parameters but the excluded ones.

  Biases are in it, batch norm is not, as in TensorFlow's EfficientNet
  (`main.py`: `tf.nn.l2_loss` over all that lacks `batch_normalization` in its
  name). The caller multiplies by the coefficient.

  Args:
    params: the weights, or this device's shard of them.
    shard: which one.
    exclude: called with each leaf's key path.

  Returns:
    A float32 scalar, of the shard alone; and its gradient.

  >>> tree = {"kernel": jnp.array([3.0, 4.0]), "scale": jnp.ones(2)}
  >>> penalty, gradient = l2_penalty(Packed.of(tree))
  >>> float(penalty), gradient.unpack()
  (12.5, {'kernel': Array([3., 4.], dtype=float32), 'scale': \
Array([0., 0.], dtype=float32)})
  """
  packing = params.packing
  counts = np.array([not exclude(path) for path in packing.paths], np.float32)
  of_rows = rows_here(counts[packing.leaf_of_register], params, shard)
  gradient = of_rows * params.buffer
  return 0.5 * jnp.sum(gradient * params.buffer), Packed(gradient, packing)


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
  nesterov: bool = False,
  variant: Variant = "tensorflow",
  exclude: Predicate = is_bias_or_batch_norm,
) -> optax.GradientTransformation:
  """LARS with TensorFlow's formula: `podscale.kernels.lars_update` for optax.

  `optax.lars` divides by another norm and adapts everything unless told not to;
  see `lars_update` for the formulas. To wrap this in
  `optax.inject_hyperparams`, say `static_args=("exclude", "nesterov")`.

  Args:
    learning_rate: a scalar, or a function of the number of updates done.
    weight_decay: decay of the adapted parameters.
    trust_coefficient: factor of the trust ratio.
    momentum: share of the momentum buffer that stays.
    epsilon: added to the trust ratio's denominator.
    nesterov: whether to step by the momentum's next value.
    variant: "tensorflow", "optax" or "scaled".
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


class Optimizer(NamedTuple):
  """How a training run updates its packed weights.

  Attributes:
    init: Function of the weights to the first state.
    update: Function of the weights, their gradients, the state and which shard
      of them this device has, to the new weights and the new state.
  """

  init: Callable[[Packed], PyTree]
  update: Callable[[Packed, Packed, PyTree, Shard], tuple[Packed, PyTree]]


def make_optimizer(
  config: OptimizerConfig, schedule: optax.Schedule
) -> Optimizer:
  """The optimizer of a run; `config.l2` belongs to the loss, not to it."""
  by_tensor = make_transformation(config, schedule)
  if config.name == "rmsprop":
    # Of one buffer it is one pass, which XLA fuses.
    return Optimizer(by_tensor.init, partial(_apply, by_tensor))
  return Optimizer(by_tensor.init, partial(_apply_lars, config, schedule))


def make_transformation(
  config: OptimizerConfig, schedule: optax.Schedule
) -> optax.GradientTransformation:
  """The same for optax, for trees of tensors."""
  if config.name == "lars":
    return lars(schedule, **_lars_settings(config))
  return rmsprop(
    schedule,
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


def _apply_lars(config, schedule, params, grads, state, shard):
  """`lars`, which would write its updates out and read them again."""
  params, momenta = lars_update(
    *(params, grads, state.momenta),
    learning_rate=schedule(state.count),
    exclude=is_bias_or_batch_norm,
    shard=shard,
    **_lars_settings(config),
  )
  return params, LarsState(optax.safe_increment(state.count), momenta)


def _apply(transformation, params, grads, state, shard):
  del shard
  updates, state = transformation.update(grads, state, params)
  return optax.apply_updates(params, updates), state
