"""What a training run carries from step to step.

The weights, the optimizer's buffers and the average of the weights are packed,
one buffer each, of which every device has a shard; batch norm's statistics are
packed too and the same on all devices.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ..kernels import Packed, pack_like
from ..model import EfficientNet
from .ema import init_ema
from .optimizer import Optimizer

PyTree = Any


class Variables(NamedTuple):
  """What evaluation needs of a network.

  Attributes:
    params: Nested dict of float32 arrays, the weights; in a `TrainState`
      packed, as all three are.
    means: Nested dict of batch norm's running means.
    variances: Nested dict of its running variances.
  """

  params: PyTree
  means: PyTree
  variances: PyTree


class TrainState(NamedTuple):
  """All of a run's arrays.

  Attributes:
    step: int32 scalar, the updates done.
    variables: Of the network, as the last step left them.
    optimizer: State of the optimizer.
    average: Exponential moving average of `variables`, used in evaluation.
  """

  step: jax.Array
  variables: Variables
  optimizer: PyTree
  average: Variables


def _is_mean(path: tuple, variable: object) -> bool:
  del variable
  return path[-1] == "mean"


def split_variables(model: EfficientNet) -> Variables:
  """The model's arrays, as plain nested dicts."""
  _, *states = nnx.split(model, nnx.Param, _is_mean, ...)
  return Variables(*map(nnx.to_pure_dict, states))


def merge_variables(
  graph: nnx.GraphDef[EfficientNet], variables: Variables
) -> EfficientNet:
  """The model of `graph` with these arrays; the inverse of the split."""
  return nnx.merge(graph, *map(nnx.State, variables))


def first_state(
  create_model: Callable[[nnx.Rngs], EfficientNet],
  optimizer: Optimizer,
  *,
  seed: int,
  shards: int,
) -> TrainState:
  """The state before the first step, to be jitted or only for its shapes.

  Args:
    create_model: Makes the network.
    optimizer: What the weights are updated with.
    seed: Of the initial weights.
    shards: How many the weights' rows are to divide into.
  """
  trees = split_variables(create_model(nnx.Rngs(seed)))
  packing = pack_like(trees.params, shards)
  variables = Variables(
    Packed(packing.pack(trees.params), packing),
    Packed.of(trees.means),
    Packed.of(trees.variances),
  )
  return TrainState(
    step=jnp.int32(0),
    variables=variables,
    optimizer=optimizer.init(variables.params),
    average=init_ema(variables),
  )
