"""The EfficientNet family as a table, and the rules that scale it.

Tan and Le 2019, arXiv:1905.11946, as `efficientnet_builder.py` of TensorFlow's
reference implementation has them.
"""

import dataclasses
import difflib
import math
from typing import NamedTuple


class Stage(NamedTuple):
  """Blocks of one kind in the unscaled network."""

  repeats: int
  kernel: int
  stride: int
  expand: int
  filters: int


STAGES = (
  Stage(1, 3, 1, 1, 16),
  Stage(2, 3, 2, 6, 24),
  Stage(2, 5, 2, 6, 40),
  Stage(3, 3, 2, 6, 80),
  Stage(3, 5, 1, 6, 112),
  Stage(4, 5, 2, 6, 192),
  Stage(1, 3, 1, 6, 320),
)
STEM_FILTERS = 32
HEAD_FILTERS = 1280
SQUEEZE_RATIO = 0.25
_LARGEST_MULTIPLIER = 100  # of width or depth; the family has up to 5.3


@dataclasses.dataclass(frozen=True)
class ModelSpec:
  """One member of the family.

  Attributes:
    width: Multiplier of all channel counts.
    depth: Multiplier of the blocks per stage.
    resolution: Height and width of the images, in pixels.
    dropout: Share of the head's features dropped in training.
    survival_prob: Stochastic depth; the chance to keep the block after the
      last. Block i of b is kept with 1 - (1 - survival_prob) * i / b.
    stem_stride: Stride of the first convolution.
  """

  width: float
  depth: float
  resolution: int
  dropout: float
  survival_prob: float = 0.8
  stem_stride: int = 2

  def __post_init__(self):
    for name in ("width", "depth"):
      if not 0 < getattr(self, name) <= _LARGEST_MULTIPLIER:
        raise ValueError(
          f"{name} must be above 0 and at most {_LARGEST_MULTIPLIER}, got "
          f"{getattr(self, name)}"
        )
    if not 0 <= self.dropout < 1:
      raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
    if not 0 < self.survival_prob <= 1:
      raise ValueError(
        f"survival_prob must be in (0, 1], got {self.survival_prob}"
      )
    if self.stem_stride not in (1, 2):
      raise ValueError(f"stem_stride must be 1 or 2, got {self.stem_stride}")
    if self.resolution < self.total_stride:
      cure = " or stem_stride=1" if self.stem_stride == 2 else ""
      raise ValueError(
        f"resolution {self.resolution} is too small: the strides divide it by "
        f"{self.total_stride}; use at least {self.total_stride} pixels{cure}"
      )

  @property
  def total_stride(self) -> int:
    """By how much the image's sides are divided at the head."""
    return self.stem_stride * math.prod(stage.stride for stage in STAGES)


FAMILY = {
  "b0": ModelSpec(1.0, 1.0, 224, 0.2),
  "b1": ModelSpec(1.0, 1.1, 240, 0.2),
  "b2": ModelSpec(1.1, 1.2, 260, 0.3),
  "b3": ModelSpec(1.2, 1.4, 300, 0.3),
  "b4": ModelSpec(1.4, 1.8, 380, 0.4),
  "b5": ModelSpec(1.6, 2.2, 456, 0.4),
  "b6": ModelSpec(1.8, 2.6, 528, 0.5),
  "b7": ModelSpec(2.0, 3.1, 600, 0.5),
  "b8": ModelSpec(2.2, 3.6, 672, 0.5),
  "l2": ModelSpec(4.3, 5.3, 800, 0.5),
}


class BlockSpec(NamedTuple):
  """One inverted-residual block, with its channel counts."""

  kernel: int
  stride: int
  in_filters: int
  expanded: int
  out_filters: int
  squeezed: int
  survival_prob: float


def model_spec(name: str, **overrides: float | int | None) -> ModelSpec:
  """The family's member `name`, with some values replaced.

  Args:
    name: 'b0' to 'b8', or 'l2'.
    **overrides: Fields of `ModelSpec`; None keeps the family's value.

  Raises:
    ValueError: an unknown name, or values that do not fit each other.

  >>> model_spec("b2", resolution=288).resolution
  288
  """
  if name not in FAMILY:
    near = difflib.get_close_matches(name.lower(), FAMILY, n=3, cutoff=0.4)
    raise ValueError(
      f"unknown model {name!r}; did you mean "
      f"{' or '.join(map(repr, near or FAMILY))}?"
    )
  given = {k: v for k, v in overrides.items() if v is not None}
  return dataclasses.replace(FAMILY[name], **given)  # type: ignore[arg-type]


def round_filters(filters: int, width: float) -> int:
  """Scaled channel count: a multiple of 8, at most a tenth below the product.

  >>> round_filters(32, 1.1), round_filters(192, 1.6)
  (32, 304)
  """
  scaled = filters * width
  rounded = max(8, int(scaled + 4) // 8 * 8)
  return rounded + 8 if rounded < 0.9 * scaled else rounded


def round_repeats(repeats: int, depth: float) -> int:
  """Scaled number of blocks, rounded up."""
  return math.ceil(repeats * depth)


def block_specs(spec: ModelSpec) -> list[BlockSpec]:
  """Every block of the network in order."""
  total = sum(round_repeats(stage.repeats, spec.depth) for stage in STAGES)
  blocks: list[BlockSpec] = []
  filters = round_filters(STEM_FILTERS, spec.width)
  for stage in STAGES:
    out = round_filters(stage.filters, spec.width)
    for repeat in range(round_repeats(stage.repeats, spec.depth)):
      blocks.append(
        BlockSpec(
          kernel=stage.kernel,
          stride=stage.stride if repeat == 0 else 1,
          in_filters=filters,
          expanded=filters * stage.expand,
          out_filters=out,
          squeezed=max(1, int(filters * SQUEEZE_RATIO)),
          survival_prob=1 - (1 - spec.survival_prob) * len(blocks) / total,
        )
      )
      filters = out
  return blocks
