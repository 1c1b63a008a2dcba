"""Generation and memory of the TPU that JAX compiles for."""

from typing import NamedTuple

from jax.experimental.pallas import tpu as pltpu

_COMPILER_SHARE = 1 / 16  # of VMEM; kernels leave it to the compiler


class Chip(NamedTuple):
  """A TPU generation.

  Attributes:
    name: 'v3', 'v5e', ..., or 'unknown'.
    vmem_bytes: VMEM that a kernel may use.
    hbm_bytes: HBM of a device, which has two cores on v5p; None if the chip is
      unknown.
  """

  name: str
  vmem_bytes: int
  hbm_bytes: int | None

  @property
  def vector_registers(self) -> int:
    """Vector registers of a core: 32 up to v3, 64 since."""
    return 32 if self.name in ("v2", "v3", "unknown") else 64

  @property
  def unpacks_in_memory(self) -> bool:
    """True if bfloat16 converts to float32 through VMEM; see `bf16_pairs`."""
    return self.name in ("v2", "v3")

  @property
  def tiles_vectors_by_128(self) -> bool:
    """True if a block may have 128 values of a `[c]` vector; v3 needs 256."""
    return self.name not in ("v2", "v3", "unknown")


def target_chip() -> Chip:
  """Find the chip that JAX compiles for.

  The chip comes from the default device or from the mesh in use. To compile for
  a TPU without one, trace under `jax.sharding.use_abstract_mesh` with an
  `AbstractDevice`. Without either the name is 'unknown', and the chip has only
  the features and the VMEM that all generations have.
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
  return int(capacity * (1 - _COMPILER_SHARE))
