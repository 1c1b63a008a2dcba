"""Times of the whole training step, against the network in plain JAX."""

import dataclasses
from typing import Any

import jax
import numpy as np

from ...model import EfficientNet
from ...train.assembly import assemble, batch_norm_mesh
from ...train.data.source import IMAGENET_MEAN, IMAGENET_STD
from ...train.settings.config import Config
from ...train.settings.presets import get_preset
from ...train.step import ImageScale
from ..plain.model import PlainEfficientNet
from .difference import relative_difference
from .kernels import bench_dtype
from .timing import Timing, compile_and_time

# Training images and classes of ImageNet.
_EXAMPLES = 1_281_167
_CLASSES = 1000


def compare_with_plain(config: Config, *, runs: int) -> list[dict[str, Any]]:
  """Time both steps on one device.

  A step takes uint8 images and computes new weights, averages and statistics.

  Args:
    config: Settings of the step, such as `step_config` returns. With dropout or
      stochastic depth the two sides draw different masks.
    runs: Number of timed runs of each side.

  Returns:
    A row for "plain" and one for "podscale": images per second, times and
    memory (see `Timing`), the loss of the first step, and the largest
    difference of its gradients' norms by leaf, relative to the largest.
  """
  timings = {
    "plain": _time_step(config, PlainEfficientNet, runs),
    "podscale": _time_step(config, EfficientNet, runs),
  }
  metrics = {name: timing.first[1] for name, timing in timings.items()}
  norms = [each["leaf_gradient_norms"] for each in metrics.values()]
  difference = relative_difference(*norms)
  return [
    {
      "step": name,
      "images_per_s": config.batch_size / timing.median,
      "loss": float(metrics[name]["loss"]),
      "difference": difference if name == "podscale" else None,
      **timing.row(),
    }
    for name, timing in timings.items()
  ]


def step_config(model: str, *, resolution: int, batch_size: int) -> Config:
  """Return the model's preset, in `bench_dtype` and without regularization.

  Args:
    model: Member of the family.
    resolution: Height and width of the images, in pixels.
    batch_size: Images in a step.
  """
  preset = get_preset(model)
  return dataclasses.replace(
    preset,
    batch_size=batch_size,
    model=dataclasses.replace(
      preset.model,
      resolution=resolution,
      dropout=0.0,
      survival_prob=1.0,
      dtype=bench_dtype(),
    ),
  )


def _time_step(
  config: Config, network: type[EfficientNet], runs: int
) -> Timing:
  assembly = assemble(
    config,
    batch_norm_mesh(config, jax.devices()[:1]),
    examples=_EXAMPLES,
    num_classes=_CLASSES,
    scale=ImageScale(IMAGENET_MEAN, IMAGENET_STD),
    network=network,
  )
  images, labels = _batch(config.batch_size, assembly.spec.resolution)
  return compile_and_time(
    assembly.train_step,
    assembly.init_state(),
    *(images, labels),
    runs=runs,
    carry=True,
  )


def _batch(size: int, resolution: int) -> tuple[np.ndarray, np.ndarray]:
  random = np.random.default_rng(0)
  shape = (size, resolution, resolution, 3)
  images = random.integers(0, 256, shape, dtype=np.uint8)
  return images, random.integers(0, _CLASSES, size, dtype=np.int32)
