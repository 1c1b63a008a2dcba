import pytest

from podscale.collectives import group_size_for
from podscale.train.errors import UsageError
from podscale.train.schedule import make_schedule
from podscale.train.settings.presets import DESCRIPTIONS, PRESETS, get_preset

# arXiv:2011.00071, Table 2: preset, model, cores, batch, optimizer, rate per
# 256, warmup epochs, peak top-1. From memory, unverified.
TABLE_2 = [
  ("b2-4k", "b2", 128, 4096, "rmsprop", 0.016, 5, 0.801),
  ("b2-8k", "b2", 256, 8192, "rmsprop", 0.016, 5, 0.800),
  ("b2-16k", "b2", 512, 16384, "rmsprop", 0.016, 5, 0.799),
  ("b2-16k-lars", "b2", 512, 16384, "lars", 0.236, 50, 0.795),
  ("b2-32k", "b2", 1024, 32768, "lars", 0.118, 50, 0.797),
  ("b5-4k", "b5", 128, 4096, "rmsprop", 0.016, 5, 0.835),
  ("b5-8k", "b5", 256, 8192, "rmsprop", 0.016, 5, 0.834),
  ("b5-16k", "b5", 512, 16384, "rmsprop", 0.016, 5, 0.834),
  ("b5-16k-lars", "b5", 512, 16384, "lars", 0.236, 50, 0.833),
  ("b5-32k", "b5", 1024, 32768, "lars", 0.118, 50, 0.832),
  ("b5-64k", "b5", 1024, 65536, "lars", 0.081, 43, 0.830),
]
REFERENCE = [(f"b{i}", f"b{i}", 4096, "rmsprop", 0.016, 5) for i in range(8)]
REFERENCE += [
  (f"lite{i}", f"lite{i}", 4096, "rmsprop", 0.016, 5) for i in range(5)
]
IMAGENET = [row[:2] + row[3:7] for row in TABLE_2] + REFERENCE


@pytest.mark.parametrize("row", IMAGENET, ids=lambda row: row[0])
def test_recipes(row):
  name, model, batch, optimizer, rate, warmup = row
  config = PRESETS[name]
  assert config.preset == name
  assert config.model.name == model
  assert (config.model.width, config.model.resolution) == (None, None)
  assert config.model.survival_prob == 0.8
  assert config.batch_size == batch
  assert config.epochs == 350
  assert config.label_smoothing == 0.1
  assert config.ema_decay == 0.9999
  assert config.data.source == "images"
  plain = name in ("b0", "b1", "b2", "b3", "b4", "b5") or "lite" in name
  assert config.data.augment == ("none" if plain else "autoaugment")
  assert config.batch_norm.images_per_group == 128
  assert config.optimizer.name == optimizer
  assert config.optimizer.momentum == 0.9
  assert config.optimizer.l2 == 1e-5
  schedule = config.schedule
  assert (schedule.lr_per_256, schedule.warmup_epochs) == (rate, warmup)
  if optimizer == "lars":
    assert config.optimizer.lars_weight_decay == 1e-5
    assert config.optimizer.lars_trust_coefficient == 0.001
    assert config.optimizer.lars_epsilon == 0
    assert schedule.name == "polynomial"
    assert (schedule.power, schedule.end_learning_rate) == (2, 0.1)
  else:
    assert config.optimizer.rmsprop_decay == 0.9
    assert config.optimizer.rmsprop_epsilon == 0.001
    assert schedule.name == "exponential"
    assert (schedule.decay_rate, schedule.decay_epochs) == (0.97, 2.4)


@pytest.mark.parametrize("row", TABLE_2, ids=lambda row: row[0])
def test_results_of_the_paper_say_where_they_are_from(row):
  text = DESCRIPTIONS[row[0]]
  assert f"{row[2]} cores" in text
  assert f"{100 * row[-1]:.1f} %" in text
  assert "Table 2 (from memory, unverified)" in text


def test_every_preset_is_described_and_nothing_else():
  assert list(DESCRIPTIONS) == list(PRESETS)
  assert set(PRESETS) == {row[0] for row in IMAGENET} | {"demo", "smoke"}
  assert all("\n" not in text for text in DESCRIPTIONS.values())


@pytest.mark.parametrize("name", ["demo", "smoke"])
def test_small_presets_fit_eight_cpu_devices(name):
  config = PRESETS[name]
  assert config.cpu_devices == 8
  images, batch = config.batch_norm.images_per_group, config.batch_size
  assert group_size_for(images, batch, config.cpu_devices) == 2
  assert group_size_for(images, batch, 1) == 1
  assert config.batch_size % config.cpu_devices == 0
  assert config.eval_batch_size % config.cpu_devices == 0
  assert config.optimizer.name == "lars"
  assert config.model.dtype == "float32"
  assert config.label_smoothing == 0.1


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_schedule(name):
  config = PRESETS[name]
  examples = {"images": 1_281_167, "fashion-mnist": 10_000}.get(
    config.data.source, config.data.train_examples
  )
  steps_per_epoch = examples / config.batch_size
  total_steps = int(config.epochs * steps_per_epoch)
  rate = make_schedule(
    config.schedule,
    batch_size=config.batch_size,
    steps_per_epoch=steps_per_epoch,
    total_steps=total_steps,
  )
  assert total_steps > 1
  assert rate(total_steps - 1) > 0


def test_unknown_names():
  assert get_preset("b5-64k") is PRESETS["b5-64k"]
  with pytest.raises(UsageError, match="'b5-64'; did you mean 'b5-64k'"):
    get_preset("b5-64")
