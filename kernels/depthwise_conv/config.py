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
  """

  rows: int
  images: int
  packed: int
  columns: int
  activated: int

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if value < 1:
        raise ValueError(f"{field.name} must be at least 1, got {value}")
    if self.packed not in (8, 16):
      raise ValueError(f"packed must be 8 or 16, got {self.packed}")
    if self.images % self.packed:
      raise ValueError(
        f"images must be a multiple of {self.packed}, got {self.images}"
      )
