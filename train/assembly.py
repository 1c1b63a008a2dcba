"""Assembly of a training run's computation from its settings."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import optax
from flax import nnx
from jax.sharding import Mesh

from ..collectives import MEMBER, group_mesh, group_size_for
from ..model import EfficientNet, ModelSpec, model_spec
from .errors import UsageError
from .optimizer import Optimizer, make_optimizer
from .schedule import make_schedule
from .settings.config import Config, ModelConfig
from .sharding import StateSharding
from .state import TrainState, first_state
from .step import (
  EvalStep,
  ImageScale,
  TrainStep,
  make_augment,
  make_eval_step,
  make_train_step,
)

_MOST_STEPS = 2**31 - 1  # the step counter is an int32


class RunLength(NamedTuple):
  """Length of a run.

  Attributes:
    steps_per_epoch: Training images divided by the batch size, not rounded.
    total_steps: Number of training steps.
  """

  steps_per_epoch: float
  total_steps: int


class Assembly(NamedTuple):
  """Computation of a training run, built by `assemble`.

  Attributes:
    spec: Architecture of the network.
    create_model: Function from random numbers to a network with new weights.
    model: Network whose arrays are shapes only, for its structure.
    schedule: Function from the step to its learning rate.
    optimizer: Update rule of the weights.
    sharding: Layout of the training state on the devices.
    init_state: Function that makes the state before the first step.
    abstract_state: Function that returns the shapes, dtypes and shardings of
      that state, without computing it.
    augment: Function from a batch on the devices to its images, augmented.
    train_step: Jitted training step; see `make_train_step`.
    eval_step: Jitted evaluation step; see `make_eval_step`.
  """

  spec: ModelSpec
  create_model: Callable[[nnx.Rngs], EfficientNet]
  model: EfficientNet
  schedule: optax.Schedule
  optimizer: Optimizer
  sharding: StateSharding
  init_state: Callable[[], TrainState]
  abstract_state: Callable[[], TrainState]
  augment: Callable[..., jax.Array]
  train_step: TrainStep
  eval_step: EvalStep


def assemble(
  config: Config,
  mesh: Mesh,
  *,
  examples: int,
  num_classes: int,
  scale: ImageScale,
  network: type[EfficientNet] = EfficientNet,
) -> Assembly:
  """Build model, optimizer, schedule, shardings and steps; compile nothing.

  The training loop, the benchmarks and the tests all build the training step
  here, so they cannot differ in a setting.

  Args:
    config: Settings of the run.
    mesh: Mesh of the devices, from `batch_norm_mesh`.
    examples: Number of training images in an epoch.
    num_classes: Number of logits.
    scale: Normalisation of the images.
    network: Class of the network; benchmarks pass another one.

  Raises:
    UsageError: The model, the schedule or the length of the run is invalid.
  """
  spec = resolve_model(config.model)
  length = run_length(config, examples)
  schedule = make_schedule(
    config.schedule, batch_size=config.batch_size, **length._asdict()
  )
  optimizer = make_optimizer(config.optimizer)
  sharding = StateSharding(mesh)

  def create_model(rngs: nnx.Rngs) -> EfficientNet:
    return network(
      spec,
      num_classes=num_classes,
      dtype=config.model.dtype,
      axis_name=MEMBER,
      momentum=config.batch_norm.momentum,
      rngs=rngs,
    )

  model = nnx.eval_shape(lambda: create_model(nnx.Rngs(0)))
  first = partial(
    first_state,
    create_model,
    optimizer,
    seed=config.seed,
    shards=mesh.devices.size,
  )
  return Assembly(
    spec=spec,
    create_model=create_model,
    model=model,
    schedule=schedule,
    optimizer=optimizer,
    sharding=sharding,
    init_state=partial(sharding.init_state, first),
    abstract_state=partial(sharding.abstract_state, first),
    augment=make_augment(config, mesh),
    train_step=make_train_step(
      model,
      optimizer,
      schedule,
      config=config,
      scale=scale,
      sharding=sharding,
    ),
    eval_step=make_eval_step(model, scale=scale, mesh=mesh),
  )


def resolve_model(config: ModelConfig) -> ModelSpec:
  """Look up the network's architecture and apply the overrides.

  Raises:
    UsageError: The name is unknown, or the values do not fit each other.
  """
  try:
    return model_spec(
      config.name,
      width=config.width,
      depth=config.depth,
      resolution=config.resolution,
      dropout=config.dropout,
      survival_prob=config.survival_prob,
      stem_stride=config.stem_stride,
    )
  except ValueError as error:
    raise UsageError(str(error)) from error


def run_length(config: Config, examples: int) -> RunLength:
  """Compute the length of a run in steps.

  Args:
    config: Settings of the run.
    examples: Number of training images in an epoch.

  Raises:
    UsageError: The run is shorter than a step, or the step counter overflows.
  """
  steps_per_epoch = examples / config.batch_size
  total_steps = int(config.epochs * steps_per_epoch)
  if total_steps < 1:
    raise UsageError(
      f"{config.epochs:g} epochs of {examples} images are less than "
      f"one batch of {config.batch_size}; raise --epochs or lower --batch-size"
    )
  if total_steps > _MOST_STEPS:
    raise UsageError(
      f"{config.epochs:g} epochs of {examples} images are "
      f"{total_steps:,} batches of {config.batch_size}, and a run has at most "
      f"{_MOST_STEPS:,}; lower --epochs or raise --batch-size"
    )
  return RunLength(steps_per_epoch, total_steps)


def batch_norm_mesh(
  config: Config, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Arrange devices in the batch-norm groups that the settings ask for.

  Args:
    config: Settings of the run.
    devices: Devices to use; None takes all.

  Raises:
    ValueError: The groups do not divide the devices.
  """
  devices = jax.devices() if devices is None else devices
  group_size = config.batch_norm.group_size or group_size_for(
    config.batch_norm.images_per_group, config.batch_size, len(devices)
  )
  return group_mesh(devices, group_size)
