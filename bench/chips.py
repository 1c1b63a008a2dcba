"""Facts about each TPU chip, per TensorCore.

Clocks are libtpu's: `pl.delay(1000)` (nanoseconds) compiles to `vdelay` of
700, 940, 1050, 1500, 1750, 1750 and 1900 cycles. Bandwidths are a chip's,
divided by its cores. cloud.google.com/tpu/docs has v4 1,200 GB/s (jax's table
has 1,230, used here), v5e 819, v5p 2,765, v6e 1,638. No official page was found
for v2 and v3 (others quote 700 and 900) and tpu7x (jax: 7,400; libtpu: 3,686 a
core). The sizes of HBM are from the same pages; jax has those of v2 and v3.

Links: the all-reduce bandwidth of a pod, from the same pages, divided by its
chips and their ports: v3 340 TB/s by 1,024 chips and 4 ports, v4 1.1 PB/s by
4,096 and 6, v5e 51.2 TB/s by 256 and 4, v6e 102.4 TB/s by 256 and 4. v5p and
tpu7x: 1,200 GB/s a chip, both directions, by 6 ports. v2: 496 Gb/s, Jouppi et
al. 2020.

`HBM_EFFICIENCY`, `DMA_SHARE`, `DMA_LATENCY_US`, `LINK_EFFICIENCY` and `STEP_US`
are fitted to published times, see `estimated/calibration`. Granules were
checked against the windows that the compiler writes beside its DMAs, delay
slots against its schedules.
"""

from typing import NamedTuple

HBM_EFFICIENCY = 0.87
"""Share of the nominal HBM bandwidth that long streams of DMAs reach.

The rest goes to refreshing and to opening rows. Fitted to copies on tpu7x;
other chips have the same value.
"""

DMA_SHARE = 0.73
"""Share of the HBM bandwidth that one DMA reaches while no other runs.

Fitted to copies and products of few DMAs on tpu7x; other chips have the same
value.
"""

DMA_LATENCY_US = 0.43
"""Time from the start of a DMA to its arrival, without the bytes' own time.

Fitted to kernels of v5e and tpu7x that wait for small DMAs; other chips have
the same value.
"""

LINK_EFFICIENCY = 0.88
"""Share of a link's bandwidth that large messages reach.

Fitted to gathers on tpu7x and shifts on v5p and v6e; others have the same.
"""

STEP_US = 4.8
"""Latency of one step of XLA's collectives.

Fitted to small gathers on tpu7x and small shifts on v5p and v6e, whose value v4
and v5e have.
"""

_STEP_US_OF_V3 = 2.9
"""The same on v2 and v3, by the shares in all-reduce of the paper's Table 1.

They include waiting for other cores.
"""


class Chip(NamedTuple):
  """One TensorCore.

  Attributes:
    topology: Name of the smallest topology, for compiling ahead of time.
    mhz: Clock frequency.
    hbm_gib: HBM of one core, in 2**30 bytes.
    nominal_gb_per_s: HBM bandwidth by the data sheet, reads and writes
      together, in 1e9 bytes.
    link_gb_per_s: Bandwidth of a link to another chip, in one direction.
    granule: Bytes in one unit of a DMA's size.
    delay_slots: Bundles that run after a branch before the jump.
    delay_in_cycles: True if the delay slots are cycles instead of bundles.
    capacities: Slots of each unit in a bundle, in the order of `Utilisation`.
    hbm_efficiency: Share of `nominal_gb_per_s` that programs reach.
    dma_share: Share of `hbm_gb_per_s` that one DMA reaches by itself.
    latency_us: Time from the start of a DMA to the arrival of its last byte,
      without the time by the bandwidth.
    link_efficiency: Share of `link_gb_per_s` that large messages reach.
    step_us: Latency of one step of XLA's collectives.
  """

  topology: str
  mhz: int
  hbm_gib: float
  nominal_gb_per_s: float
  link_gb_per_s: float
  granule: int
  delay_slots: int
  delay_in_cycles: bool
  capacities: tuple[int, ...]
  hbm_efficiency: float = HBM_EFFICIENCY
  dma_share: float = DMA_SHARE
  latency_us: float = DMA_LATENCY_US
  link_efficiency: float = LINK_EFFICIENCY
  step_us: float = STEP_US

  @property
  def hbm_gb_per_s(self) -> float:
    """HBM bandwidth that programs reach, in 1e9 bytes."""
    return self.nominal_gb_per_s * self.hbm_efficiency

  @property
  def bytes_per_cycle(self) -> float:
    """Bytes that HBM moves in one cycle of the clock.

    >>> round(CHIPS["v5e"].bytes_per_cycle)
    475
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
    *("v2:2x2", 700, 8, 350.0, 62.0, 1024, 1, False),
    (2, 1, 1, 1, 1, 1, 1, 2),
    step_us=_STEP_US_OF_V3,
  ),
  "v3": Chip(
    *("v3:2x2", 940, 16, 450.0, 83.0, 1024, 1, False),
    (2, 1, 1, 1, 1, 1, 1, 2),
    step_us=_STEP_US_OF_V3,
  ),
  "v4": Chip(
    *("v4:2x2x1", 1050, 16, 614.0, 45.0, 512, 1, False),
    (2, 2, 1, 1, 1, 1, 1, 2),
  ),
  "v5e": Chip("v5e:2x2", 1500, 16, 819.0, 50.0, 32, 4, False, _V5_SLOTS),
  "v5p": Chip(
    *("v5p:2x2x1", 1750, 47.5, 1382.5, 100.0, 32, 4, False), _V5_SLOTS
  ),
  "v6e": Chip("v6e:2x2", 1750, 32, 1638.0, 100.0, 32, 4, False, _V6_SLOTS),
  "tpu7x": Chip(
    *("tpu7x:2x2x1", 1900, 96, 3690.0, 100.0, 32, 6, True), _V6_SLOTS
  ),
}
"""Chips that libtpu compiles for, by the names of `bench --chip`."""
