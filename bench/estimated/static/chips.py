"""What the model knows of each chip, per TensorCore.

Clocks are libtpu's: `pl.delay(1000)` (nanoseconds) compiles to `vdelay` of
700, 940, 1050, 1500, 1750, 1750 and 1900 cycles. Bandwidths are a chip's over
its cores. From cloud.google.com/tpu/docs: v4 1,200 GB/s (jax's table has 1,230,
which is taken), v5e 819, v5p 2,765, v6e 1,638. No official page was found for
v2 and v3 (700 and 900 are quoted by others) and tpu7x (jax: 7,400; libtpu:
3,686 a core). The sizes of HBM are from the same pages, for v2 and v3 jax's.

The latency was never measured: it is what libtpu's own `estimated_cycles` of
additions of growing size hold besides a constant times their bytes: 183, 241,
598, 1,815, 2,116, 2,115 and 2,296 cycles. Granules were checked against the
windows that the compiler writes beside its DMAs, delay slots against its
schedules.
"""

from typing import NamedTuple


class Chip(NamedTuple):
  """One TensorCore.

  Attributes:
    topology: Name of its smallest topology, for compiling ahead of time.
    mhz: Clock.
    hbm_gib: HBM of one core, 2**30 bytes.
    hbm_gb_per_s: HBM bandwidth, reads and writes together, 1e9 bytes.
    latency_us: From the start of a DMA to the arrival of its last byte, beyond
      what the bandwidth takes.
    granule: Bytes in one unit of a DMA's size.
    delay_slots: Bundles that run after a branch before it is taken.
    delay_in_cycles: The delay slots are cycles instead of bundles.
    capacities: Slots of each unit in a bundle, as `Utilisation` has them.
  """

  topology: str
  mhz: int
  hbm_gib: float
  hbm_gb_per_s: float
  latency_us: float
  granule: int
  delay_slots: int
  delay_in_cycles: bool
  capacities: tuple[int, ...]

  @property
  def bytes_per_cycle(self) -> float:
    """HBM bytes in one cycle of the clock.

    >>> CHIPS["v5e"].bytes_per_cycle
    546.0
    """
    return self.hbm_gb_per_s * 1e3 / self.mhz

  @property
  def vector_slots(self) -> int:
    """Vector ALU operations in one bundle."""
    return self.capacities[0]

  @property
  def latency(self) -> float:
    """Latency of a DMA in cycles."""
    return self.latency_us * self.mhz


_V5_SLOTS = (4, 2, 1, 3, 3, 1, 1, 2)
_V6_SLOTS = (4, 2, 1, 3, 3, 2, 2, 2)

CHIPS = {
  "v2": Chip(
    *("v2:2x2", 700, 8, 350.0, 0.26, 1024, 1, False),
    (2, 1, 1, 1, 1, 1, 1, 2),
  ),
  "v3": Chip(
    *("v3:2x2", 940, 16, 450.0, 0.26, 1024, 1, False),
    (2, 1, 1, 1, 1, 1, 1, 2),
  ),
  "v4": Chip(
    *("v4:2x2x1", 1050, 16, 614.0, 0.57, 512, 1, False),
    (2, 2, 1, 1, 1, 1, 1, 2),
  ),
  "v5e": Chip("v5e:2x2", 1500, 16, 819.0, 1.21, 32, 4, False, _V5_SLOTS),
  "v5p": Chip("v5p:2x2x1", 1750, 47.5, 1382.5, 1.21, 32, 4, False, _V5_SLOTS),
  "v6e": Chip("v6e:2x2", 1750, 32, 1638.0, 1.21, 32, 4, False, _V6_SLOTS),
  "tpu7x": Chip("tpu7x:2x2x1", 1900, 96, 3690.0, 1.21, 32, 6, True, _V6_SLOTS),
}
"""The chips that libtpu compiles for, by the names of `bench --chip`."""
