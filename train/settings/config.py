"""All settings of a training run, as frozen dataclasses that check themselves.

Importing this module imports no JAX, so that `--help` stays quick.
"""

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

from ..errors import UsageError


class Range(NamedTuple):
  """The values that a number may have, both ends included."""

  low: float
  high: float

  def __str__(self) -> str:
    return " to ".join(f"{end:,}" for end in self)


# A host's name or address, an IPv6 address in brackets; a port.
_ADDRESS = re.compile(r"(?:[\w.-]+|\[[0-9a-fA-F:.%\w]+\]):([0-9]{1,5})")

# What is 1 in float32, or 0, would be another setting than the one given.
_SHARE = Range(0, 0.999999)
_RATE = Range(0, 10**6)
_POSITIVE_RATE = Range(1e-12, 10**6)
_EPOCHS = Range(1e-6, 10**6)
_COUNT = Range(1, 2**31 - 1)
_CLASSES = Range(1, 2**20)
_IMAGES = Range(1, 2**24)
_PROCESSES = Range(1, 2**20)


def check_ranges(settings: Any, prefix: str) -> None:
  """Check every number of a dataclass against the `Range` of its type.

  Args:
    settings: An instance whose numbers are `Annotated` with a `Range`.
    prefix: What stands before the names of its flags, such as "--model.".

  Raises:
    UsageError: a number out of its range, NaN among them.
  """
  hints = get_type_hints(type(settings), include_extras=True)
  for name, hint in hints.items():
    value = getattr(settings, name)
    for allowed in getattr(hint, "__metadata__", ()):
      if value is not None and not allowed.low <= value <= allowed.high:
        flag = prefix + name.replace("_", "-")
        raise UsageError(f"{flag} must be from {allowed}, got {_cut(value)}")


def _cut(value: float) -> str:
  """A number in at most some thirty characters."""
  text = str(value)
  return text if len(text) <= 30 else f"{text[:20]}... ({len(text)} digits)"


@dataclass(frozen=True)
class ModelConfig:
  """Which member of the family; None takes the family table's value."""

  name: str = "b0"
  """b0 to b8, or l2."""
  width: Annotated[float | None, Range(0.001, 100)] = None
  """Multiplier of all channel counts."""
  depth: Annotated[float | None, Range(0.001, 100)] = None
  """Multiplier of the blocks per stage."""
  resolution: Annotated[int | None, Range(1, 2048)] = None
  """Height and width of the images, in pixels."""
  stem_stride: Annotated[int, Range(1, 2)] = 2
  """Stride of the first convolution; 1 keeps small images large."""
  dropout: Annotated[float | None, _SHARE] = None
  """Share of the head's features dropped in training."""
  survival_prob: Annotated[float, Range(1e-6, 1)] = 0.8
  """Stochastic depth: the last block's chance to be kept."""
  num_classes: Annotated[int | None, _CLASSES] = None
  """Number of logits; None takes the data's number of classes."""
  dtype: Literal["bfloat16", "float32"] = "bfloat16"
  """Of convolution inputs and stored activations."""

  def __post_init__(self):
    check_ranges(self, "--model.")


@dataclass(frozen=True)
class DataConfig:
  """Where the images come from and how they are varied in training."""

  source: Literal["fashion-mnist", "images", "synthetic"] = "images"
  """Kind of data: Fashion-MNIST, image files in path, or made-up images."""
  path: str | None = None
  """Folder of the data, or a URL such as gs://bucket/folder. images: TFRecord,
  ArrayRecord, tar or Parquet shards, or train/ and val/ with a folder of files
  for each class; fashion-mnist: its IDX files, and without a path the images in
  the package."""
  eval_path: str | None = None
  """images: a folder of other data to evaluate on, whose classes are among
  those of path; its test images are taken, or class folders that lie in it."""
  num_classes: Annotated[int | None, _CLASSES] = None
  """Number of classes in shards. None takes what the data says, and 1000 where
  it says nothing."""
  label_offset: Annotated[int | None, Range(0, 2**20)] = None
  """Label of the first class in the shards' files; None takes 1 for
  image/class/label, as imagenet_to_gcs writes it, else 0."""
  class_names: str | None = None
  """A file with the name of each class on a line, in the order of labels."""
  train_examples: Annotated[int | None, Range(1, 2**30)] = None
  """Use only the first so many training images; None uses all."""
  crop: Literal["resized", "shift", "none"] = "resized"
  """Training crop: resized is a random area and aspect, shift pads the image
  by an eighth and cuts at a random place."""
  flip: bool = True
  """Mirror half of the training images left to right."""
  eval_crop: Literal["padding", "share"] = "padding"
  """Central part that evaluation takes of images: resolution / (resolution +
  32) of the short side, as in the paper's time, or 0.875 of it."""
  exif_rotation: bool = False
  """Turn images as their EXIF orientation says; False leaves them, as
  TensorFlow does."""
  strict_jpeg: bool = False
  """Refuse JPEGs that the decoder warns about. False accepts, as Pillow and
  TensorFlow do, extraneous bytes between the segments of a header and before
  the end of an image."""
  augment: Literal["none", "autoaugment", "randaugment"] = "none"
  """After crop and mirror."""
  randaugment_layers: Annotated[int, Range(1, 100)] = 2
  """Operations on each image."""
  randaugment_magnitude: Annotated[float, Range(0, 30)] = 10.0
  """Of each; 10 is the largest of AutoAugment, more is allowed."""
  augment_on: Literal["host", "device"] = "host"
  """Where augment is done; device is for hosts that cannot keep up."""
  mixup_alpha: Annotated[float, Range(0, 1000)] = 0.0
  """Mix images by shares that are Beta(alpha, alpha); 0 does not."""
  cache: bool = False
  """Keep the files in memory once read, in up to half of what is free. Each
  process then reads its own images in all epochs, and a few of the others'."""
  skip_bad: Annotated[int, Range(0, 2**31 - 1)] = 0
  """Each process leaves out up to so many images that cannot be read; 0 stops
  at the first."""

  def __post_init__(self):
    check_ranges(self, "--data.")


@dataclass(frozen=True)
class OptimizerConfig:
  """LARS or RMSProp as TensorFlow's EfficientNet has them."""

  name: Literal["lars", "rmsprop"] = "rmsprop"
  """Update rule."""
  momentum: Annotated[float, _SHARE] = 0.9
  """Share of the momentum buffer that a step keeps."""
  l2: Annotated[float, _RATE] = 1e-5
  """Coefficient of half the squared norm in the loss, over all weights and
  biases but batch norm's. With LARS this and lars_weight_decay add up: the
  reference's default decays twice."""
  lars_weight_decay: Annotated[float, _RATE] = 1e-5
  """Decay inside LARS, over what it adapts."""
  lars_trust_coefficient: Annotated[float, _POSITIVE_RATE] = 0.001
  """Factor of the trust ratio."""
  lars_epsilon: Annotated[float, _RATE] = 0.0
  """Term added to the trust ratio's denominator."""
  rmsprop_decay: Annotated[float, _SHARE] = 0.9
  """Share of the mean square that a step keeps."""
  rmsprop_epsilon: Annotated[float, _POSITIVE_RATE] = 0.001
  """Inside the square root, as TensorFlow has it."""

  def __post_init__(self):
    check_ranges(self, "--optimizer.")


@dataclass(frozen=True)
class ScheduleConfig:
  """The learning rate over time."""

  name: Literal["exponential", "polynomial"] = "exponential"
  """Curve after the warmup."""
  lr_per_256: Annotated[float, Range(1e-12, 1e38)] = 0.016
  """Peak learning rate for a batch of 256; it grows with the batch."""
  warmup_epochs: Annotated[float, Range(0, 10**6)] = 5.0
  """Epochs in which the rate rises from 0 to the peak."""
  decay_rate: Annotated[float, Range(1e-6, 10)] = 0.97
  """exponential: factor per decay_epochs, in steps, counted from step 0."""
  decay_epochs: Annotated[float, _EPOCHS] = 2.4
  """exponential: epochs of one factor decay_rate."""
  power: Annotated[float, Range(0.001, 1000)] = 2.0
  """polynomial: exponent, counted from the end of warmup."""
  end_learning_rate: Annotated[float, _RATE] = 0.1
  """polynomial: the rate that the last step tends to."""

  def __post_init__(self):
    check_ranges(self, "--schedule.")


@dataclass(frozen=True)
class BatchNormConfig:
  """Over how many images batch norm takes its statistics."""

  images_per_group: Annotated[int, _IMAGES] = 128
  """Devices form groups that hold about so many images together."""
  group_size: Annotated[int | None, Range(1, 2**20)] = None
  """Devices per group; when given, images_per_group is not used."""
  momentum: Annotated[float, _SHARE] = 0.99
  """Share of the running statistics that a step keeps. They start at mean 0
  and variance 1, of which momentum ** steps is left: a short run needs less."""

  def __post_init__(self):
    check_ranges(self, "--batch-norm.")


@dataclass(frozen=True)
class Config:
  """One training run."""

  preset: str = "b0"
  """The recipe these settings started from."""
  batch_size: Annotated[int, _IMAGES] = 4096
  """Images per step, over all devices."""
  epochs: Annotated[float, _EPOCHS] = 350.0
  """Passes over the training images; they need not be a whole number."""
  label_smoothing: Annotated[float, _SHARE] = 0.1
  """Share of the target that all classes get in equal parts."""
  ema_decay: Annotated[float, _SHARE] = 0.9999
  """Largest decay of the average over weights and statistics."""
  seed: Annotated[int, Range(0, 2**32 - 1)] = 0
  """Seed of the initial weights, the order of images and all that is random."""
  eval_batch_size: Annotated[int | None, _IMAGES] = None
  """Images per evaluation step, over all devices; None takes batch_size."""
  eval_every_epochs: Annotated[float, _EPOCHS] = 1.0
  """Epochs from one evaluation to the next."""
  checkpoint_every_epochs: Annotated[float, _EPOCHS] = 1.0
  """Epochs from one checkpoint to the next."""
  log_every_steps: Annotated[int, _COUNT] = 10
  """Steps from one log line to the next."""
  keep_checkpoints: Annotated[int, _COUNT] = 3
  """Number of newest checkpoints to keep."""
  non_finite: Literal["stop", "rollback"] = "stop"
  """After a loss or gradient that is not finite: stop, or go on from the last
  checkpoint with the images that follow."""
  most_rollbacks: Annotated[int, _COUNT] = 3
  """So often at most; the next one stops the run."""
  # Each is a thread; 512 of them do not meet in time for XLA's collectives.
  cpu_devices: Annotated[int, Range(1, 256)] = 1
  """Where there is only a CPU: how many devices to simulate on it."""
  workdir: str | None = None
  """Where logs, checkpoints and the picture go; None: runs/PRESET-TIME. Several
  processes need one that they all see."""
  distributed: Literal["auto", "on", "off"] = "auto"
  """Whether the run has several processes: auto asks the launcher (Cloud TPU,
  GKE, SLURM, Open MPI, Kubernetes), on insists that there is one."""
  coordinator: str | None = None
  """Without a launcher: HOST:PORT of process 0, where the others find it."""
  num_processes: Annotated[int | None, _PROCESSES] = None
  """Without a launcher: how many there are."""
  process_id: Annotated[int | None, Range(0, 2**20 - 1)] = None
  """Without a launcher: which of them this is, from 0."""
  model: ModelConfig = field(default_factory=ModelConfig)
  data: DataConfig = field(default_factory=DataConfig)
  optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
  schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
  batch_norm: BatchNormConfig = field(default_factory=BatchNormConfig)

  def __post_init__(self):
    check_ranges(self, "--")
    self._check_processes()

  def _check_processes(self):
    told: Any = (self.coordinator, self.num_processes, self.process_id)
    if told == (None, None, None):
      return
    if self.distributed == "off" or None in told:
      raise UsageError(
        "--coordinator, --num-processes and --process-id go together, and not "
        f"with --distributed off; got {', '.join(map(str, told))} and "
        f"{self.distributed}"
      )
    address, count, number = told
    port = _ADDRESS.fullmatch(address)
    if not port or not 1 <= int(port[1]) <= 65535:
      raise UsageError(
        "--coordinator must be HOST:PORT with a port from 1 to 65535, such as "
        f"10.0.0.1:8476 or [fd00::1]:8476, got {address!r}"
      )
    if number >= count:
      raise UsageError(
        f"--process-id must be below --num-processes {count}, got {number}"
      )
