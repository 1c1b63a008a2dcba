import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from jax.experimental import pallas as pl
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from support.abstract_tpu import KINDS, on
from support.lars_oracle import lars_step
from support.tpu_interpreter import as_on_a_tpu

from podscale.kernels import describe, leaf_norms
from podscale.kernels.lars import lars_update
from podscale.kernels.packed import register_blocks
from podscale.kernels.packed.packing import Packed, Shard, pack_like
from podscale.kernels.surface import lars_steps

U = 2.0**-24  # largest relative error of a rounding to float32


RANGES = ("huge", "tiny")  # prefixes of names


def by_name(path, leaf):
  del leaf
  return path[-1].key == "bias"


def zeros(tree):
  return jax.tree.map(jnp.zeros_like, tree)


def make_case(seed=0):
  """Make float32 parameters by name, and a function that draws gradients."""
  rng = np.random.default_rng(seed)
  shapes = {
    "kernel": (3, 3, 4, 8),
    "zero_weights": (5, 7),
    "zero_grads": (5, 7),
    "huge_grads": (6, 6),
    "tiny_grads": (6, 6),
    "huge_weights": (40,),
    "tiny_weights": (40,),
    "scalar": (),
    "bias": (8,),
  }
  weights = {k: rng.standard_normal(s) for k, s in shapes.items()}
  weights["zero_weights"] *= 0
  weights["huge_weights"] *= 1e22
  weights["tiny_weights"] *= 1e-25

  def draw():
    grads = {k: rng.standard_normal(s) for k, s in shapes.items()}
    grads["zero_grads"] *= 0
    grads["huge_grads"] *= 1e25
    grads["tiny_grads"] *= 1e-25
    return {k: np.asarray(g, np.float32) for k, g in grads.items()}

  return {k: np.asarray(w, np.float32) for k, w in weights.items()}, draw


INPUTS = ["tree", "packed", "packed, by kernels"]
VARIANTS = ["tensorflow", "optax", "scaled"]


def update_of(inputs, interpret, **settings):
  """Make an update of trees that packs them if `inputs` says so."""
  if inputs == "tree":
    return jax.jit(partial(lars_update, **settings))
  implementation = "xla"
  if inputs == "packed, by kernels":
    implementation = "pallas_tpu"
    interpret()

  @jax.jit
  def update(params, grads, momenta, **changing):
    packing = pack_like(params)
    packed = [
      Packed(packing.pack(tree), packing) for tree in (params, grads, momenta)
    ]
    settings_ = settings | changing | {"implementation": implementation}
    return tuple(x.unpack() for x in lars_update(*packed, **settings_))

  return update


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
  "weight_decay, epsilon, nesterov",
  [(1e-2, 0.0, False), (0.0, 0.0, True), (1e-5, 1e-3, True)],
)
def test_200_steps_equal_the_oracle(
  interpret, weight_decay, epsilon, nesterov, variant, inputs
):
  steps = 200
  params, draw = make_case()
  want = {k: (np.float64(w), np.zeros(w.shape)) for k, w in params.items()}
  largest = {k: np.zeros(3) for k in params}
  settings = dict(
    weight_decay=weight_decay,
    epsilon=epsilon,
    nesterov=nesterov,
    variant=variant,
  )
  update = update_of(inputs, interpret, exclude=by_name, **settings)
  momenta = zeros(params)
  for step in range(steps):
    # Warmup from 0, then decay; multiples of a power of two are exact.
    rate = min(step, steps - step) / 64
    grads = draw()
    params, momenta = update(params, grads, momenta, learning_rate=rate)
    for name, (w, v) in want.items():
      moved, v = lars_step(
        *(w, grads[name], v),
        learning_rate=rate,
        excluded=name == "bias",
        **settings,
      )
      largest[name] = np.maximum(
        largest[name],
        [np.abs(w).max(), np.abs(v).max(), np.abs(moved - w).max()],
      )
      want[name] = moved, v
  for name, (w, v) in want.items():
    w_max, v_max, step_max = largest[name]
    # A step has about 16 roundings (two norms, the ratio, the decay, two
    # products), and the update of v two more. Momentum sums the errors of
    # 1 / (1 - momentum) = 10 steps. w is rounded once per step and sums the
    # errors of all steps.
    v_error = 10 * 18 * U * v_max
    w_error = steps * (U * w_max + 10 * 18 * U * step_max)
    np.testing.assert_allclose(momenta[name], v, rtol=0, atol=v_error)
    np.testing.assert_allclose(params[name], w, rtol=0, atol=w_error)
    assert params[name].dtype == momenta[name].dtype == jnp.float32


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("epsilon", [0.0, 1e-3])
def test_the_variant_of_optax_is_optax(epsilon, nesterov):
  params, draw = make_case()
  # optax squares without scaling, which overflows and underflows.
  params = {k: w for k, w in params.items() if not k.startswith(RANGES)}
  mask = {k: k != "bias" for k in params}
  optimizer = optax.lars(
    0.5,
    weight_decay=1e-2,
    weight_decay_mask=mask,
    eps=epsilon,
    trust_ratio_mask=mask,
    nesterov=nesterov,
  )
  ours, momenta, state = params, zeros(params), optimizer.init(params)
  for _ in range(5):
    grads = {k: g for k, g in draw().items() if k in params}
    updates, state = optimizer.update(grads, state, params)
    params = optax.apply_updates(params, updates)
    ours, momenta = lars_update(
      *(ours, grads, momenta),
      learning_rate=0.5,
      weight_decay=1e-2,
      epsilon=epsilon,
      nesterov=nesterov,
      variant="optax",
      exclude=by_name,
    )
  for name in params:
    # Five steps have about 18 roundings each, as above, and each side rounds
    # the weights too; no value is above 5.
    np.testing.assert_allclose(
      ours[name], params[name], rtol=0, atol=5 * 20 * U * 5
    )


def test_one_step_by_hand():
  # |w| = |g| = 5, so trust = 0.1 * 5 / (5 + 0.1 * 5) = 1 / 11.
  params, momenta = {"kernel": jnp.array([3.0, 4.0])}, {"kernel": jnp.zeros(2)}
  settings = dict(weight_decay=0.1, trust_coefficient=0.1)
  params, momenta = lars_update(
    params,
    {"kernel": jnp.array([0.0, 5.0])},
    momenta,
    learning_rate=11.0,
    **settings,
  )
  np.testing.assert_allclose(momenta["kernel"], [0.3, 5.4], rtol=8 * U)
  np.testing.assert_allclose(params["kernel"], [2.7, -1.4], rtol=8 * U)
  # The momentum includes the rate, so a step at rate 0 still changes weights.
  params, momenta = lars_update(
    params,
    {"kernel": jnp.array([1.0, 1.0])},
    momenta,
    learning_rate=0.0,
    **settings,
  )
  np.testing.assert_allclose(momenta["kernel"], [0.27, 4.86], rtol=8 * U)
  np.testing.assert_allclose(params["kernel"], [2.43, -6.26], rtol=8 * U)


def test_a_zero_norm_takes_the_plain_rate():
  params = {"a": jnp.zeros(3), "b": jnp.ones(4)}
  grads = {"a": jnp.ones(3), "b": jnp.zeros(4)}
  params, _ = lars_update(
    params, grads, zeros(params), learning_rate=0.5, weight_decay=0.25
  )
  np.testing.assert_array_equal(params["a"], np.full(3, -0.5))
  np.testing.assert_array_equal(params["b"], np.full(4, 1 - 0.5 * 0.25))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_shows(bad):
  params = {"kernel": jnp.ones(3)}
  grads = {"kernel": jnp.array([1.0, bad, 1.0])}
  params, _ = lars_update(
    params, grads, zeros(params), learning_rate=1.0, weight_decay=0.0
  )
  assert not np.isfinite(params["kernel"]).all()


def test_excluded_leaves_get_the_raw_rate_and_no_decay():
  seen = []

  def exclude(path, leaf):
    seen.append((jax.tree_util.keystr(path), leaf.shape))
    return leaf.ndim == 1

  params = {"fc": {"bias": jnp.full(3, 2.0), "kernel": jnp.ones((2, 3))}}
  grads = jax.tree.map(jnp.ones_like, params)
  new, momenta = lars_update(
    params,
    grads,
    zeros(params),
    learning_rate=0.5,
    weight_decay=0.25,
    exclude=exclude,
  )
  assert seen == [("['fc']['bias']", (3,)), ("['fc']['kernel']", (2, 3))]
  np.testing.assert_array_equal(new["fc"]["bias"], np.full(3, 1.5))
  np.testing.assert_array_equal(momenta["fc"]["bias"], np.full(3, 0.5))
  assert (new["fc"]["kernel"] > 0.99).all()  # the trust ratio is near 0.001


def test_steps_are_what_an_update_subtracts():
  params, draw = make_case()
  settings = {
    "learning_rate": 2.0,
    "weight_decay": 0.25,
    "trust_coefficient": 0.01,
    "momentum": 0.5,
    "epsilon": 1e-3,
    "nesterov": True,
    "variant": "optax",
    "exclude": by_name,
  }
  grads, momenta = draw(), draw()
  steps, stepped = lars_steps(params, grads, momenta, **settings)
  want, moved = lars_update(params, grads, momenta, **settings)
  for name, w in params.items():
    np.testing.assert_array_equal(w - steps[name], want[name])
    np.testing.assert_array_equal(stepped[name], moved[name])
  with pytest.raises(ValueError, match="variant"):
    lars_steps(params, grads, momenta, **settings | {"variant": "adam"})


def test_bfloat16_parameters_are_updated_in_float32():
  params = {"kernel": jnp.linspace(1, 2, 64, dtype=jnp.bfloat16)}
  grads = {"kernel": jnp.linspace(-1, 1, 64, dtype=jnp.bfloat16)}
  momenta = {"kernel": jnp.zeros(64, jnp.float32)}
  new, momenta = lars_update(
    params, grads, momenta, learning_rate=100.0, weight_decay=0.01
  )
  w, v = lars_step(
    params["kernel"],
    grads["kernel"],
    np.zeros(64),
    learning_rate=100.0,
    weight_decay=0.01,
  )
  assert new["kernel"].dtype == jnp.bfloat16
  assert momenta["kernel"].dtype == jnp.float32
  scale = np.abs(v).max()
  np.testing.assert_allclose(momenta["kernel"], v, rtol=0, atol=18 * U * scale)
  # The result is rounded once to bfloat16's 8 bits.
  np.testing.assert_allclose(
    new["kernel"].astype(jnp.float32), w, rtol=2.0**-8, atol=18 * U * scale
  )


def test_shard_map_changes_nothing():
  mesh = jax.make_mesh((8,), ("device",))
  rng = np.random.default_rng(2)
  params = {
    "kernel": rng.standard_normal((4, 6)).astype(np.float32),
    "bias": rng.standard_normal(6).astype(np.float32),
  }
  grads = jax.tree.map(lambda w: w[::-1].copy(), params)
  settings = dict(weight_decay=1e-3, exclude=by_name)

  def update(params, grads, momenta, rate):
    return lars_update(params, grads, momenta, learning_rate=rate, **settings)

  sharded = jax.shard_map(
    update, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=True
  )
  rate = jnp.float32(3.0)
  args = params, grads, zeros(params), rate
  got, want = jax.jit(sharded)(*args), jax.jit(update)(*args)
  jax.tree.map(np.testing.assert_array_equal, got, want)


def test_a_changed_rate_does_not_recompile():
  params = {"kernel": jnp.ones((2, 2))}
  traces = []

  @jax.jit
  def update(params, momenta, rate):
    traces.append(None)
    return lars_update(
      params, params, momenta, learning_rate=rate, weight_decay=0.1
    )

  momenta = zeros(params)
  for rate in (0.0, 0.5, 1.0):
    params, momenta = update(params, momenta, rate)
  assert len(traces) == 1


def call(params, grads=None, momenta=None, **settings):
  settings = {"learning_rate": 0.1, "weight_decay": 0.0} | settings
  return lars_update(
    params,
    params if grads is None else grads,
    params if momenta is None else momenta,
    **settings,
  )


@pytest.mark.parametrize(
  "kwargs, message",
  [
    (
      {"grads": {"fc": {"kernel": np.ones((2, 3), np.float32)}}},
      "grads has no leaf at ['fc']['bias']",
    ),
    (
      {"momenta": {"fc": {}}},
      "momenta has no leaf at ['fc']['bias']",
    ),
    (
      {
        "grads": {
          "fc": {
            "bias": np.ones(3, np.float32),
            "kernel": np.ones((3, 2), np.float32),
          }
        }
      },
      "grads has shape (3, 2) at ['fc']['kernel'], params has (2, 3)",
    ),
    (
      {
        "momenta": {
          "fc": {
            "bias": np.ones(3, np.int32),
            "kernel": np.ones((2, 3), np.float32),
          }
        }
      },
      "momenta at ['fc']['bias'] is int32",
    ),
    ({"learning_rate": -0.5}, "learning_rate must not be below 0, got -0.5"),
    ({"learning_rate": float("nan")}, "learning_rate must not be below 0"),
    ({"learning_rate": np.ones(2)}, "learning_rate must be a scalar"),
    ({"weight_decay": -1}, "weight_decay must not be below 0, got -1"),
    ({"momentum": -0.1}, "momentum must not be below 0"),
    ({"implementation": "cuda"}, "unknown implementation 'cuda'"),
    (
      {"variant": "torch"},
      "unknown variant 'torch'; expected one of tensorflow",
    ),
  ],
)
def test_mistakes_are_named(kwargs, message):
  params = {
    "fc": {
      "bias": np.ones(3, np.float32),
      "kernel": np.ones((2, 3), np.float32),
    }
  }
  with pytest.raises(ValueError, match=re.escape(message)):
    call(params, **kwargs)


def test_more_mistakes_in_trees():
  one = np.ones(2, np.float32)
  with pytest.raises(ValueError, match=re.escape("a leaf at ['b'], params")):
    call({"a": one}, {"a": one, "b": one})
  with pytest.raises(ValueError, match=re.escape("params at [0] is int32")):
    call([np.ones(2, np.int32)], [one], [one])
  with pytest.raises(ValueError, match="grads is a PyTreeDef"):
    call([one], (one,))
  with pytest.raises(ValueError, match="params contains a Packed"):
    call([one, Packed.of({"a": one})], [one])


def packed_case(devices):
  """Pack a case in shards of whole blocks of 8 registers.

  One leaf has 12 registers, so that several shards hold a part of it. The TPU
  interpreter does not overwrite inputs whose last block is partial.
  """
  params, draw = make_case()
  rng = np.random.default_rng(1)
  wide = rng.standard_normal((3, 40, 300)).astype(np.float32)
  params, grads, momenta = (
    {**tree, "wide": leaf}
    for tree, leaf in zip((params, draw(), draw()), wide, strict=True)
  )
  momenta = {k: np.float32(0.1) * w for k, w in momenta.items()}
  packing = pack_like(params, 4 * devices)
  return [
    Packed(packing.pack(tree), packing) for tree in (params, grads, momenta)
  ]


SETTINGS = dict(learning_rate=0.5, weight_decay=1e-2, exclude=by_name)


@pytest.mark.parametrize("implementation", ["xla", "pallas_tpu"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_shards_are_updated_as_the_whole(
  devices, variant, implementation, interpret_tpu, monkeypatch
):
  monkeypatch.setattr(register_blocks, "_LARGEST", 8)
  settings = SETTINGS | {"variant": variant}
  trees = packed_case(devices)
  want = lars_update(*trees, implementation="xla", **settings)
  interpret_tpu()
  packing = trees[0].packing
  mesh = Mesh(np.array(jax.devices()[:devices]), ("x",))

  def local(*buffers):
    shard = Shard(jax.lax.axis_index("x"), ("x",))
    packed = [Packed(x, packing) for x in buffers]
    new = lars_update(
      *packed, shard=shard, implementation=implementation, **settings
    )
    return [x.buffer for x in new]

  sharded = jax.shard_map(
    local, mesh=mesh, in_specs=P("x"), out_specs=P("x"), check_vma=True
  )
  got = jax.jit(sharded)(*(tree.buffer for tree in trees))
  for got_buffer, tree in zip(got, want, strict=True):
    new = packing.unpack(got_buffer)
    for name, leaf in tree.unpack().items():
      # The norms add in another order, which costs a few roundings.
      largest = np.abs(leaf).max()
      np.testing.assert_allclose(new[name], leaf, rtol=0, atol=8 * U * largest)


SHAPES = st.lists(st.integers(1, 300), max_size=3).filter(
  lambda shape: math.prod(shape) < 50_000
)


@pytest.mark.slow
@settings_of_hypothesis(deadline=None, max_examples=8)
@given(st.lists(SHAPES, min_size=1, max_size=5))
def test_any_shapes_packed(shapes):
  rng = np.random.default_rng(0)
  trees = [
    [rng.standard_normal(s).astype(np.float32) for s in shapes]
    for _ in range(3)
  ]
  settings = dict(learning_rate=0.5, weight_decay=1e-2)
  want = lars_update(*trees, **settings)
  packing = pack_like(trees[0])
  packed = [Packed(packing.pack(tree), packing) for tree in trees]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(pl, "pallas_call", partial(pl.pallas_call, interpret=True))
    got = lars_update(*packed, implementation="pallas_tpu", **settings)
  for new, old in zip(got, want, strict=True):
    for x, y in zip(new.unpack(), old, strict=True):
      # The sums cover up to about 100 registers, in another order.
      largest = np.abs(y).max(initial=0)
      np.testing.assert_allclose(x, y, rtol=0, atol=100 * U * largest)


def test_padding_stays_zero():
  w, g, v = packed_case(2)
  for tree in lars_update(w, g, v, **SETTINGS):
    again = tree.packing.pack(tree.unpack())
    np.testing.assert_array_equal(tree.buffer, again)


def test_trees_updated_by_kernels_keep_their_dtypes(interpret):
  interpret()
  params = {"kernel": jnp.linspace(1, 2, 64, dtype=jnp.bfloat16)}
  momenta = {"kernel": jnp.zeros(64, jnp.float32)}
  args = params, params, momenta
  settings = dict(learning_rate=100.0, weight_decay=0.01)
  got = lars_update(*args, implementation="pallas_tpu", **settings)
  want = lars_update(*args, **settings)
  for new, old in zip(got, want, strict=True):
    assert new["kernel"].dtype == old["kernel"].dtype
    np.testing.assert_allclose(
      np.float32(new["kernel"]), np.float32(old["kernel"]), rtol=2.0**-8
    )


def test_no_races_and_no_uninitialized_memory(monkeypatch):
  monkeypatch.setattr(register_blocks, "_LARGEST", 8)
  trees = packed_case(1)
  with as_on_a_tpu():
    got = lars_update(*trees, implementation="pallas_tpu", **SETTINGS)
  want = lars_update(*trees, **SETTINGS)
  for new, old in zip(got, want, strict=True):
    largest = np.abs(old.buffer).max()
    np.testing.assert_allclose(
      new.buffer, old.buffer, rtol=8 * U, atol=8 * U * largest
    )


def test_excluding_by_shape_when_packed():
  seen = []

  def exclude(path, leaf):
    seen.append((jax.tree_util.keystr(path), leaf.shape))
    return True

  params = Packed.of({"fc": {"bias": jnp.ones(3), "kernel": jnp.ones((2, 3))}})
  new, _ = lars_update(
    *(params, params, zeros(params)),
    learning_rate=0.5,
    weight_decay=0.25,
    exclude=exclude,
  )
  assert seen == [("['fc']['bias']", (3,)), ("['fc']['kernel']", (2, 3))]
  np.testing.assert_array_equal(new.unpack()["fc"]["bias"], np.full(3, 0.5))


def test_mistakes_in_packed_trees():
  one, two = np.ones(2, np.float32), np.ones((3, 4), np.float32)
  params = Packed.of({"a": one, "b": two})
  mistakes = [
    ({"a": one, "b": two}, "grads is a dict; pack it with params.packing.pack"),
    (Packed.of({"a": one}), "grads has no leaf at ['b'], params has one"),
    (
      Packed.of({"a": one, "b": two, "c": one}),
      "grads has a leaf at ['c'], params has none",
    ),
    (
      Packed.of({"a": one, "b": two[:, :3]}),
      "grads has shape (3, 3) at ['b'], params has (3, 4)",
    ),
    (
      Packed(params.buffer.astype(jnp.bfloat16), params.packing),
      "grads has a buffer of bfloat16 (16, 128)",
    ),
    (
      Packed(params.buffer, pack_like({"a": one, "b": two}, shards=16)),
      "rows, params in 16; pack it with params.packing.pack",
    ),
  ]
  for grads, message in mistakes:
    with pytest.raises(ValueError, match=re.escape(message)):
      call(params, grads)
  with pytest.raises(ValueError, match="momenta is a dict; pack it with"):
    call(params, momenta={"a": one, "b": two})
  half = Packed(params.buffer.astype(jnp.bfloat16), params.packing)
  with pytest.raises(ValueError, match="params has a buffer of bfloat16"):
    call(half)
  with pytest.raises(ValueError, match="unknown implementation 'xal'"):
    call(params, implementation="xal")
  with pytest.raises(
    ValueError, match="shard= needs Packed params, got a dict"
  ):
    call({"a": one}, shard=Shard(jnp.int32(0), ("x",)))


@pytest.mark.parametrize("chip", KINDS)
def test_kernels_are_selected_for_packed_trees_only(chip):
  rates = {"learning_rate": 1.0, "weight_decay": 0.0}
  tree = {"a": np.ones(2, np.float32)}
  packed = Packed.of(tree)

  def describe_update(tree):
    return describe(lars_update, tree, tree, tree, **rates)

  assert describe_update(packed).reason == "JAX compiles for no TPU"
  with on(chip):
    selection = describe_update(tree)
    assert (selection.on_tpu, selection.elsewhere) == ("xla", "xla")
    assert selection.reason.startswith("packing the trees takes longer")
    for selection in describe_update(packed), describe(leaf_norms, packed):
      assert selection.chip == chip
      assert (selection.on_tpu, selection.elsewhere) == ("pallas_tpu", "xla")


@pytest.mark.parametrize("pack", [Packed.of, dict])
def test_describe_takes_the_arguments_of_an_update(pack):
  tree = pack({"a": np.ones(2, np.float32)})
  seen = []

  def exclude(path, leaf):
    seen.append((jax.tree_util.keystr(path), leaf.shape))
    return True

  def describe_update(**settings):
    return describe(
      *(lars_update, tree, tree, tree),
      **{"learning_rate": 1.0, "weight_decay": 0.0, **settings},
    )

  with on("v5e"):
    for implementation in "xla", "pallas_tpu":
      selection = describe_update(implementation=implementation)
      assert selection.on_tpu == implementation
  describe_update(exclude=exclude)
  assert seen == [("['a']", (2,))]


def test_describe_refuses_what_an_update_refuses():
  wide = {"a": jax.ShapeDtypeStruct((2,), np.float64)}
  rates = {"learning_rate": 1.0, "weight_decay": 0.0}
  with (
    on("v5e"),
    pytest.raises(NotImplementedError, match="in float32, got float64"),
  ):
    describe(
      *(lars_update, wide, wide, wide), **rates, implementation="pallas_tpu"
    )
  tree = {"a": np.ones(2, np.float32)}
  with pytest.raises(ValueError, match="shard= needs Packed params"):
    describe(
      *(lars_update, tree, tree, tree),
      **rates,
      shard=Shard(jnp.int32(0), ("x",)),
    )


@pytest.mark.parametrize("implementation", [None, "pallas_tpu"])
def test_excluded_leaves_take_no_vmem(implementation):
  leaf = np.ones(1, np.float32)
  tree = Packed.of([leaf] * 3000)

  def describe_update(exclude):
    return describe(
      *(lars_update, tree, tree, tree),
      **{"learning_rate": 1.0, "weight_decay": 0.0},
      exclude=exclude,
      implementation=implementation,
    )

  with on("v3"):
    few = describe_update(lambda path, leaf: path[-1].idx > 0)
    assert few.on_tpu == "pallas_tpu"
    if implementation is None:
      all_ = describe_update(None)
      assert (all_.on_tpu, "3000 leaves" in all_.reason) == ("xla", True)
    else:
      with pytest.raises(NotImplementedError, match="sums of 3000 leaves"):
        describe_update(None)
