"""Block sizes of the depthwise kernels."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Blocks:
  """What one grid step works on.

  Attributes:
    rows: Output rows of a step; its input rows are `stride` times as many. A
      step that has all rows needs no halo.
    sublanes: Images (HWNC) or channels (HWCN) of a step, a multiple of
      `packed`.
    packed: Of these, loaded together: 16, or 8.
    columns: Output columns (backward: input columns divided by the stride)
      that are convolved at a time, in registers.
    filled: Columns at a time on their way into the buffer.
    turns: Rows of either that the compiler schedules together.
    pairs: Whether bfloat16 is loaded two columns at a time, as TPU v3 needs
      (`tpu.pairs`); `sublanes` is then 8.
    minimal: Whether rows of taps are applied by minimal filtering
      (`winograd.py`).
  """

  rows: int
  sublanes: int
  packed: int
  columns: int
  filled: int
  turns: int = 1
  pairs: bool = False
  minimal: bool = False

  def __post_init__(self):
    for name in ("rows", "sublanes", "packed", "columns", "filled", "turns"):
      value = getattr(self, name)
      if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    if self.packed not in (8, 16):
      raise ValueError(f"packed must be 8 or 16, got {self.packed}")
    if self.sublanes % self.packed:
      raise ValueError(
        f"sublanes must be a multiple of {self.packed}, got {self.sublanes}"
      )
    if self.pairs and (
      self.sublanes != 8 or self.columns < 2 or self.filled < 2
    ):
      raise ValueError(
        "pairs needs 8 sublanes, 2 columns and 2 filled at least, got "
        f"{self.sublanes}, {self.columns} and {self.filled}"
      )
    if self.pairs and self.minimal:
      raise ValueError("pairs and minimal exclude each other")
