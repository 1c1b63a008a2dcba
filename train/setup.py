"""From settings to the parts of a run, checked before anything is compiled."""

from typing import NamedTuple

import jax
import optax
from flax import nnx
from jax.sharding import Mesh

from ..collectives import MEMBER, group_mesh, group_size_for
from ..model import EfficientNet, ModelSpec, model_spec
from .data import (
  AutoAugment,
  Policy,
  RandAugment,
  Source,
  check_same_classes,
  open_source,
  read_class_names,
)
from .errors import UsageError
from .optimizer import Optimizer, make_optimizer
from .schedule import make_schedule
from .settings.config import Config, DataConfig, ModelConfig
from .step import ImageScale

_MOST_STEPS = 2**31 - 1  # the step counter is an int32


class Run(NamedTuple):
  """The parts of a run that stay the same from step to step.

  Attributes:
    train_source: Images to train on.
    test_source: Images to evaluate on.
    policy: What augmentation does to the images, if there is any.
    mesh: All devices, in batch-norm groups.
    spec: Of the network.
    num_classes: Number of logits.
    schedule: Learning rate by step.
    optimizer: Built on that schedule.
    resolution: Height and width of the images, in pixels.
    steps_per_epoch: Not rounded.
    total_steps: Of the whole run.
    eval_batch_size: Images per evaluation step, over all devices.
  """

  train_source: Source
  test_source: Source
  policy: Policy | None
  mesh: Mesh
  spec: ModelSpec
  num_classes: int
  schedule: optax.Schedule
  optimizer: Optimizer
  resolution: int
  steps_per_epoch: float
  total_steps: int
  eval_batch_size: int

  @property
  def scale(self) -> ImageScale:
    """How the images are normalised."""
    return ImageScale(self.train_source.mean, self.train_source.std)


def set_up(config: Config) -> Run:
  """Opens the data and builds everything that needs no compilation.

  Raises:
    UsageError: settings that do not fit each other, the devices or the data.
  """
  spec = resolve_model(config.model)
  eval_batch_size = config.eval_batch_size or config.batch_size
  mesh = make_mesh(config, eval_batch_size)
  train_source = open_source(config.data, "train", spec.resolution)
  test_source = open_source(config.data, "test", spec.resolution)
  check_same_classes(train_source, test_source)
  if config.data.class_names is not None:
    names = read_class_names(config.data.class_names, train_source.num_classes)
    train_source.class_names = test_source.class_names = names
  steps_per_epoch = len(train_source) / config.batch_size
  total_steps = int(config.epochs * steps_per_epoch)
  if total_steps < 1:
    raise UsageError(
      f"{config.epochs:g} epochs of {len(train_source)} images are less than "
      f"one batch of {config.batch_size}; raise --epochs or lower --batch-size"
    )
  if total_steps > _MOST_STEPS:
    raise UsageError(
      f"{config.epochs:g} epochs of {len(train_source)} images are "
      f"{total_steps:,} batches of {config.batch_size}, and a run has at most "
      f"{_MOST_STEPS:,}; lower --epochs or raise --batch-size"
    )
  schedule = make_schedule(
    config.schedule,
    batch_size=config.batch_size,
    steps_per_epoch=steps_per_epoch,
    total_steps=total_steps,
  )
  return Run(
    train_source=train_source,
    test_source=test_source,
    policy=_policy(config.data),
    mesh=mesh,
    spec=spec,
    num_classes=_num_classes(config.model, train_source),
    schedule=schedule,
    optimizer=make_optimizer(config.optimizer, schedule),
    resolution=spec.resolution,
    steps_per_epoch=steps_per_epoch,
    total_steps=total_steps,
    eval_batch_size=eval_batch_size,
  )


def resolve_model(config: ModelConfig) -> ModelSpec:
  """The network's spec.

  Raises:
    UsageError: an unknown name, or values that do not fit each other.
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


def make_mesh(config: Config, eval_batch_size: int) -> Mesh:
  """All devices in batch-norm groups.

  Raises:
    UsageError: a batch or a group that the devices cannot share evenly, or
      mixup of an odd number of images on a device.
  """
  devices = jax.device_count()
  for name, size in (
    ("--batch-size", config.batch_size),
    ("--eval-batch-size", eval_batch_size),
  ):
    if size % devices:
      below = size // devices * devices
      raise UsageError(
        f"{name} {size} does not divide by {devices} devices; use "
        f"{f'{below} or ' if below else ''}{below + devices}"
      )
  images = config.batch_size // devices
  if config.data.mixup_alpha and images % 2:
    raise UsageError(
      f"mixup takes images in pairs, and --batch-size "
      f"{config.batch_size} is {images} on each of {devices} devices; use a "
      f"multiple of {2 * devices}"
    )
  try:
    group_size = config.batch_norm.group_size or group_size_for(
      config.batch_norm.images_per_group, config.batch_size, devices
    )
    return group_mesh(group_size=group_size)
  except ValueError as error:
    raise UsageError(f"batch norm: {error}") from error


def create_model(config: Config, run: Run, rngs: nnx.Rngs) -> EfficientNet:
  """A network with new weights, its batch norm over the mesh's groups."""
  return EfficientNet(
    run.spec,
    num_classes=run.num_classes,
    dtype=config.model.dtype,
    axis_name=MEMBER,
    momentum=config.batch_norm.momentum,
    rngs=rngs,
  )


def _policy(config: DataConfig) -> Policy | None:
  if config.augment == "autoaugment":
    return AutoAugment()
  if config.augment == "randaugment":
    return RandAugment(config.randaugment_layers, config.randaugment_magnitude)
  return None


def _num_classes(config: ModelConfig, source: Source) -> int:
  in_data = source.num_classes
  if config.num_classes is not None and config.num_classes < in_data:
    raise UsageError(
      f"the data has {in_data} classes but model.num_classes is "
      f"{config.num_classes}; leave it out or raise it to {in_data}"
    )
  return config.num_classes or in_data
