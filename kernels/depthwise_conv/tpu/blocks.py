"""Block sizes of the depthwise kernels."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Blocks:
  """Sizes of a grid step; `geometry.py` has a picture.

  Attributes:
    rows: Output rows of a step; a step reads `stride` times as many input rows.
      A step with all rows needs no halo.
    sublanes: Images (HWNC) or channels (HWCN) of a step, a multiple of
      `packed`.
    packed: Sublanes that are loaded together, 8 or 16.
    columns: Columns of a tile, the part of a row that is computed in registers:
      output columns forward, input columns divided by the stride backward.
    fill_columns: Columns that are written to the buffer together.
    unroll: Rows that the compiler schedules together.
    bf16_pairs: True to load bfloat16 two columns at a time, as TPU v3 needs
      (`kernels.tpu.bf16_pairs`); `sublanes` is then 8.
    winograd: True to apply rows of taps by Winograd's minimal filtering.

  Raises:
    ValueError: Sizes are out of range or exclude each other.
  """

  rows: int
  sublanes: int
  packed: int
  columns: int
  fill_columns: int
  unroll: int = 1
  bf16_pairs: bool = False
  winograd: bool = False

  def __post_init__(self):
    sizes = "rows", "sublanes", "packed", "columns", "fill_columns", "unroll"
    for name in sizes:
      value = getattr(self, name)
      if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    if self.packed not in (8, 16):
      raise ValueError(f"packed must be 8 or 16, got {self.packed}")
    if self.sublanes % self.packed:
      raise ValueError(
        f"sublanes must be a multiple of packed ({self.packed}), got "
        f"{self.sublanes}"
      )
    if self.bf16_pairs and (
      self.sublanes != 8 or self.columns < 2 or self.fill_columns < 2
    ):
      raise ValueError(
        "bf16_pairs needs sublanes=8, columns>=2 and fill_columns>=2, got "
        f"{self.sublanes}, {self.columns} and {self.fill_columns}"
      )
    if self.bf16_pairs and self.winograd:
      raise ValueError(
        "bf16_pairs and winograd exclude each other, got both; set one to False"
      )
