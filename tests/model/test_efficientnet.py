import functools
import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import efficientnet_oracle
from support.efficientnet_table import TABLE
from support.slow_case import slow
from support.tolerance import assert_accurate

from podscale.bench.plain.model import PlainEfficientNet
from podscale.model import (
  BatchNorm,
  EfficientNet,
  ModelSpec,
  efficientnet,
  model_spec,
)

# Its name in the package is the function's.
network = importlib.import_module("podscale.model.efficientnet")

# For programs that run once: compiling is most of their time.
quick_jit = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)

# One block per stage, of 8 or 16 channels: three of them have a skip, the
# first, which does not expand, and two that do.
TINY = dict(width=0.05, depth=0.25, stem_stride=1)


@functools.cache
def shapes(name, **options):
  """Build the network without its arrays."""
  return nnx.eval_shape(lambda: efficientnet(name, rngs=nnx.Rngs(0), **options))


def filled(model, seed=0):
  """Draw random weights for a network without arrays, as plain dicts.

  Unlike initial weights, all biases, offsets and scales are random too.
  """
  rng = np.random.default_rng(seed)

  def fill(path, leaf):
    name = path[-1].key
    values = rng.normal(size=leaf.shape)
    if name in ("kernel", "filters"):
      values /= math.sqrt(max(1, leaf.size // leaf.shape[-1]))
    if name in ("scale", "var"):
      values = rng.uniform(0.5, 1.5, leaf.shape)
    return jnp.asarray(values, leaf.dtype)

  graph, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
  params, stats = (
    jax.tree_util.tree_map_with_path(fill, nnx.to_pure_dict(tree))
    for tree in (params, stats)
  )
  return graph, params, stats


def run(graph, params, stats, images, *, rngs=None):
  """Compute logits and the new running statistics."""
  model = nnx.merge(graph, nnx.State(params), nnx.State(stats), copy=True)
  logits = model(images, rngs=rngs)
  return logits, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))


def random_images(count, size, seed=0):
  rng = np.random.default_rng(seed)
  return np.float32(rng.normal(size=(count, size, size, 3)))


# The published family


@pytest.mark.parametrize("name", TABLE)
def test_parameters_are_the_published(name):
  params = nnx.state(shapes(name), nnx.Param)
  assert sum(x.size for x in jax.tree.leaves(params)) == TABLE[name].parameters


@pytest.mark.parametrize("name", TABLE)
def test_layers_are_the_published(name):
  row, model = TABLE[name], shapes(name)
  norms = [m for _, m in nnx.iter_modules(model) if isinstance(m, BatchNorm)]
  assert len(norms) == row.norms
  assert sum(norm.scale.size for norm in norms) == row.norm_channels
  assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.99, 1e-3)}
  assert len(model.blocks) == row.blocks
  assert sum(block.has_skip for block in model.blocks) == row.skips
  assert [block.has_expand for block in model.blocks] == [
    i >= row.repeats[0] for i in range(row.blocks)
  ]
  assert model.stem.kernel.shape == (3, 3, 3, row.stem)
  assert model.head.kernel.shape == (row.filters[-1], row.head)
  assert model.classifier.kernel.shape == (row.head, 1000)
  assert model.dropout.rate == row.dropout
  assert model.resolution == row.resolution


@pytest.mark.parametrize("name", ["b8", "l2"])
def test_the_largest_build(name):
  # 2.2 and 4.3 times 32 and 1280; 3.6 and 5.3 times 1, 2, 2, 3, 3, 4, 1.
  stem, head, blocks = {"b8": (72, 2816, 61), "l2": (136, 5504, 88)}[name]
  model = shapes(name)
  assert model.stem.kernel.shape[-1] == stem
  assert model.head.kernel.shape[-1] == head
  assert len(model.blocks) == blocks


def test_momentum_reaches_every_layer():
  model = in_float32(model_spec("b0", **TINY), momentum=0.5)
  norms = [m for _, m in nnx.iter_modules(model) if isinstance(m, BatchNorm)]
  assert len(norms) == 22
  assert {norm.momentum for norm in norms} == {0.5}


def test_survival_reaches_the_blocks():
  model = shapes("b0")
  for i, block in enumerate(model.blocks):
    assert block.stochastic_depth.survival_prob == pytest.approx(
      1 - 0.2 * i / 16, abs=1e-15
    )
  assert model.blocks[0].stochastic_depth.survival_prob == 1


def test_squeeze_excite_counts_from_the_blocks_input():
  for block in shapes("b3").blocks:
    expanded = block.depthwise.filters.shape[-1]
    inputs = block.expand.kernel.shape[0] if block.has_expand else expanded
    squeeze = block.squeeze_excite
    assert squeeze.reduce.kernel.shape == (expanded, inputs // 4)
    assert squeeze.expand.kernel.shape == (inputs // 4, expanded)


def test_only_squeeze_excite_classifier_and_norms_have_biases():
  params = nnx.to_pure_dict(nnx.state(shapes("b0"), nnx.Param))
  paths = jax.tree_util.tree_leaves_with_path(params)
  owners = {
    path[-3].key if path[-3:-2] and path[-2].key == "reduce" else path[-2].key
    for path, _ in paths
    if path[-1].key == "bias" and path[-2].key != "norm"
  }
  assert owners == {"squeeze_excite", "expand", "classifier"}
  biases = sum(
    path[-1].key == "bias" and path[-2].key != "norm" for path, _ in paths
  )
  assert biases == 2 * len(params["blocks"]) + 1


def test_sizes_are_free():
  options = dict(
    width=0.5, depth=0.5, resolution=96, stem_stride=1, channels=1, dropout=0.0
  )
  model = shapes("b1", num_classes=7, **options)
  assert model.stem.kernel.shape == (3, 3, 1, 16)
  assert model.stem.stride == 1
  assert model.classifier.kernel.shape == (640, 7)
  assert len(model.blocks) == 1 + 1 + 1 + 2 + 2 + 2 + 1
  assert (model.resolution, model.dropout.rate) == (96, 0)


# Initial weights


@functools.cache
def initial_values():
  """Collect weights of a half-width network: path -> array, float64."""

  @quick_jit
  def init(key):
    options = dict(width=0.5, depth=0.25, num_classes=10)
    model = efficientnet("b0", rngs=nnx.Rngs(key), **options)
    return nnx.to_pure_dict(nnx.state(model))

  leaves = jax.tree_util.tree_leaves_with_path(init(jax.random.key(0)))
  for _, leaf in leaves:
    assert leaf.dtype == jnp.float32
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): np.float64(leaf)
    for path, leaf in leaves
  }


def check_normal(values, std):
  """Check mean, spread and tails of normal numbers with mean 0."""
  # The mean of n normal numbers deviates by std / sqrt(n), the mean square by
  # std**2 * sqrt(2 / n); one in two million seeds exceeds five deviations.
  n = values.size
  assert abs(values.mean()) <= 5 * std / math.sqrt(n)
  assert abs((values**2).mean() - std**2) <= 5 * std**2 * math.sqrt(2 / n)


def test_convolutions_start_normal_by_their_fan_out():
  normalised = {"stem": [], "depthwise": [], "pointwise": [], "squeeze": []}
  for path, values in initial_values().items():
    if path.startswith("classifier") or values.ndim == 1:
      continue
    if path == "stem/kernel":
      kind, fan_out = "stem", 9 * values.shape[-1]
    elif path.endswith("depthwise/filters"):
      # TensorFlow's depthwise kernels have one output per channel.
      kind, fan_out = "depthwise", values.shape[0] ** 2
      assert fan_out in (9, 25)
    else:
      kind = "squeeze" if "squeeze_excite" in path else "pointwise"
      fan_out = values.shape[-1]
    std = math.sqrt(2 / fan_out)
    check_normal(values, std)
    normalised[kind].append(values.ravel() / std)
  for values in map(np.concatenate, normalised.values()):
    check_normal(values, 1)
    # TensorFlow's truncated normal ends at 2.28 of its deviations. The stem has
    # the fewest values, 432; nine of them lie beyond on average.
    assert np.abs(values).max() > 2.28


def test_classifier_starts_uniform_by_the_number_of_classes():
  values = initial_values()["classifier/kernel"]
  n, limit = values.size, 10**-0.5
  assert np.abs(values).max() <= limit
  # One in e**20 seeds has all n values below (1 - 20 / n) limit.
  assert np.abs(values).max() >= (1 - 20 / n) * limit
  # The mean square is limit**2 / 3, with deviation limit**2 sqrt(4 / 45 / n).
  assert abs(values.mean()) <= 5 * limit / math.sqrt(3 * n)
  deviation = limit**2 * math.sqrt(4 / 45 / n)
  assert abs((values**2).mean() - limit**2 / 3) <= 5 * deviation


def test_the_rest_starts_at_zero_or_one():
  start = {"bias": 0, "mean": 0, "scale": 1, "var": 1}
  seen = set()
  for path, values in initial_values().items():
    name = path.split("/")[-1]
    if name in start:
      assert (values == start[name]).all(), path
      seen.add(name)
    else:
      assert name in ("kernel", "filters"), path
  assert seen == set(start)


def test_layers_start_differently():
  leaves = [v for v in initial_values().values() if v.ndim > 1]
  assert len({v.ravel()[0] for v in leaves}) == len(leaves)


# Against plain JAX and float64


CLASSES = 5
ALL_KEPT = dict(dropout=0.0, survival_prob=1.0)


def in_float32(spec, kind=EfficientNet, **options):
  return nnx.eval_shape(
    lambda: kind(
      spec,
      num_classes=CLASSES,
      dtype=jnp.float32,
      rngs=nnx.Rngs(0),
      **options,
    )
  )


def wide(images, params, leaves):
  """Convert images and leaves to float64, in params' structure."""
  leaves = [np.float64(leaf) for leaf in leaves]
  tree = jax.tree.structure(params)
  return np.float64(images), jax.tree.unflatten(tree, leaves)


def loss_and_gradients(logits_of, weights):
  """Make a function from images and params to logits and flat gradients."""

  def loss(params, images):
    logits = logits_of(params, images)
    return jnp.sum(logits * weights.astype(logits.dtype)), logits

  def both(images, params):
    gradients, logits = jax.grad(loss, has_aux=True)(params, images)
    return logits, gradients

  return both


def flat(outcome):
  """Concatenate gradients; errors are relative to the largest of all."""
  logits, gradients = outcome
  leaves = [np.asarray(g).ravel() for g in jax.tree.leaves(gradients)]
  return {"logits": np.asarray(logits), "gradients": np.concatenate(leaves)}


def response(function, *arguments):
  """Measure the results' change when each input moves by one ulp.

  One ulp is the smallest change that float32 can represent. The result includes
  the rounding of the function itself.
  """
  rng = np.random.default_rng(2)

  def moved(leaf):
    sign = np.float32(rng.choice([-1, 1], leaf.shape))
    return np.nextafter(leaf, leaf + sign)

  still = flat(function(*arguments))
  draws = [flat(function(*jax.tree.map(moved, arguments))) for _ in range(4)]
  return {
    name: max(np.abs(draw[name] - value).max() for draw in draws)
    for name, value in still.items()
  }


@pytest.mark.parametrize(
  "bands",
  [
    slow([1, 1, 1, 1, 1, 1, 1, 1]),
    [4, 5, 1, 1, 1, 1, 1, 1],
  ],
)
def test_equals_plain_jax_with_all_gradients(monkeypatch, bands):
  # Depth 0.3 repeats one stage, so that one block has a skip; the first has
  # none. The stem and the first 3x3 and 5x5 depthwise of stride 2 see even
  # maps (40, 20, 10), where 'SAME' pads one side more, the next two odd ones.
  size, depth = 40, 0.3
  spec = model_spec("b0", width=0.3, depth=depth, resolution=size, **ALL_KEPT)
  model = in_float32(spec)
  assert [i for i, b in enumerate(model.blocks) if b.has_skip] == [6]
  # For TPUs; see tests/model/test_bands.py.
  monkeypatch.setattr(network, "choose_bands", lambda *_: bands)
  graph, params, stats = filled(model)
  images = random_images(3, size)
  rng = np.random.default_rng(1)
  weights = np.float32(rng.normal(size=(3, CLASSES)))

  def by_model(params, images):
    return run(graph, params, stats, images)[0]

  plain_graph = nnx.graphdef(in_float32(spec, PlainEfficientNet))

  def by_plain(params, images):
    return run(plain_graph, params, stats, images)[0]

  ours, plain = (
    quick_jit(loss_and_gradients(f, weights)) for f in (by_model, by_plain)
  )
  result, want = flat(ours(images, params)), flat(plain(images, params))
  assert result["logits"].dtype == np.float32
  unit = response(plain, images, params)
  # As in tolerance.py, accept twice the unavoidable error.
  for name in want:
    assert np.abs(result[name] - want[name]).max() <= 2 * unit[name], name

  # No gradient is so small that an error in it would pass, except those that
  # are zero in exact arithmetic: the next batch norm removes the last offset of
  # a block.
  _, gradients = plain(images, params)
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
    path = jax.tree_util.keystr(path, simple=True, separator="/")
    if path.endswith("project/norm/bias"):
      assert np.abs(leaf).max() <= 2 * unit["gradients"]
    else:
      assert np.abs(leaf).max() >= 200 * unit["gradients"], path


@pytest.mark.slow
def test_equals_plain_jax_on_odd_maps_with_a_skip_at_once():
  # Maps of 33, 17, 9, 5 and 3, where 'SAME' pads on both sides. The network is
  # so narrow that stem and first block have one width, so that block has a
  # skip.
  size = 33
  spec = model_spec("b0", resolution=size, **TINY, **ALL_KEPT)
  model = in_float32(spec, momentum=0.0)
  assert [i for i, b in enumerate(model.blocks) if b.has_skip] == [0, 4, 6]
  training, params, stats = filled(model)
  model.eval()
  evaluation = nnx.graphdef(model)
  images = random_images(3, size)

  @quick_jit
  def by_model(images, params):
    logits, batch_stats = run(training, params, stats, images)
    return logits, run(evaluation, params, batch_stats, images)[0]

  logits, evaluated = map(np.asarray, by_model(images, params))
  plain_graph = nnx.graphdef(in_float32(spec, PlainEfficientNet))
  plain = quick_jit(lambda p, x: run(plain_graph, p, stats, x)[0])
  by_oracle = functools.partial(
    efficientnet_oracle.logits, depth=0.25, stem_stride=1
  )
  with jax.enable_x64(True):
    in_float64 = quick_jit(lambda images, params: by_oracle(params, images))

    def oracle(images, *leaves):
      exact = np.asarray(in_float64(*wide(images, params, leaves)))
      return {"training": exact, "evaluation": exact}

    # With momentum 0 the running statistics come from the last batch, so
    # evaluation on that batch gives the same.
    assert_accurate(
      {"training": logits, "evaluation": evaluated},
      dict.fromkeys(("training", "evaluation"), plain(params, images)),
      oracle,
      *(images, *jax.tree.leaves(params)),
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)  # depthwise gradients in float64, five times
def test_gradients_of_the_full_network_are_those_in_float64():
  """Compare each part, relative to the largest value of that part.

  An image of 64 pixels leaves 2x2 at the head. An image of 32 would leave one,
  and the last batch norms would divide by the spread of four numbers.
  """
  size = 64
  model = in_float32(model_spec("b0", resolution=size, **ALL_KEPT))
  graph, params, stats = filled(model)
  plain_graph = nnx.graphdef(
    in_float32(model_spec("b0", **ALL_KEPT), PlainEfficientNet)
  )
  images = random_images(4, size)
  weights = np.float32(np.random.default_rng(1).normal(size=(4, CLASSES)))

  def gradients(logits_of):
    return quick_jit(loss_and_gradients(logits_of, weights))

  ours, plain = (
    by_part(gradients(lambda p, x, g=g: run(g, p, stats, x)[0])(images, params))
    for g in (graph, plain_graph)
  )
  with jax.enable_x64(True):
    in_float64 = gradients(
      functools.partial(efficientnet_oracle.logits, depth=1, stem_stride=2)
    )

    def oracle(images, *leaves):
      return by_part(in_float64(*wide(images, params, leaves)))

    leaves = jax.tree.leaves(params)
    assert_accurate(ours, plain, oracle, images, *leaves)


def by_part(outcome):
  """Return logits, and gradients by block and for the rest."""
  logits, gradients = outcome
  blocks = gradients["blocks"]
  parts = {f"block {i}": blocks[i] for i in blocks}
  parts |= {name: gradients[name] for name in gradients if name != "blocks"}
  arrays = {
    name: np.concatenate([np.asarray(g).ravel() for g in jax.tree.leaves(part)])
    for name, part in parts.items()
  }
  return {"logits": np.asarray(logits)} | arrays


# The running network


def tiny(**options):
  return shapes("b0", resolution=32, num_classes=10, **TINY, **options)


def graphs(**options):
  """Build a network for training and evaluation with shared weights."""
  model = tiny(**options)
  model.train()
  training, params, stats = filled(model)
  model.eval()
  return training, nnx.graphdef(model), params, stats


@functools.cache
def steps():
  """Compile the tiny network for training and evaluation."""
  training, evaluation, params, stats = graphs(dropout=0.5, survival_prob=0.5)
  traces = []

  @quick_jit
  def train(params, stats, images, key):
    traces.append("train")
    rngs = nnx.Rngs(dropout=key)
    return run(training, params, stats, images, rngs=rngs)

  @quick_jit
  def evaluate(params, stats, images):
    traces.append("eval")
    return run(evaluation, params, stats, images)

  return train, evaluate, params, stats, traces


def test_training_and_evaluation():
  train, evaluate, params, stats, _ = steps()
  images = random_images(4, 32)
  logits, same = evaluate(params, stats, images)
  assert logits.shape == (4, 10)
  assert logits.dtype == jnp.float32
  jax.tree.map(np.testing.assert_array_equal, same, stats)

  key = jax.random.key(0)
  first, updated = train(params, stats, images, key)
  assert first.dtype == jnp.float32
  assert np.isfinite(first).all()
  # Every running mean and variance of every layer moves.
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), updated, stats)
  assert all(jax.tree.leaves(moved))
  assert (train(params, stats, images, key)[0] == first).all()
  other = train(params, stats, images, jax.random.key(1))[0]
  assert (np.asarray(other) != first).any(axis=1).all()
  # An image's logits in evaluation depend on the image only; in training batch
  # norm shares its statistics.
  alone, _ = evaluate(params, stats, np.flip(images, axis=0))
  np.testing.assert_array_equal(np.flip(alone, axis=0), logits)
  changed = images.copy()
  changed[0] += 1
  assert (evaluate(params, stats, changed)[0][1:] == logits[1:]).all()
  assert (train(params, stats, changed, key)[0][1:] != first[1:]).any()


def test_second_call_does_not_recompile():
  train, evaluate, params, stats, traces = steps()
  for seed in range(3):
    images = random_images(4, 32, seed)
    _, stats = train(params, stats, images, jax.random.key(seed))
    evaluate(params, stats, images)
  assert sorted(traces) == ["eval", "train"]


def test_train_and_eval_switch_every_layer():
  model = tiny()
  for switch, evaluating in ((model.eval, True), (model.train, False)):
    switch()
    for _, module in nnx.iter_modules(model):
      for flag in ("use_running_average", "deterministic"):
        assert getattr(module, flag, evaluating) is evaluating


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_dtypes(dtype):
  graph, _, params, stats = graphs(dtype=dtype, survival_prob=0.5)

  def vjp(params, images):
    def logits(params):
      return run(graph, params, stats, images, rngs=nnx.Rngs(dropout=0))

    logits, pull, updated = jax.vjp(logits, params, has_aux=True)
    return logits, updated, pull

  logits, updated, pull = jax.eval_shape(vjp, params, random_images(2, 32))
  for leaf in jax.tree.leaves((logits, params, updated)):
    assert leaf.dtype == jnp.float32
  # Activations stored for the backward pass are [h, w, n, c].
  stored = [leaf for leaf in jax.tree.leaves(pull) if leaf.ndim == 4]
  stored = [leaf for leaf in stored if leaf.shape[2] == 2 <= leaf.shape[0]]
  assert len(stored) > 4 * len(params["blocks"])
  assert {leaf.dtype for leaf in stored} == {jnp.dtype(dtype)}


def test_images_of_any_floating_dtype():
  graph, params, stats = graphs()[1:]
  images = jnp.zeros((2, 32, 32, 3), jnp.float16)
  logits = jax.eval_shape(functools.partial(run, graph), params, stats, images)
  assert logits[0].dtype == jnp.float32


# Mistakes


def test_unknown_model_suggests():
  with pytest.raises(
    ValueError, match="unknown model 'B00'; did you mean 'b0'"
  ):
    efficientnet("B00", rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(resolution=31), "resolution 31 is too small.*at least 32 pixels"),
    (dict(width=0.0), "width must be above 0 and at most 100, got 0"),
    (dict(depth=-1.0), "depth must be above 0 and at most 100, got -1"),
    (dict(num_classes=0), "num_classes must be at least 1, got 0"),
  ],
)
def test_values_out_of_range(options, message):
  with pytest.raises(ValueError, match=message):
    efficientnet("b0", rngs=nnx.Rngs(0), **options)


@pytest.mark.parametrize(
  ("images", "message"),
  [
    (np.zeros((2, 32, 32, 3), np.uint8), r"uint8 \(2, 32, 32, 3\); normalise"),
    (np.zeros((2, 32, 32, 3), np.int32), "int32"),
    (np.zeros((32, 32, 3), np.float32), r"float32 \(32, 32, 3\)"),
    (
      np.zeros((2, 32, 32, 1), np.float32),
      "1 channels, but the network takes 3",
    ),
  ],
)
def test_images_must_fit(images, message):
  training, _, params, stats = graphs()
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(functools.partial(run, training), params, stats, images)


def test_training_needs_random_numbers():
  images = random_images(2, 32)
  # Dropout and stochastic depth each draw random numbers.
  for options in (dict(survival_prob=1.0), dict(dropout=0.0)):
    training, _, params, stats = graphs(**options)
    with pytest.raises(ValueError, match=r"rngs=nnx.Rngs\(...\).*eval"):
      jax.eval_shape(functools.partial(run, training), params, stats, images)


def test_a_spec_of_ones_own_builds():
  spec = ModelSpec(
    width=0.1, depth=0.25, resolution=64, dropout=0.0, survival_prob=1.0
  )
  model = nnx.eval_shape(
    lambda: EfficientNet(spec, num_classes=3, rngs=nnx.Rngs(0))
  )
  graph, params, stats = filled(model)
  images = random_images(2, 70)  # any size is valid
  logits = jax.eval_shape(functools.partial(run, graph), params, stats, images)
  assert logits[0].shape == (2, 3)
