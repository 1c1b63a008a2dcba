"""Table of the EfficientNet family and the rules that scale it.

Source: Tan and Le 2019, arXiv:1905.11946, section 4, and
`efficientnet_builder.py` of TensorFlow's reference implementation.
"""

import dataclasses
import difflib
import functools
import math
from typing import NamedTuple

from ..kernels import Activation


class Stage(NamedTuple):
  """Consecutive blocks with the same sizes in the unscaled network."""

  repeats: int
  kernel_size: int
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
# Largest width or depth accepted; the family's largest is 5.3.
_LARGEST_MULTIPLIER = 100


@dataclasses.dataclass(frozen=True)
class ModelSpec:
  """One member of the family.

  Attributes:
    width: Multiplier of all channel counts.
    depth: Multiplier of the blocks per stage.
    resolution: Height and width of the images, in pixels.
    dropout: Share of the head's features dropped in training.
    survival_prob: Probability of stochastic depth. Block i of b, from 0, is
      kept with probability 1 - (1 - survival_prob) * i / b.
    stem_stride: Stride of the first convolution.
    activation: Activation after batch norms.
    squeeze_excite: True if the blocks have squeeze-excite.
    scales_ends: True if `width` scales the stem and the head too, and `depth`
      the first and the last stage.
  """

  width: float
  depth: float
  resolution: int
  dropout: float
  survival_prob: float = 0.8
  stem_stride: int = 2
  activation: Activation = "silu"
  squeeze_excite: bool = True
  scales_ends: bool = True

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
    """Product of all strides: image side divided by feature-map side."""
    return self.stem_stride * math.prod(stage.stride for stage in STAGES)

  @property
  def stem_filters(self) -> int:
    """Channels of the stem's result."""
    return self._end_filters(STEM_FILTERS)

  @property
  def head_filters(self) -> int:
    """Channels of the head's result."""
    return self._end_filters(HEAD_FILTERS)

  def _end_filters(self, filters: int) -> int:
    return round_filters(filters, self.width) if self.scales_ends else filters


# Networks for phones, from `lite/efficientnet_lite_builder.py` of the same
# implementation.
_lite = functools.partial(
  ModelSpec, activation="relu6", squeeze_excite=False, scales_ends=False
)

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
  "lite0": _lite(1.0, 1.0, 224, 0.2),
  "lite1": _lite(1.0, 1.1, 240, 0.2),
  "lite2": _lite(1.1, 1.2, 260, 0.3),
  "lite3": _lite(1.2, 1.4, 280, 0.3),
  "lite4": _lite(1.4, 1.8, 300, 0.3),
}


class BlockSpec(NamedTuple):
  """Sizes of one inverted-residual block; `squeezed` is 0 for no gate."""

  kernel_size: int
  stride: int
  in_filters: int
  expanded: int
  out_filters: int
  squeezed: int
  survival_prob: float
  activation: Activation = "silu"


def model_spec(name: str, **overrides: float | int | None) -> ModelSpec:
  """Return the spec of a member of the family, with some values replaced.

  Args:
    name: Name of the member: 'b0' to 'b8', 'l2', or 'lite0' to 'lite4'.
    **overrides: Fields of `ModelSpec`; None keeps the family's value.

  Raises:
    ValueError: The name is unknown, or values do not fit each other.

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
  """Scale a channel count to a multiple of 8, at most a tenth below exact.

  >>> round_filters(32, 1.1), round_filters(192, 1.6)
  (32, 304)
  """
  scaled = filters * width
  rounded = max(8, int(scaled + 4) // 8 * 8)
  return rounded + 8 if rounded < 0.9 * scaled else rounded


def round_repeats(repeats: int, depth: float) -> int:
  """Scale the number of blocks, rounded up."""
  return math.ceil(repeats * depth)


def block_specs(spec: ModelSpec) -> list[BlockSpec]:
  """List the blocks of the network in order."""
  stages = list(zip(STAGES, _all_repeats(spec), strict=True))
  total = sum(repeats for _, repeats in stages)
  blocks: list[BlockSpec] = []
  filters = spec.stem_filters
  for stage, repeats in stages:
    out = round_filters(stage.filters, spec.width)
    for repeat in range(repeats):
      blocks.append(
        BlockSpec(
          kernel_size=stage.kernel_size,
          stride=stage.stride if repeat == 0 else 1,
          in_filters=filters,
          expanded=filters * stage.expand,
          out_filters=out,
          squeezed=(
            max(1, int(filters * SQUEEZE_RATIO)) if spec.squeeze_excite else 0
          ),
          survival_prob=1 - (1 - spec.survival_prob) * len(blocks) / total,
          activation=spec.activation,
        )
      )
      filters = out
  return blocks


def _all_repeats(spec: ModelSpec) -> list[int]:
  """Count the blocks of each stage."""
  repeats = [round_repeats(stage.repeats, spec.depth) for stage in STAGES]
  if not spec.scales_ends:
    repeats[0], repeats[-1] = STAGES[0].repeats, STAGES[-1].repeats
  return repeats
