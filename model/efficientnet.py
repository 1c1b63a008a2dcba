"""The network, [h, w, n, c] from the stem to the head."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from .. import kernels
from .bands import Sizes, choose_bands
from .batch_norm import BatchNorm
from .block import Block
from .layers import Dense, Pending, Pointwise, Stem
from .regularization import Dropout, ImageRngs
from .remat import choose_remat
from .spec import (
  HEAD_FILTERS,
  STEM_FILTERS,
  ModelSpec,
  block_specs,
  model_spec,
  round_filters,
)


class EfficientNet(nnx.Module):
  """An EfficientNet (Tan and Le 2019, arXiv:1905.11946).

  Args:
    spec: Which one.
    num_classes: Number of logits.
    channels: Of the images.
    dtype: Of convolution inputs and stored activations; parameters, statistics
      and logits are float32.
    axis_name: Mesh axis over which batch norm shares its statistics inside
      `jax.shard_map`; None for each device alone.
    momentum: Of batch norm's running statistics; see `BatchNorm`.
    rngs: For the initial weights.
  """

  def __init__(
    self,
    spec: ModelSpec,
    *,
    num_classes: int = 1000,
    channels: int = 3,
    dtype: DTypeLike = jnp.bfloat16,
    axis_name: str | None = None,
    momentum: float = 0.99,
    rngs: nnx.Rngs,
  ):
    if num_classes < 1:
      raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    self.dtype = jnp.dtype(dtype)
    self.resolution = spec.resolution
    norm = partial(BatchNorm, axis_name=axis_name, momentum=momentum)
    blocks = block_specs(spec)
    stem = round_filters(STEM_FILTERS, spec.width)
    head = round_filters(HEAD_FILTERS, spec.width)
    self.stem = Stem(channels, stem, spec.stem_stride, rngs=rngs)
    self.stem_norm = norm(stem)
    self.blocks = nnx.List(
      [Block(block, norm=norm, rngs=rngs) for block in blocks]
    )
    self.head = Pointwise(blocks[-1].out_filters, head, rngs=rngs)
    self.head_norm = norm(head)
    self.dropout = Dropout(spec.dropout)
    limit = num_classes**-0.5
    self.classifier = Dense(
      jax.random.uniform(
        rngs.params(), (head, num_classes), jnp.float32, -limit, limit
      )
    )

  def __call__(
    self,
    images: jax.Array,
    *,
    rngs: nnx.Rngs | None = None,
    first_image: jax.Array | int = 0,
  ) -> jax.Array:
    """Logits of a batch of images.

    Args:
      images: `[n, h, w, c]`, floating, normalised. Any h and w will do; the
        accuracy is best near `resolution`.
      rngs: With a `dropout` stream; needed in training only.
      first_image: How many images of the whole batch come before these, where
        a device has a part: what is dropped depends on an image's place in it.

    Returns:
      `[n, num_classes]` float32.

    Raises:
      ValueError: images of another rank, dtype or number of channels, or no
        rngs in training.
    """
    _check_images(images, channels=self.stem.kernel.shape[2])
    all_bands, all_remat = self._plan(images)
    have = all_bands[0]
    with jax.named_scope("stem"):
      x, moments = self.stem(images.astype(self.dtype), have)
    pending: Pending | None = self.stem_norm.affine(moments)
    image_rngs = ImageRngs(rngs, first_image)
    plan = zip(self.blocks, all_bands, all_remat, strict=True)
    for i, (block, bands, remat) in enumerate(plan):
      x = kernels.change_bands(x, have, bands)
      with jax.named_scope(f"block_{i}"):
        x = block(x, pending, image_rngs, bands, remat)
      have, pending = bands, None
    raw, moments = self.head(kernels.change_bands(x, have, 1))
    _, features = kernels.batch_norm(
      raw, *self.head_norm.affine(moments), activation="silu", pool=True
    )
    return self.classifier(self.dropout(features, image_rngs))

  def _plan(self, images: jax.Array) -> tuple[list[int], list[bool]]:
    """The bands of each block, and whether it keeps less."""
    n, rows, columns, _ = images.shape
    sizes = Sizes(rows, columns, n, self.dtype).strided(self.stem.stride)
    specs = [block.spec for block in self.blocks]
    bands = choose_bands(sizes, specs)
    return bands, choose_remat(sizes, specs, bands)


def _check_images(images: jax.Array, channels: int) -> None:
  if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
    raise ValueError(
      "images must be [n, h, w, c] and floating, got "
      f"{images.dtype} {images.shape}; normalise uint8 images first"
    )
  if images.shape[3] != channels:
    raise ValueError(
      f"images of shape {images.shape} have {images.shape[3]} channels, the "
      f"network takes {channels}; it is made for others with channels="
    )


def efficientnet(
  name: str,
  *,
  num_classes: int = 1000,
  rngs: nnx.Rngs,
  channels: int = 3,
  dtype: DTypeLike = jnp.bfloat16,
  axis_name: str | None = None,
  momentum: float = 0.99,
  width: float | None = None,
  depth: float | None = None,
  resolution: int | None = None,
  dropout: float | None = None,
  survival_prob: float | None = None,
  stem_stride: int | None = None,
) -> EfficientNet:
  """The family's member `name`, with new weights.

  Args:
    name: 'b0' to 'b8', or 'l2'.
    num_classes: Number of logits.
    rngs: For the initial weights.
    channels: Of the images.
    dtype: Of convolution inputs and stored activations.
    axis_name: Mesh axis over which batch norm shares its statistics.
    momentum: Of batch norm's running statistics.
    width: Multiplier of all channel counts; None, here and below, takes the
      family's value.
    depth: Multiplier of the blocks per stage.
    resolution: Height and width of the images, in pixels.
    dropout: Share of the head's features dropped in training.
    survival_prob: Stochastic depth.
    stem_stride: 2, or 1 for small images.

  Returns:
    A `flax.nnx` module: images `[n, h, w, c]` in, logits float32 out.

  Raises:
    ValueError: an unknown name, or values that do not fit each other.

  >>> import jax
  >>> model = nnx.eval_shape(lambda: efficientnet("b0", rngs=nnx.Rngs(0)))
  >>> sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
  5288548
  """
  spec = model_spec(
    name,
    width=width,
    depth=depth,
    resolution=resolution,
    dropout=dropout,
    survival_prob=survival_prob,
    stem_stride=stem_stride,
  )
  return EfficientNet(
    spec,
    num_classes=num_classes,
    channels=channels,
    dtype=dtype,
    axis_name=axis_name,
    momentum=momentum,
    rngs=rngs,
  )
