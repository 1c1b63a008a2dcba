"""Published hardware times, each with a program that we can compile.

No depthwise or grouped convolution, element-wise pass or reduction was found
with its shapes and its time on the device.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal, NamedTuple

import jax

from ..static.compile import slice_devices
from .programs import (
  lower_all_gather,
  lower_all_reduce,
  lower_blocked_matmul,
  lower_copy,
  lower_matmul,
  lower_permute,
)
from .resnet import lower_step

Constant = Literal[
  "",
  "HBM_EFFICIENCY",
  "DMA_SHARE",
  "DMA_LATENCY_US",
  "STEP_US",
  "LINK_EFFICIENCY",
]
Clock = Literal["device", "host", "run", "at most"]

_RECIPES = "AI-Hypercomputer/tpu-recipes, microbenchmarks/"
_NOTEBOOK = "jax-ml/jax, docs/pallas/tpu/matmul.ipynb"
_MARIN = "marin-community/marin, issue 6736"
# The notebook's shortest call, all of it: no dispatch took longer.
_DISPATCH_US = 119.0


class Pair(NamedTuple):
  """A program and its published time.

  Attributes:
    program: Program in words, with its sizes.
    chip: One of `CHIPS`.
    topology: Slice of the collectives; "" for one core.
    published_us: Microseconds.
    lower: Function that lowers the program.
    source: Repository, and path or issue.
    clock: "device" for its trace or a slope over repeated calls; "host" for a
      time with dispatch; "run" for a whole run divided by its steps; "at most"
      for a time that other work is known to be in.
    overhead_us: Largest part of `published_us` in which the device did not run
      the program.
    is_alone: True if the time is of the collective alone, without copies
      around it.
    fits: Constant that the pair fitted, or "".
  """

  program: str
  chip: str
  topology: str
  published_us: float
  lower: Callable[[], jax.stages.Lowered]
  source: str
  clock: Clock = "device"
  overhead_us: float = 0.0
  is_alone: bool = False
  fits: Constant = ""

  def ratio(self, estimate_us: float) -> float:
    """Divide an estimate by the nearest time that the publication allows."""
    low = (
      0.0 if self.clock == "at most" else self.published_us - self.overhead_us
    )
    return estimate_us / min(max(estimate_us, low), self.published_us)


def all_pairs() -> list[Pair]:
  """List the pairs, by chip."""
  return [
    *_resnets(),
    *_v5e_matmuls(),
    *_shifts(),
    *_v6e(),
    *_tpu7x_copies(),
    *_tpu7x_matmuls(),
    *_gathers(),
  ]


def _resnets() -> Iterator[Pair]:
  flax = "google/flax, examples/imagenet/README.md: 125,100 steps in 4.4 h"
  mlperf = (
    "mlcommons/training_results_v1.0, Google/results/tpu-v4-128-TF/resnet: "
    "628 steps of 8,192 images on 64 chips, and an evaluation, in 23.19 s"
  )
  # A device is a core of v3 and a chip of v4.
  for chip, topology, ms, source in (
    ("v3", "v3:2x2", 126.6, flax),
    ("v4", "v4:2x2x1", 36.9, mlperf),
  ):
    yield Pair(
      "ResNet-50 step, 128 images a device",
      chip,
      topology,
      1e3 * ms,
      partial(_lower_resnet, topology, 128, chip == "v4"),
      source,
      clock="at most" if chip == "v4" else "run",
    )


def _lower_resnet(
  topology: str, images: int, space_to_depth: bool
) -> jax.stages.Lowered:
  devices = slice_devices(topology)
  return lower_step(devices, images, space_to_depth=space_to_depth)


def _v5e_matmuls() -> Iterator[Pair]:
  """Yield products timed by the host's clock, dispatch included."""
  small, large = (128, 128, 128), (512, 1024, 1024)
  fitted = small, 4096, ""
  for block, size, us, transpose, relu in (
    (small, 1024, 298.0, False, False),
    (small, 4096, 11_771.5, False, False),
    (small, 8192, 91_835.8, False, False),
    (small, 4096, 12_018.0, True, False),
    (small, 8192, 95_009.2, True, False),
    (small, 4096, 11_807.1, False, True),
    (large, 1024, 127.0, False, False),
    (large, 4096, 889.1, False, False),
    (large, 8192, 6_099.4, False, False),
    (large, 8192, 6_107.7, True, False),
    (large, 8192, 6_130.6, False, True),
  ):
    kind = " transposed" * transpose + ", relu" * relu
    blocks = "x".join(map(str, block))
    yield Pair(
      f"{size} cubed, blocks {blocks}{kind}",
      "v5e",
      "",
      us,
      partial(
        lower_blocked_matmul,
        *("v5e", size, block),
        transpose=transpose,
        relu=relu,
      ),
      _NOTEBOOK,
      clock="host",
      overhead_us=_DISPATCH_US,
      fits="DMA_LATENCY_US" if (block, size, kind) == fitted else "",
    )
  for size, us in (4096, 827.3), (8192, 6_047.1):
    yield Pair(
      f"{size} cubed, XLA",
      *("v5e", "", us, partial(lower_matmul, "v5e", size), _NOTEBOOK),
      clock="host",
      overhead_us=_DISPATCH_US,
    )


def _shifts() -> Iterator[Pair]:
  """Yield shifts of bytes to the next chip; slopes over repeated calls."""
  mib = 2**20
  for chip, topology, times in (
    ("v5p", "v5p:2x2x1", {1024: 4.5, mib: 16.94, 64 * mib: 781.98}),
    ("v6e", "v6e:2x4", {1024: 5.6, mib: 17.45, 64 * mib: 776.34}),
  ):
    fits: dict[int, Constant] = {1024: "STEP_US", 64 * mib: "LINK_EFFICIENCY"}
    for bytes_, us in times.items():
      yield Pair(
        f"shift of {_size(bytes_)} to the next chip",
        chip,
        topology,
        us,
        partial(lower_permute, topology, bytes_),
        _MARIN,
        is_alone=True,
        fits=fits.get(bytes_, ""),
      )


def _v6e() -> Iterator[Pair]:
  readme = _RECIPES + "README.md"
  copy = partial(lower_copy, "v6e", 2**25)
  yield Pair("copy of 32 MiB", "v6e", "", 49.36, copy, readme)
  matmul = partial(lower_matmul, "v6e", 8192)
  yield Pair("8192 cubed, XLA", "v6e", "", 1_328.8, matmul, readme)
  # 235.76 GB/s of 2 (n - 1) / n times 606 MB; timed on the host.
  us = 2 * 255 / 256 * 17_408**2 * 2 / 235.76e3
  yield Pair(
    "sum of 606 MB over 256 chips",
    *("v6e", "v6e:16x16", us),
    partial(lower_all_reduce, "v6e:16x16", 17_408),
    _RECIPES + "trillium/collectives/README.md",
    clock="at most",
    is_alone=True,
  )


def _tpu7x_copies() -> Iterator[Pair]:
  """Yield copies on one core, from GB/s of reads and writes."""
  fits: dict[int, Constant] = {
    2: "DMA_SHARE",
    **dict.fromkeys((256, 512, 1024), "HBM_EFFICIENCY"),
  }
  for mib, gb_per_s in (
    (2, 1379.335),
    (4, 2249.746),
    (8, 2246.130),
    (16, 2757.309),
    (32, 3009.836),
    (64, 3097.218),
    (128, 3176.503),
    (256, 3167.144),
    (512, 3199.021),
    (1024, 3198.414),
  ):
    bytes_ = mib * 2**20
    yield Pair(
      f"copy of {_size(bytes_)}",
      *("tpu7x", "", 2 * bytes_ / gb_per_s / 1e3),
      partial(lower_copy, "tpu7x", bytes_),
      _RECIPES + "ironwood/hbm/hbm.md",
      fits=fits.get(mib, ""),
    )


def _tpu7x_matmuls() -> Iterator[Pair]:
  """Yield products of one core, from TFLOP/s, and two of another source."""
  fits: dict[int, Constant] = {
    128: "DMA_LATENCY_US",
    512: "DMA_SHARE",
    1024: "DMA_SHARE",
  }
  for size, tflop_per_s in (
    (128, 2.58996),
    (256, 18.28645),
    (512, 105.07835),
    (1024, 349.72706),
    (2048, 679.28473),
    (4096, 892.94451),
    (16384, 950.12870),
  ):
    yield Pair(
      f"{size} cubed, XLA",
      *("tpu7x", "", 2 * size**3 / tflop_per_s / 1e6),
      partial(lower_matmul, "tpu7x", size),
      _RECIPES + "ironwood/README.md",
      fits=fits.get(size, ""),
    )
  for size, us in (1024, 5.61), (2048, 22.88):
    yield Pair(
      f"{size} cubed, XLA",
      *("tpu7x", "", us, partial(lower_matmul, "tpu7x", size)),
      "pytorch/helion, pull request 2632",
    )


def _gathers() -> Iterator[Pair]:
  """Yield gathers, from GB/s of 1.5 times the gathered bytes."""
  for rows, gb_per_s in (
    (64, 71.7703),
    (256, 129.1869),
    (1024, 161.9041),
    (4096, 174.7655),
    (16384, 178.7714),
  ):
    gathered = 4 * rows * 8 * 128 * 4
    fits: dict[int, Constant] = {64: "STEP_US", 16384: "LINK_EFFICIENCY"}
    yield Pair(
      f"gather of {_size(gathered)} over 4 chips",
      *("tpu7x", "tpu7x:2x2x1", 1.5 * gathered / gb_per_s / 1e3),
      partial(lower_all_gather, "tpu7x:2x2x1", (rows, 8, 128)),
      _RECIPES + "ironwood/collectives/all_gather.md",
      is_alone=True,
      fits=fits.get(rows, ""),
    )


def _size(bytes_: int) -> str:
  """Write a number of bytes.

  >>> _size(2**21), _size(1024)
  ('2 MiB', '1 KiB')
  """
  return (
    f"{bytes_ // 2**20} MiB" if bytes_ >= 2**20 else f"{bytes_ // 1024} KiB"
  )
