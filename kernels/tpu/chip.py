"""Which TPU is compiled for, and how much memory it has."""

from typing import NamedTuple

from jax.experimental.pallas import tpu as pltpu

# Of VMEM, what a kernel leaves to the compiler.
_SPARE = 1 / 16


class Chip(NamedTuple):
  """A generation.

  Attributes:
    name: 'v3', 'v5e', ..., or 'unknown'.
    vmem_bytes: What a kernel may take.
    hbm_bytes: Of a device, in all, which on v5p is two cores; None where the
      chip is unknown.
  """

  name: str
  vmem_bytes: int
  hbm_bytes: int | None

  @property
  def vector_registers(self) -> int:
    """32 up to v3, 64 since."""
    return 32 if self.name in ("v2", "v3", "unknown") else 64

  @property
  def unpacks_in_memory(self) -> bool:
    """Whether bfloat16 goes to float32 and back through VMEM; see `pairs`."""
    return self.name in ("v2", "v3")

  @property
  def tiles_vectors_by_128(self) -> bool:
    """Whether 128 values of a float32 vector are a block; up to v3 256 are."""
    return self.name not in ("v2", "v3", "unknown")


def target_chip() -> Chip:
  """The chip that is compiled for: what all of them have where not known.

  It is that of the default device, or of the mesh that is in use: to compile
  for a TPU elsewhere, trace under `jax.sharding.use_abstract_mesh` with an
  `AbstractDevice`.
  """
  try:
    info = pltpu.get_tpu_info()
  except ValueError:  # not a TPU
    smallest = pltpu.get_tpu_info_for_chip(pltpu.ChipVersion.TPU_V3, 1)
    return Chip("unknown", _usable(smallest.vmem_capacity_bytes), None)
  name = info.chip_version.value
  if name[0] != "v":
    name = f"tpu{name}"
  vmem = _usable(info.vmem_capacity_bytes)
  return Chip(name, vmem, info.num_cores * info.hbm_capacity_bytes)


def _usable(capacity: int) -> int:
  return int(capacity * (1 - _SPARE))
