"""Block sizes of the depthwise kernels, and what they take of VMEM."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Blocks:
  """What one grid step works on.

  Attributes:
    rows: Output rows of a step; its input rows are `stride` times as many. A
      step that has all rows needs no halo.
    images: Images of a step, a multiple of `packed`.
    packed: Images loaded together: 16, or 8.
    columns: Output columns (backward: input columns divided by the stride)
      that are convolved at a time, in registers.
    activated: Columns at a time on their way into the buffer.
    pairs: Whether bfloat16 is loaded two columns at a time, as TPU v3 needs
      (`tpu.pairs`); `images` is then 8.
  """

  rows: int
  images: int
  packed: int
  columns: int
  activated: int
  pairs: bool = False

  def __post_init__(self):
    for name in ("rows", "images", "packed", "columns", "activated"):
      value = getattr(self, name)
      if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    if self.packed not in (8, 16):
      raise ValueError(f"packed must be 8 or 16, got {self.packed}")
    if self.images % self.packed:
      raise ValueError(
        f"images must be a multiple of {self.packed}, got {self.images}"
      )
    if self.pairs and (
      self.images != 8 or self.columns < 2 or self.activated < 2
    ):
      raise ValueError(
        "pairs needs 8 images, 2 columns and 2 activated at least, got "
        f"{self.images}, {self.columns} and {self.activated}"
      )
