"""A member of the family, as choices about its blocks see it."""

import jax.numpy as jnp

from podscale.model.bands import Sizes
from podscale.model.spec import block_specs, model_spec


def sizes_and_blocks(name, batch):
  """What enters the first block, in bfloat16, and all blocks."""
  spec = model_spec(name)
  side = -(-spec.resolution // spec.stem_stride)
  return Sizes(side, side, batch, jnp.dtype(jnp.bfloat16)), block_specs(spec)
