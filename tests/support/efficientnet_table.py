"""Published sizes of the EfficientNet family.

Widths, repeats and settings come from TensorFlow's `efficientnet_builder.py`
(tensorflow/tpu), parameter counts from torchvision's models. Blocks, batch-norm
layers and multiply-adds follow from these.
"""

from typing import NamedTuple


class Row(NamedTuple):
  """Member of the family."""

  width: float
  depth: float
  resolution: int
  dropout: float
  stem: int
  filters: tuple[int, ...]  # of each stage
  repeats: tuple[int, ...]
  blocks: int
  skips: int  # blocks whose input is added
  head: int
  parameters: int
  norms: int  # batch-norm layers
  norm_channels: int
  gmacs: float  # rounded to three decimals


_B0 = (16, 24, 40, 80, 112, 192, 320)
_B2 = (16, 24, 48, 88, 120, 208, 352)
_B3 = (24, 32, 48, 96, 136, 232, 384)
_B4 = (24, 32, 56, 112, 160, 272, 448)
_B5 = (24, 40, 64, 128, 176, 304, 512)
_B6 = (32, 40, 72, 144, 200, 344, 576)
_B7 = (32, 48, 80, 160, 224, 384, 640)

# fmt: off
TABLE = {
  "b0": Row(1.0, 1.0, 224, 0.2, 32, _B0, (1, 2, 2, 3, 3, 4, 1),
            16, 9, 1280, 5_288_548, 49, 21_008, 0.386),
  "b1": Row(1.0, 1.1, 240, 0.2, 32, _B0, (2, 3, 3, 4, 4, 5, 2),
            23, 16, 1280, 7_794_184, 69, 31_024, 0.687),
  "b2": Row(1.1, 1.2, 260, 0.3, 32, _B2, (2, 3, 3, 4, 4, 5, 2),
            23, 16, 1408, 9_109_994, 69, 33_784, 0.994),
  "b3": Row(1.2, 1.4, 300, 0.3, 40, _B3, (2, 3, 3, 5, 5, 6, 2),
            26, 19, 1536, 12_233_232, 78, 43_648, 1.827),
  "b4": Row(1.4, 1.8, 380, 0.4, 48, _B4, (2, 4, 4, 6, 6, 8, 2),
            32, 25, 1792, 19_341_616, 96, 62_600, 4.394),
  "b5": Row(1.6, 2.2, 456, 0.4, 48, _B5, (3, 5, 5, 7, 7, 9, 3),
            39, 32, 2048, 30_389_784, 116, 86_368, 10.266),
  "b6": Row(1.8, 2.6, 528, 0.5, 56, _B6, (3, 6, 6, 8, 8, 11, 3),
            45, 38, 2304, 43_040_704, 134, 112_216, 19.068),
  "b7": Row(2.0, 3.1, 600, 0.5, 64, _B7, (4, 7, 7, 10, 10, 13, 4),
            55, 48, 2560, 66_347_960, 163, 155_360, 37.746),
}
# fmt: on
