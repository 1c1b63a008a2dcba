"""EfficientNet-Lite0, which is a member of podscale's family.

Its images are in NHWC, and its padding is TensorFlow's 'SAME'. Inside, the
activations are HWNC.
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from podscale.model import EfficientNet, efficientnet


def efficientnet_lite0(
  classes: int, *, dtype: DTypeLike = jnp.bfloat16, rngs: nnx.Rngs
) -> EfficientNet:
  """Make EfficientNet-Lite0; it takes images `[n, h, w, 3]`."""
  return efficientnet(
    "lite0",
    num_classes=classes,
    dropout=0.0,
    survival_prob=1.0,
    dtype=dtype,
    rngs=rngs,
  )


if __name__ == "__main__":
  model = efficientnet_lite0(1000, rngs=nnx.Rngs(0))
  print(model(jnp.ones((2, 224, 224, 3))).shape)
