"""All settings of a training run, as frozen dataclasses that check themselves.

Importing this module imports no JAX, so that `--help` stays quick.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from .errors import UsageError


def _positive(**values: float | None) -> None:
  for name, value in values.items():
    if value is not None and not value > 0:
      raise UsageError(f"{name} must be above 0, got {value}")


def _not_negative(**values: float) -> None:
  for name, value in values.items():
    if not value >= 0:
      raise UsageError(f"{name} must not be below 0, got {value}")


def _fraction(**values: float | None) -> None:
  for name, value in values.items():
    if value is not None and not 0 <= value < 1:
      raise UsageError(f"{name} must be in [0, 1), got {value}")


@dataclass(frozen=True)
class ModelConfig:
  """Which member of the family; None takes the family table's value."""

  name: str = "b0"
  """b0 to b8, or l2."""
  width: float | None = None
  """Multiplier of all channel counts."""
  depth: float | None = None
  """Multiplier of the blocks per stage."""
  resolution: int | None = None
  """Height and width of the images, in pixels."""
  stem_stride: int = 2
  """Stride of the first convolution; 1 keeps small images large."""
  dropout: float | None = None
  """Share of the head's features dropped in training."""
  survival_prob: float = 0.8
  """Stochastic depth: the last block's chance to be kept."""
  num_classes: int | None = None
  """Number of logits; None takes the data's number of classes."""
  dtype: Literal["bfloat16", "float32"] = "bfloat16"
  """Of convolution inputs and stored activations."""

  def __post_init__(self):
    _positive(num_classes=self.num_classes)  # `ModelSpec` checks the others


@dataclass(frozen=True)
class DataConfig:
  """Where the images come from and how they are varied in training."""

  source: Literal["fashion-mnist", "images", "synthetic"] = "images"
  path: str | None = None
  """Folder of the data. images: TFRecord, ArrayRecord or tar shards, or train/
  and val/ with a folder of files for each class; fashion-mnist: its IDX files,
  and without a path the images in the package."""
  num_classes: int = 1000
  """Of shards, whose labels are below it; folders and converted data know."""
  train_examples: int | None = None
  """Use only the first so many training images; None uses all."""
  crop: Literal["resized", "shift", "none"] = "resized"
  """Training crop: resized is a random area and aspect, shift pads the image
  by an eighth and cuts at a random place."""
  flip: bool = True
  """Mirror half of the training images left to right."""
  eval_crop: Literal["padding", "share"] = "padding"
  """Central part that evaluation takes of images: resolution / (resolution +
  32) of the short side, as in the paper's time, or 0.875 of it."""
  augment: Literal["none", "autoaugment", "randaugment"] = "none"
  """After crop and mirror."""
  randaugment_layers: int = 2
  """Operations on each image."""
  randaugment_magnitude: float = 10.0
  """Of each; 10 is the largest of AutoAugment, more is allowed."""
  augment_on: Literal["host", "device"] = "host"
  """Where augment is done; device is for hosts that cannot keep up."""
  mixup_alpha: float = 0.0
  """Mix images by shares that are Beta(alpha, alpha); 0 does not."""
  cache: bool = False
  """Keep the files in memory once read, in up to half of what is free. Each
  process then reads its own images in all epochs, and a few of the others'."""
  skip_bad: int = 0
  """Each process leaves out up to so many images that cannot be read; 0 stops
  at the first."""

  def __post_init__(self):
    _positive(
      num_classes=self.num_classes,
      train_examples=self.train_examples,
      randaugment_layers=self.randaugment_layers,
    )
    _not_negative(
      randaugment_magnitude=self.randaugment_magnitude,
      mixup_alpha=self.mixup_alpha,
      skip_bad=self.skip_bad,
    )


@dataclass(frozen=True)
class OptimizerConfig:
  """LARS or RMSProp as TensorFlow's EfficientNet has them."""

  name: Literal["lars", "rmsprop"] = "rmsprop"
  momentum: float = 0.9
  l2: float = 1e-5
  """Coefficient of half the squared norm in the loss, over all weights and
  biases but batch norm's. With LARS this and lars_weight_decay add up: the
  reference's default decays twice."""
  lars_weight_decay: float = 1e-5
  """Decay inside LARS, over what it adapts."""
  lars_trust_coefficient: float = 0.001
  lars_epsilon: float = 0.0
  rmsprop_decay: float = 0.9
  rmsprop_epsilon: float = 0.001
  """Inside the square root, as TensorFlow has it."""

  def __post_init__(self):
    _fraction(momentum=self.momentum, rmsprop_decay=self.rmsprop_decay)
    _positive(
      lars_trust_coefficient=self.lars_trust_coefficient,
      rmsprop_epsilon=self.rmsprop_epsilon,
    )
    _not_negative(
      l2=self.l2,
      lars_weight_decay=self.lars_weight_decay,
      lars_epsilon=self.lars_epsilon,
    )


@dataclass(frozen=True)
class ScheduleConfig:
  """The learning rate over time."""

  name: Literal["exponential", "polynomial"] = "exponential"
  lr_per_256: float = 0.016
  """Peak learning rate for a batch of 256; it grows with the batch."""
  warmup_epochs: float = 5.0
  decay_rate: float = 0.97
  """exponential: factor per decay_epochs, in steps, counted from step 0."""
  decay_epochs: float = 2.4
  power: float = 2.0
  """polynomial: exponent, counted from the end of warmup."""
  end_learning_rate: float = 0.1
  """polynomial: the rate that the last step tends to."""

  def __post_init__(self):
    _positive(
      lr_per_256=self.lr_per_256,
      decay_rate=self.decay_rate,
      decay_epochs=self.decay_epochs,
      power=self.power,
    )
    _not_negative(
      warmup_epochs=self.warmup_epochs,
      end_learning_rate=self.end_learning_rate,
    )


@dataclass(frozen=True)
class BatchNormConfig:
  """Over how many images batch norm takes its statistics."""

  images_per_group: int = 128
  """Devices form groups that hold about so many images together."""
  group_size: int | None = None
  """Devices per group; when given, images_per_group is not used."""
  momentum: float = 0.99
  """Share of the running statistics that a step keeps. They start at mean 0
  and variance 1, of which momentum ** steps is left: a short run needs less."""

  def __post_init__(self):
    _positive(
      images_per_group=self.images_per_group, group_size=self.group_size
    )
    _fraction(momentum=self.momentum)


@dataclass(frozen=True)
class Config:
  """One training run."""

  preset: str = "b0"
  """The recipe these settings started from."""
  batch_size: int = 4096
  """Images per step, over all devices."""
  epochs: float = 350.0
  label_smoothing: float = 0.1
  ema_decay: float = 0.9999
  """Largest decay of the average over weights and statistics."""
  seed: int = 0
  eval_batch_size: int | None = None
  """Images per evaluation step, over all devices; None takes batch_size."""
  eval_every_epochs: float = 1.0
  checkpoint_every_epochs: float = 1.0
  log_every_steps: int = 10
  keep_checkpoints: int = 3
  non_finite: Literal["stop", "rollback"] = "stop"
  """After a loss or gradient that is not finite: stop, or go on from the last
  checkpoint with the images that follow."""
  most_rollbacks: int = 3
  """So often at most; the next one stops the run."""
  cpu_devices: int = 1
  """Where there is only a CPU: how many devices to simulate on it."""
  workdir: str | None = None
  """Where logs, checkpoints and the picture go; None: runs/PRESET-TIME. Several
  processes need one that they all see."""
  distributed: Literal["auto", "on", "off"] = "auto"
  """Whether the run has several processes: auto asks the launcher (Cloud TPU,
  GKE, SLURM, Open MPI, Kubernetes), on insists that there is one."""
  coordinator: str | None = None
  """Without a launcher: HOST:PORT of process 0, where the others find it."""
  num_processes: int | None = None
  """Without a launcher: how many there are."""
  process_id: int | None = None
  """Without a launcher: which of them this is, from 0."""
  model: ModelConfig = field(default_factory=ModelConfig)
  data: DataConfig = field(default_factory=DataConfig)
  optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
  schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
  batch_norm: BatchNormConfig = field(default_factory=BatchNormConfig)

  def __post_init__(self):
    _positive(
      batch_size=self.batch_size,
      epochs=self.epochs,
      eval_batch_size=self.eval_batch_size,
      eval_every_epochs=self.eval_every_epochs,
      checkpoint_every_epochs=self.checkpoint_every_epochs,
      log_every_steps=self.log_every_steps,
      keep_checkpoints=self.keep_checkpoints,
      most_rollbacks=self.most_rollbacks,
      cpu_devices=self.cpu_devices,
    )
    _fraction(label_smoothing=self.label_smoothing, ema_decay=self.ema_decay)
    self._check_processes()

  def _check_processes(self):
    told: Any = (self.coordinator, self.num_processes, self.process_id)
    if told == (None, None, None):
      return
    if self.distributed == "off" or None in told:
      raise UsageError(
        "coordinator, num_processes and process_id go together, and not with "
        f"distributed off; got {', '.join(map(str, told))} and "
        f"{self.distributed}"
      )
    address, count, number = told
    _positive(num_processes=count)
    if ":" not in address:
      raise UsageError(f"coordinator is HOST:PORT, got {address}")
    if not 0 <= number < count:
      raise UsageError(f"process_id must be in [0, {count}), got {number}")
