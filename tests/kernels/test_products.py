import jax.numpy as jnp
import numpy as np
import pytest
from tolerance import assert_accurate

from podscale.kernels import products
from podscale.kernels.bands import to_bands


@pytest.mark.parametrize("bands", [1, 3])
def test_sums_within_bands_are_those_of_the_image(monkeypatch, bands):
  rng = np.random.default_rng(0)
  a, b = (
    jnp.asarray(rng.normal(size=(6, 5, 4, c)), jnp.bfloat16) for c in (3, 7)
  )

  def by(product):
    parts = (to_bands(x, bands) for x in (a, b))
    return {"sum": product(*parts, bands)}

  here = by(products.within_bands)
  by_rows = by(products.within_bands_by_rows)
  # What other platforms take.
  monkeypatch.setattr(products, "_cross", products._cross_by_rows)
  elsewhere = by(products.within_bands_by_rows)

  def oracle(a, b):
    return {"sum": np.einsum("hwnc,hwnd->cd", *map(np.float64, (a, b)))}

  for result in (here, by_rows, elsewhere):
    assert result["sum"].dtype == jnp.float32
    assert_accurate(result, here, oracle, a, b)
