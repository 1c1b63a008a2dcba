"""Arrays that a training run carries from step to step.

The weights, the optimizer's momenta and the average of the weights are packed:
one buffer each, split over the devices. Batch norm's statistics are packed too,
and replicated.
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
  """Arrays of a network, enough to evaluate it.

  In a `TrainState` all three are packed.

  Attributes:
    params: Weights, a nested dict of float32 arrays.
    means: Batch norm's running means, a nested dict.
    variances: Batch norm's running variances, a nested dict.
  """

  params: PyTree
  means: PyTree
  variances: PyTree


class TrainState(NamedTuple):
  """All arrays of a training run.

  Attributes:
    step: Number of steps done, an int32 scalar; the run's only step counter.
    variables: Variables of the network after the last step.
    optimizer: State of the optimizer.
    average: Exponential moving average of `variables`, for evaluation.
  """

  step: jax.Array
  variables: Variables
  optimizer: PyTree
  average: Variables


def _is_mean(path: tuple, variable: object) -> bool:
  del variable
  return path[-1] == "mean"


def split_variables(model: EfficientNet) -> Variables:
  """Return the arrays of a model as plain nested dicts."""
  _, *states = nnx.split(model, nnx.Param, _is_mean, ...)
  return Variables(*map(nnx.to_pure_dict, states))


def merge_variables(
  graph: nnx.GraphDef[EfficientNet], variables: Variables
) -> EfficientNet:
  """Build the model of `graph` with these arrays; inverts `split_variables`."""
  return nnx.merge(graph, *map(nnx.State, variables))


def first_state(
  create_model: Callable[[nnx.Rngs], EfficientNet],
  optimizer: Optimizer,
  *,
  seed: int,
  shards: int,
) -> TrainState:
  """Make the state before the first step, whole.

  Args:
    create_model: Function that makes the network.
    optimizer: Update rule of the weights.
    seed: Seed of the initial weights.
    shards: Number of shards that the rows of the packed weights divide into.
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
