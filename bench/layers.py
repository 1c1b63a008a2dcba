"""Layers that benchmarks and tests run on, from the family's table."""

from typing import NamedTuple

from ..model.spec import block_specs, model_spec


class DepthwiseShape(NamedTuple):
  """Shape of a depthwise layer.

  Attributes:
    size: Height and width of the input, in pixels.
    channels: Number of channels.
    kernel_size: Height and width of the filters, in pixels.
    stride: Stride in both directions.
  """

  size: int
  channels: int
  kernel_size: int
  stride: int

  def __str__(self) -> str:
    return (
      f"{self.size}x{self.size}x{self.channels} "
      f"{self.kernel_size}x{self.kernel_size} s{self.stride}"
    )


def depthwise_shapes(
  model: str, resolution: int | None = None
) -> list[DepthwiseShape]:
  """List the distinct depthwise layers of a network, in order of execution.

  Args:
    model: Member of the family, such as "b0".
    resolution: Height and width of the images; None for the model's own.

  >>> [str(shape) for shape in depthwise_shapes("b0")[:2]]
  ['112x112x32 3x3 s1', '112x112x96 3x3 s2']
  """
  spec = model_spec(model, resolution=resolution)
  size = -(-spec.resolution // spec.stem_stride)
  shapes = []
  for block in block_specs(spec):
    shapes.append(
      DepthwiseShape(size, block.expanded, block.kernel_size, block.stride)
    )
    size = -(-size // block.stride)
  return list(dict.fromkeys(shapes))


def family_shapes() -> list[DepthwiseShape]:
  """List the distinct depthwise layers of B0 to B7 at their own resolutions.

  >>> len(family_shapes())
  110
  """
  models = (f"b{i}" for i in range(8))
  shapes = [shape for model in models for shape in depthwise_shapes(model)]
  return list(dict.fromkeys(shapes))
