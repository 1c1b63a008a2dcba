"""The benchmark of the whole step, on a network small enough for a test."""

import dataclasses

import numpy as np
import pytest

from podscale.bench.measured.step import compare_with_plain, step_config


def test_config_is_the_presets_in_float32_with_nothing_dropped():
  config = step_config("b2", resolution=64, batch_size=32)
  assert (config.preset, config.batch_size) == ("b2", 32)
  assert config.optimizer.name == "rmsprop"
  model = config.model
  assert (model.name, model.resolution, model.dtype) == ("b2", 64, "float32")
  assert (model.dropout, model.survival_prob) == (0.0, 1.0)


@pytest.mark.slow
def test_both_sides_take_the_same_step():
  config = step_config("b0", resolution=32, batch_size=8)
  tiny = dataclasses.replace(config.model, width=0.25, depth=0.25)
  config = dataclasses.replace(config, model=tiny)
  plain, ours = compare_with_plain(config, runs=3)
  assert (plain["step"], ours["step"]) == ("plain", "podscale")
  for row in (plain, ours):
    assert len(row["samples_s"]) == 3
    assert row["min_s"] <= row["median_s"] <= row["max_s"]
    assert row["images_per_s"] == 8 / row["median_s"]
    assert row["lower_s"] > 0 and row["compile_s"] > 0
    assert row["clock"] == "wall" and row["peak_bytes"] > 8 * 32 * 32 * 3
  # tests/model compares the two networks; here only that the same weights and
  # images are in both. Near log(1000), for nothing is learnt yet.
  np.testing.assert_allclose(plain["loss"], ours["loss"], rtol=1e-3)
  assert abs(ours["loss"] - np.log(1000)) < 1
