"""Tracing for a TPU without hardware."""

import jax

KINDS = {
  "v2": "TPU v2",
  "v3": "TPU v3",
  "v4": "TPU v4",
  "v5e": "TPU v5 lite",
  "v5p": "TPU v5",
  "v6e": "TPU v6 lite",
  "tpu7x": "TPU7x",
}


def on(chip, cores=1):
  """Trace for a chip; `cores` is the number of its cores in one device."""
  device = jax.sharding.AbstractDevice(
    device_kind=KINDS[chip], num_cores=cores, platform="tpu"
  )
  mesh = jax.sharding.AbstractMesh((), (), abstract_device=device)
  return jax.sharding.use_abstract_mesh(mesh)
