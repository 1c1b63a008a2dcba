"""Data and devices of a run, opened and checked before anything compiles."""

from typing import NamedTuple

import jax
from jax.sharding import Mesh

from .assembly import batch_norm_mesh, resolve_model, run_length
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
from .settings.config import Config, DataConfig, ModelConfig
from .step import ImageScale


class Run(NamedTuple):
  """Data and devices of a run.

  Attributes:
    train_source: Images to train on.
    test_source: Images to evaluate on.
    policy: Augmentation of the training images; None for none.
    mesh: All devices, in batch-norm groups.
    num_classes: Number of logits.
    resolution: Height and width of the images, in pixels.
    steps_per_epoch: Training images divided by the batch size, not rounded.
    total_steps: Number of training steps.
    eval_batch_size: Images per evaluation step, over all devices.
  """

  train_source: Source
  test_source: Source
  policy: Policy | None
  mesh: Mesh
  num_classes: int
  resolution: int
  steps_per_epoch: float
  total_steps: int
  eval_batch_size: int

  @property
  def scale(self) -> ImageScale:
    """Normalisation of the images."""
    return ImageScale(self.train_source.mean, self.train_source.std)


def set_up(config: Config) -> Run:
  """Open the data and arrange the devices.

  Raises:
    UsageError: Settings do not fit each other, the devices or the data.
  """
  resolution = resolve_model(config.model).resolution
  eval_batch_size = config.eval_batch_size or config.batch_size
  mesh = make_mesh(config, eval_batch_size)
  train_source = open_source(config.data, "train", resolution)
  test_source = open_source(config.data, "test", resolution)
  check_same_classes(train_source, test_source)
  if config.data.class_names is not None:
    names = read_class_names(config.data.class_names, train_source.num_classes)
    train_source.class_names = test_source.class_names = names
  length = run_length(config, len(train_source))
  return Run(
    train_source=train_source,
    test_source=test_source,
    policy=_policy(config.data),
    mesh=mesh,
    num_classes=_num_classes(config.model, train_source),
    resolution=resolution,
    steps_per_epoch=length.steps_per_epoch,
    total_steps=length.total_steps,
    eval_batch_size=eval_batch_size,
  )


def make_mesh(config: Config, eval_batch_size: int) -> Mesh:
  """Arrange all devices in batch-norm groups.

  Raises:
    UsageError: The devices cannot share a batch or form the groups evenly, or
      mixup would get an odd number of images on a device.
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
      f"mixup needs an even number of images on each device, and --batch-size "
      f"{config.batch_size} gives {images} to each of {devices} devices; use a "
      f"multiple of {2 * devices}"
    )
  try:
    return batch_norm_mesh(config)
  except ValueError as error:
    raise UsageError(f"batch norm: {error}") from error


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
