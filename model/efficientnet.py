"""EfficientNet, with activations [h, w, n, c] from the stem to the head."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from .. import kernels
from .bands import Sizes, choose_bands
from .batch_norm import BatchNorm
from .block import Block
from .pending import Pending
from .pointwise_conv_bn import PointwiseConvBN
from .regularization import Dropout, ImageRngs
from .remat import choose_remat
from .spec import ModelSpec, block_specs, model_spec
from .squeeze_excite import Dense
from .stem import Stem


class EfficientNet(nnx.Module):
  """EfficientNet (Tan and Le 2019, arXiv:1905.11946, section 4).

  Args:
    spec: Sizes of the network; see `model_spec`.
    num_classes: Number of logits.
    channels: Number of image channels.
    dtype: Dtype of convolution inputs and stored activations; parameters,
      statistics and logits are float32.
    axis_name: Mesh axis over which batch norm shares its statistics inside
      `jax.shard_map`; None for each device alone.
    momentum: Weight of batch norm's old running statistics; see `BatchNorm`.
    rngs: Random numbers for the initial weights.
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
    self.stem = Stem(
      channels,
      spec.stem_filters,
      spec.stem_stride,
      activation=spec.activation,
      norm=norm,
      rngs=rngs,
    )
    self.blocks = nnx.List(
      [Block(block, norm=norm, rngs=rngs) for block in blocks]
    )
    head = spec.head_filters
    self.head = PointwiseConvBN(
      blocks[-1].out_filters,
      head,
      activation=spec.activation,
      layout="HWNC",
      norm=norm,
      rngs=rngs,
    )
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
    """Compute the logits of a batch of images.

    Args:
      images: Normalised images, floating point `[n, h, w, c]`. Any h and w are
        valid; the accuracy is best near `resolution`.
      rngs: Random numbers with a `dropout` stream; needed in training only.
      first_image: Index in the whole batch of this device's first image.
        Dropout depends on the index of an image, not on its device.

    Returns:
      Logits, float32 `[n, num_classes]`.

    Raises:
      ValueError: The images have another rank, dtype or number of channels, or
        rngs is None in training.
    """
    _check_images(images, channels=self.stem.kernel.shape[2])
    all_bands, all_remat = self._plan(images)
    with jax.named_scope("stem"):
      x = self.stem(images.astype(self.dtype), all_bands[0])
    image_rngs = ImageRngs(rngs, first_image)
    plan = zip(self.blocks, all_bands, all_remat, strict=True)
    for i, (block, bands, remat) in enumerate(plan):
      x = _in_bands(x, bands)
      with jax.named_scope(f"block_{i}"):
        x = block(x, image_rngs, remat)
    features = self.head(_in_bands(x, 1)).pooled()
    return self.classifier(self.dropout(features, image_rngs))

  def _plan(self, images: jax.Array) -> tuple[list[int], list[bool]]:
    """Choose the bands of each block, and the blocks that recompute."""
    n, rows, columns, _ = images.shape
    sizes = Sizes(rows, columns, n, self.dtype).strided(self.stem.stride)
    specs = [block.spec for block in self.blocks]
    bands = choose_bands(sizes, specs)
    return bands, choose_remat(sizes, specs, bands)


def _in_bands(x: Pending, bands: int) -> Pending:
  raw = kernels.change_bands(x.raw, x.bands, bands)
  return dataclasses.replace(x, raw=raw, bands=bands)


def _check_images(images: jax.Array, channels: int) -> None:
  if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
    raise ValueError(
      "images must be floating point [n, h, w, c], got "
      f"{images.dtype} {images.shape}; normalise uint8 images first"
    )
  if images.shape[3] != channels:
    raise ValueError(
      f"images of shape {images.shape} have {images.shape[3]} channels, but "
      f"the network takes {channels}; construct it with "
      f"channels={images.shape[3]}"
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
  """Build the family's member `name` with new weights.

  Args:
    name: Name of the member: 'b0' to 'b8', 'l2', or 'lite0' to 'lite4'.
    num_classes: Number of logits.
    rngs: Random numbers for the initial weights.
    channels: Number of image channels.
    dtype: Dtype of convolution inputs and stored activations.
    axis_name: Mesh axis over which batch norm shares its statistics.
    momentum: Weight of batch norm's old running statistics.
    width: Multiplier of all channel counts; None, here and below, for the
      family's value.
    depth: Multiplier of the blocks per stage.
    resolution: Height and width of the images, in pixels.
    dropout: Share of the head's features dropped in training.
    survival_prob: Probability to keep the last block (stochastic depth).
    stem_stride: Stride of the stem: 2, or 1 for small images.

  Returns:
    `flax.nnx` module from images `[n, h, w, c]` to logits, float32
    `[n, num_classes]`.

  Raises:
    ValueError: The name is unknown, or values do not fit each other.

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
