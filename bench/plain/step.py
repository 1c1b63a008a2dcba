"""The training step in plain JAX, with the same recipe.

State, gradients and update are trees of tensors, replicated on all devices.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ...collectives import ALL_DEVICES, device_varying
from ...model import EfficientNet
from ...train.ema import init_ema, update_ema
from ...train.optimizer import is_batch_norm, make_transformation
from ...train.settings.config import Config
from ...train.state import (
  TrainState,
  Variables,
  merge_variables,
  split_variables,
)
from ...train.step import ImageScale, cross_entropy, first_image, step_key


def plain_state(
  model: EfficientNet, config: Config, schedule: optax.Schedule
) -> TrainState:
  """Return the state before the first step, as trees of tensors."""
  variables = split_variables(model)
  optimizer = make_transformation(config.optimizer, schedule)
  return TrainState(
    step=jnp.int32(0),
    variables=variables,
    optimizer=optimizer.init(variables.params),
    average=init_ema(variables),
  )


def make_plain_step(
  model: EfficientNet,
  schedule: optax.Schedule,
  *,
  config: Config,
  scale: ImageScale,
  mesh: Mesh,
) -> Any:
  """Make the jitted step, like `train.step.make_train_step`.

  Args:
    model: Network, whose structure is taken.
    schedule: Learning rate by step.
    config: Settings of optimizer, loss, average and seed.
    scale: Normalisation of the images.
    mesh: All devices, in batch-norm groups.

  Returns:
    A function of state, images and labels, that returns the new state and the
    loss. It donates the state.
  """
  model.train()
  graph = nnx.graphdef(model)
  optimizer = make_transformation(config.optimizer, schedule)

  def loss_of(params, means, variances, images, labels, key):
    network = merge_variables(graph, Variables(params, means, variances))
    logits = network(
      scale(images),
      rngs=nnx.Rngs(dropout=key),
      first_image=first_image(images),
    )
    loss = jnp.mean(cross_entropy(logits, labels, config.label_smoothing))
    return loss + _l2(params, config), split_variables(network)

  def local_step(state, images, labels):
    (loss, updated), grads = jax.value_and_grad(loss_of, has_aux=True)(
      *device_varying(state.variables),
      *(images, labels, step_key(config, state.step)),
    )
    params = state.variables.params
    grads, loss, updated = lax.pmean((grads, loss, updated), ALL_DEVICES)
    with jax.named_scope("update"):
      changes, optimizer_state = optimizer.update(
        grads, state.optimizer, params
      )
      after = updated._replace(params=optax.apply_updates(params, changes))
    average = update_ema(
      state.average,
      after,
      num_updates=state.step + 1,
      max_decay=config.ema_decay,
    )
    return TrainState(state.step + 1, after, optimizer_state, average), loss

  sharded = jax.shard_map(
    local_step,
    mesh=mesh,
    in_specs=(P(), P(ALL_DEVICES), P(ALL_DEVICES)),
    out_specs=P(),
  )
  return jax.jit(sharded, donate_argnums=0)


def _l2(params: Any, config: Config) -> jax.Array:
  """Compute the L2 penalty, without batch norm's parameters."""
  squares = [
    jnp.sum(jnp.square(x))
    for path, x in jax.tree.leaves_with_path(params)
    if not is_batch_norm(path)
  ]
  return config.optimizer.l2 / 2 * jnp.stack(squares).sum()
