"""Table 1 of arXiv:2011.00071, and slices with as many devices."""

PAPER_TABLE = {
  ("b2", 128): (57.57, 2.1),
  ("b2", 256): (113.73, 2.6),
  ("b2", 512): (227.13, 2.5),
  ("b2", 1024): (451.35, 2.81),
  ("b5", 128): (9.76, 0.89),
  ("b5", 256): (19.48, 1.24),
  ("b5", 512): (38.55, 1.24),
  ("b5", 1024): (77.44, 1.03),
}
"""Images a millisecond and per cent of the step in all-reduce, on v3.

By model and cores; from memory, not checked against the paper.
"""

SLICES: dict[str, dict[int, tuple[int, ...]]] = {
  "v3": {
    128: (8, 8),
    256: (8, 16),
    512: (16, 16),
    1024: (16, 32),
    2048: (32, 32),
  },
  "v4": {
    128: (4, 4, 8),
    256: (4, 8, 8),
    512: (8, 8, 8),
    1024: (8, 8, 16),
    2048: (8, 16, 16),
  },
  "v5e": {128: (8, 16), 256: (16, 16)},
  "v5p": {
    128: (4, 4, 8),
    256: (4, 8, 8),
    512: (8, 8, 8),
    1024: (8, 8, 16),
    2048: (8, 16, 16),
  },
  "v6e": {128: (8, 16), 256: (16, 16)},
}
"""Sides in chips, by chip and number of devices, where such slices exist."""
