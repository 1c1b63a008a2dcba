"""Training step of a preset, lowered ahead of time, without hardware."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ...collectives import ALL_DEVICES
from ...model import EfficientNet
from ...train.assembly import Assembly, assemble, batch_norm_mesh
from ...train.data.source import IMAGENET_MEAN, IMAGENET_STD
from ...train.settings.config import Config
from ...train.step import ImageScale
from ..plain.model import PlainEfficientNet
from ..plain.step import make_plain_step, plain_state

# Training images and classes of ImageNet.
_EXAMPLES = 1_281_167
_CLASSES = 1000
_SCALE = ImageScale(IMAGENET_MEAN, IMAGENET_STD)


def lower_step(
  config: Config, devices: Sequence[jax.Device]
) -> jax.stages.Lowered:
  """Lower the training step for devices that need not exist.

  Args:
    config: Settings of a preset; the classes default to ImageNet's.
    devices: Devices of a whole slice, such as `static.slice_devices` returns.

  Returns:
    The lowered step, to compile.
  """
  assembly = _assemble(config, devices)
  step: Any = assembly.train_step
  return step.lower(assembly.abstract_state(), *_batch(config, assembly))


def lower_plain_step(
  config: Config, devices: Sequence[jax.Device]
) -> jax.stages.Lowered:
  """Lower the same recipe in plain JAX for the same devices.

  Args:
    config: Settings, as in `lower_step`.
    devices: Devices, as in `lower_step`.

  Returns:
    The lowered step, to compile.
  """
  assembly = _assemble(config, devices, PlainEfficientNet)
  mesh = assembly.sharding.mesh
  step = make_plain_step(
    assembly.model,
    assembly.schedule,
    config=config,
    scale=_SCALE,
    mesh=mesh,
  )
  shapes = jax.eval_shape(
    lambda: plain_state(
      assembly.create_model(nnx.Rngs(0)), config, assembly.schedule
    )
  )
  return step.lower(placed(shapes, mesh, P()), *_batch(config, assembly))


def _assemble(
  config: Config,
  devices: Sequence[jax.Device],
  network: type[EfficientNet] = EfficientNet,
) -> Assembly:
  return assemble(
    config,
    batch_norm_mesh(config, devices),
    examples=_EXAMPLES,
    num_classes=config.model.num_classes or _CLASSES,
    scale=_SCALE,
    network=network,
  )


def _batch(config: Config, assembly: Assembly) -> Any:
  """Return the shapes of images and labels, split over the devices."""
  size, side = config.batch_size, assembly.spec.resolution
  images = jax.ShapeDtypeStruct((size, side, side, 3), jnp.uint8)
  labels = jax.ShapeDtypeStruct((size,), jnp.int32)
  return placed((images, labels), assembly.sharding.mesh, P(ALL_DEVICES))


def placed(tree: Any, mesh: Mesh, spec: P) -> Any:
  """Give the shapes of a tree a sharding."""
  sharding = NamedSharding(mesh, spec)
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
  )
