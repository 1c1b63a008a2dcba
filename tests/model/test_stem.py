import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from podscale.model import BatchNorm
from podscale.model.stem import Stem


def make(features, stride, **options):
  return nnx.eval_shape(
    lambda: Stem(
      1,
      features,
      stride,
      activation=None,
      norm=lambda n: BatchNorm(n, **options),
      rngs=nnx.Rngs(0),
    )
  )


@pytest.mark.parametrize(("size", "taps"), [(6, [5, 5, 3]), (5, [4, 5, 3])])
def test_stem_pads_as_tensorflow(size, taps):
  # Over ones the taps add up, except those outside the image: with an even
  # size only the last tap of the last output is outside.
  stem = make(1, 2, momentum=0.0)
  row = jnp.zeros((3, 3, 1, 1)).at[1, :, 0, 0].set(jnp.array([1.0, 2, 2]))
  stem.kernel.set_value(row)
  for name, value in dict(scale=1.0, bias=0, mean=0, var=1).items():
    getattr(stem.norm, name).set_value(jnp.full(1, value, jnp.float32))
  images = jnp.ones((1, size, size, 1))
  result = stem(images)
  assert (result.layout, result.bands) == ("HWNC", 1)
  assert result.raw.shape == (3, 3, 1, 1)  # [h, w, n, c]
  assert result.raw[0, :, 0, 0].tolist() == taps
  # With momentum 0 the running statistics are those of the batch.
  assert stem.norm.mean[0] == np.float32(sum(taps) / 3)

  stem.eval()
  stem.norm.scale[...] = jnp.full(1, 2.0)
  stem.norm.var[...] = jnp.full(1, 4 - 1e-3)
  folded = stem(images)
  assert folded.scale is None
  # The scale is 2 / sqrt(4): the raw result has its own value again.
  np.testing.assert_allclose(folded.raw, result.raw, rtol=4 * 2.0**-24)
  np.testing.assert_allclose(folded.offset, -stem.norm.mean[...], rtol=2**-22)
