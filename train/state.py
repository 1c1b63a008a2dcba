"""What a training run carries from step to step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ..model import EfficientNet
from .ema import init_ema

PyTree = Any


class Variables(NamedTuple):
  """What evaluation needs of a network.

  Attributes:
    params: Nested dict of float32 arrays, the weights.
    means: Nested dict of batch norm's running means.
    variances: Nested dict of its running variances.
  """

  params: PyTree
  means: PyTree
  variances: PyTree


class TrainState(NamedTuple):
  """All of a run's arrays; a checkpoint holds just these.

  Attributes:
    step: int32 scalar, the updates done.
    variables: Of the network, as the last step left them.
    optimizer: State of the optimizer.
    average: Exponential moving average of `variables`, used in evaluation.
  """

  step: jax.Array
  variables: Variables
  optimizer: optax.OptState
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


def init_state(
  create_model: Any,
  optimizer: optax.GradientTransformation,
  *,
  seed: int,
  mesh: Mesh,
) -> TrainState:
  """The state before the first step, the same on all devices of `mesh`.

  Args:
    create_model: Function from `nnx.Rngs` to the model.
    optimizer: What the weights are updated with.
    seed: Of the initial weights.
    mesh: Where the arrays are.
  """
  return jax.jit(
    lambda: first_state(create_model, optimizer, seed=seed),
    out_shardings=NamedSharding(mesh, P()),
    compiler_options=_compiler_options(mesh),
  )()


def first_state(
  create_model: Any, optimizer: optax.GradientTransformation, *, seed: int
) -> TrainState:
  """The same, to be jitted or evaluated for its shapes."""
  variables = split_variables(create_model(nnx.Rngs(seed)))
  return TrainState(
    step=jnp.int32(0),
    variables=variables,
    optimizer=optimizer.init(variables.params),
    average=init_ema(variables),
  )


def _compiler_options(mesh: Mesh) -> dict[str, int] | None:
  """For a program that runs once: on a CPU compiling it is what takes time.

  Without optimisation the demo's takes a third of the time to compile.
  """
  if mesh.devices.flat[0].platform != "cpu":
    return None
  return {"xla_backend_optimization_level": 0}
