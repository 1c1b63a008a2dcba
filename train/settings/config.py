"""Settings of a training run: frozen dataclasses that check their values.

This module imports no JAX, so that `--help` is quick.
"""

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

from ..errors import UsageError


class Range(NamedTuple):
  """Allowed values of a number, both ends included."""

  low: float
  high: float

  def __str__(self) -> str:
    return " to ".join(f"{end:,}" for end in self)


# Host name, IPv4 address or IPv6 address in brackets, then a port.
_ADDRESS = re.compile(r"(?:[\w.-]+|\[[0-9a-fA-F:.%\w]+\]):([0-9]{1,5})")

# Above 0.999999 a share would round to 1 in float32.
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
    settings: Dataclass instance whose numbers are `Annotated` with a `Range`.
    prefix: Prefix of the flags in the message, such as "--model.".

  Raises:
    UsageError: A number is NaN or outside its range.
  """
  hints = get_type_hints(type(settings), include_extras=True)
  for name, hint in hints.items():
    value = getattr(settings, name)
    for allowed in getattr(hint, "__metadata__", ()):
      if value is not None and not allowed.low <= value <= allowed.high:
        flag = prefix + name.replace("_", "-")
        raise UsageError(f"{flag} must be from {allowed}, got {_cut(value)}")


def _cut(value: float) -> str:
  """Format a number in at most about thirty characters."""
  text = str(value)
  return text if len(text) <= 30 else f"{text[:20]}... ({len(text)} digits)"


@dataclass(frozen=True)
class ModelConfig:
  """Network of the EfficientNet family."""

  name: str = "b0"
  """Member of the family: b0 to b8, l2, or lite0 to lite4."""
  width: Annotated[float | None, Range(0.001, 100)] = None
  """Factor of all channel counts; None takes the member's."""
  depth: Annotated[float | None, Range(0.001, 100)] = None
  """Factor of the number of blocks per stage; None takes the member's."""
  resolution: Annotated[int | None, Range(1, 2048)] = None
  """Height and width of the images, in pixels; None takes the member's."""
  stem_stride: Annotated[int, Range(1, 2)] = 2
  """Stride of the first convolution, in pixels; use 1 for small images."""
  dropout: Annotated[float | None, _SHARE] = None
  """Share of the head's features to drop; None takes the member's."""
  survival_prob: Annotated[float, Range(1e-6, 1)] = 0.8
  """Probability that stochastic depth keeps the last block."""
  num_classes: Annotated[int | None, _CLASSES] = None
  """Number of logits; None takes the number of classes in the data."""
  dtype: Literal["bfloat16", "float32"] = "bfloat16"
  """Type of convolution inputs and stored activations."""

  def __post_init__(self):
    check_ranges(self, "--model.")


@dataclass(frozen=True)
class DataConfig:
  """Images and their augmentation."""

  source: Literal["fashion-mnist", "images", "synthetic"] = "images"
  """Kind of data: Fashion-MNIST, image files or shards, or synthetic images."""
  path: str | None = None
  """Folder of the data, or a URL such as gs://bucket/folder. For images: a
  folder of TFRecord, ArrayRecord, tar or Parquet shards, or of train/ and val/
  with a folder of files per class. For fashion-mnist: a folder of its IDX
  files; None takes the images in the package."""
  eval_path: str | None = None
  """Folder of other images to evaluate on, their test split or class folders;
  every class must be in path too. None evaluates on the test images of path."""
  num_classes: Annotated[int | None, _CLASSES] = None
  """Number of classes in shards; None reads it from the data, or takes 1000."""
  label_offset: Annotated[int | None, Range(0, 2**20)] = None
  """Label of the first class in shards; None takes 1 for image/class/label, as
  imagenet_to_gcs writes it, and 0 for other labels."""
  class_names: str | None = None
  """File with one class name per line, in the order of the labels; None takes
  the names in the data."""
  train_examples: Annotated[int | None, Range(1, 2**30)] = None
  """Number of training images to use, from the first; None uses all."""
  crop: Literal["resized", "shift", "none"] = "resized"
  """Training crop: resized takes a random area and aspect ratio; shift pads the
  image by an eighth and cuts at a random position."""
  flip: bool = True
  """True to mirror half of the training images left to right."""
  eval_crop: Literal["padding", "share"] = "padding"
  """Central crop in evaluation: padding takes resolution / (resolution + 32) of
  the short side, as in the paper; share takes 0.875 of it."""
  exif_rotation: bool = False
  """True to rotate images by their EXIF orientation; False ignores it, as
  TensorFlow does."""
  strict_jpeg: bool = False
  """True to refuse JPEGs with decoder warnings; False accepts extra bytes
  between header segments and before the end, as Pillow and TensorFlow do."""
  augment: Literal["none", "autoaugment", "randaugment"] = "none"
  """Augmentation policy, applied after crop and flip."""
  randaugment_layers: Annotated[int, Range(1, 100)] = 2
  """RandAugment: number of operations per image."""
  randaugment_magnitude: Annotated[float, Range(0, 30)] = 10.0
  """RandAugment: strength of each operation; 10 is AutoAugment's maximum."""
  augment_on: Literal["host", "device"] = "host"
  """Place of the augmentation; choose device if the hosts are too slow."""
  mixup_alpha: Annotated[float, Range(0, 1000)] = 0.0
  """Parameter of mixup's Beta(alpha, alpha) distribution; 0 turns mixup off."""
  cache: bool = False
  """True to keep files in up to half of the free memory once read; each process
  then reads mostly the same images in every epoch."""
  skip_bad: Annotated[int, Range(0, 2**31 - 1)] = 0
  """Number of unreadable images that each process may leave out; with 0 the
  first one stops the run."""

  def __post_init__(self):
    check_ranges(self, "--data.")


@dataclass(frozen=True)
class OptimizerConfig:
  """Optimizer, with the formulas of TensorFlow's EfficientNet."""

  name: Literal["lars", "rmsprop"] = "rmsprop"
  """Update rule."""
  momentum: Annotated[float, _SHARE] = 0.9
  """Share of the momentum buffer that a step keeps."""
  l2: Annotated[float, _RATE] = 1e-5
  """Coefficient of the L2 loss, half the squared norm of all weights and biases
  except batch norm's. With LARS it adds to lars_weight_decay, as in the
  reference's default."""
  lars_weight_decay: Annotated[float, _RATE] = 1e-5
  """LARS: weight decay of the adapted tensors."""
  lars_trust_coefficient: Annotated[float, _POSITIVE_RATE] = 0.001
  """LARS: factor of the trust ratio."""
  lars_epsilon: Annotated[float, _RATE] = 0.0
  """LARS: term added to the trust ratio's denominator."""
  rmsprop_decay: Annotated[float, _SHARE] = 0.9
  """RMSProp: share of the mean square that a step keeps."""
  rmsprop_epsilon: Annotated[float, _POSITIVE_RATE] = 0.001
  """RMSProp: term added to the mean square, inside the root."""

  def __post_init__(self):
    check_ranges(self, "--optimizer.")


@dataclass(frozen=True)
class ScheduleConfig:
  """Learning rate over time."""

  name: Literal["exponential", "polynomial"] = "exponential"
  """Curve of the decay after warmup."""
  lr_per_256: Annotated[float, Range(1e-12, 1e38)] = 0.016
  """Peak learning rate per 256 images of the batch."""
  warmup_epochs: Annotated[float, Range(0, 10**6)] = 5.0
  """Length of the linear warmup, in epochs."""
  decay_rate: Annotated[float, Range(1e-6, 10)] = 0.97
  """exponential: factor of the rate every decay_epochs, counted from step 0."""
  decay_epochs: Annotated[float, _EPOCHS] = 2.4
  """exponential: epochs between two decays."""
  power: Annotated[float, Range(0.001, 1000)] = 2.0
  """polynomial: exponent of the decay, counted from the end of warmup."""
  end_learning_rate: Annotated[float, _RATE] = 0.1
  """polynomial: learning rate at the end of the run."""

  def __post_init__(self):
    check_ranges(self, "--schedule.")


@dataclass(frozen=True)
class BatchNormConfig:
  """Batch norm over groups of devices."""

  images_per_group: Annotated[int, _IMAGES] = 128
  """Approximate number of images that share statistics; sets the group size."""
  group_size: Annotated[int | None, Range(1, 2**20)] = None
  """Number of devices per group; None derives it from images_per_group."""
  momentum: Annotated[float, _SHARE] = 0.99
  """Share of the running statistics that a step keeps. After n steps the share
  momentum ** n of the initial values is left; short runs need less."""

  def __post_init__(self):
    check_ranges(self, "--batch-norm.")


@dataclass(frozen=True)
class Config:
  """Settings of a training run."""

  preset: str = "b0"
  """Preset that these settings started from."""
  batch_size: Annotated[int, _IMAGES] = 4096
  """Images per step, over all devices."""
  epochs: Annotated[float, _EPOCHS] = 350.0
  """Length of the run, in epochs."""
  label_smoothing: Annotated[float, _SHARE] = 0.1
  """Share of a label's probability spread over all classes."""
  ema_decay: Annotated[float, _SHARE] = 0.9999
  """Largest decay of the moving average of weights and statistics."""
  seed: Annotated[int, Range(0, 2**32 - 1)] = 0
  """Seed of initial weights, image order, augmentation and dropout."""
  eval_batch_size: Annotated[int | None, _IMAGES] = None
  """Images per evaluation step, over all devices; None takes batch_size."""
  eval_every_epochs: Annotated[float, _EPOCHS] = 1.0
  """Epochs between two evaluations."""
  checkpoint_every_epochs: Annotated[float, _EPOCHS] = 1.0
  """Epochs between two checkpoints."""
  log_every_steps: Annotated[int, _COUNT] = 10
  """Steps between two lines of the log."""
  keep_checkpoints: Annotated[int, _COUNT] = 3
  """Number of checkpoints to keep."""
  non_finite: Literal["stop", "rollback"] = "stop"
  """Reaction to a loss or gradient that is not finite: stop the run, or roll
  back to the last checkpoint and train on the images that follow."""
  most_rollbacks: Annotated[int, _COUNT] = 3
  """Largest number of rollbacks; the run stops at the next one."""
  # Each device is a thread; with 512 threads XLA's collectives time out.
  cpu_devices: Annotated[int, Range(1, 256)] = 1
  """Number of devices to simulate if there is only a CPU."""
  workdir: str | None = None
  """Folder of logs, checkpoints and curves; None takes runs/PRESET-TIME.
  Several processes need a folder that all of them can read and write."""
  distributed: Literal["auto", "on", "off"] = "auto"
  """Several processes: auto asks the launcher (Cloud TPU, GKE, SLURM, Open MPI,
  Kubernetes); on requires one; off runs a single process."""
  coordinator: str | None = None
  """HOST:PORT at which process 0 listens; None asks the launcher."""
  num_processes: Annotated[int | None, _PROCESSES] = None
  """Number of processes; None asks the launcher."""
  process_id: Annotated[int | None, Range(0, 2**20 - 1)] = None
  """Number of this process, from 0; None asks the launcher."""
  model: ModelConfig = field(default_factory=ModelConfig)
  data: DataConfig = field(default_factory=DataConfig)
  optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
  schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
  batch_norm: BatchNormConfig = field(default_factory=BatchNormConfig)

  def __post_init__(self):
    check_ranges(self, "--")
    self._check_processes()

  def _check_processes(self):
    given: Any = (self.coordinator, self.num_processes, self.process_id)
    if given == (None, None, None):
      return
    if self.distributed == "off" or None in given:
      raise UsageError(
        "--coordinator, --num-processes and --process-id go together, and not "
        f"with --distributed off; got {', '.join(map(str, given))} and "
        f"{self.distributed}"
      )
    address, count, number = given
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
