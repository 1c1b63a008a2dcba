import functools
import json
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from support.full_disk import files_up_to

from podscale.train.errors import SaveError, UsageError
from podscale.train.optimizer import LarsBuffers, rmsprop
from podscale.train.records.checkpoint import Checkpoints, DamagedError
from podscale.train.records.checkpoint_record import digest
from podscale.train.state import TrainState, Variables


class Momenta(NamedTuple):
  trace: dict


def mesh(groups=4, members=2):
  return jax.make_mesh(
    (groups, members),
    ("group", "member"),
    devices=jax.devices()[: groups * members],
  )


def make_state(width=24, on=None):
  on = on or mesh()
  replicated = NamedSharding(on, PartitionSpec())
  sharded = NamedSharding(on, PartitionSpec(("group", "member")))
  rng = np.random.default_rng(0)
  kernel = rng.standard_normal((16, width)).astype(np.float32)
  # Another dtype or an addition in between would lose these bits.
  kernel[0, :4] = -0.0, np.nan, 1e-40, -np.inf
  put = jax.device_put
  return {
    "step": put(np.int32(3), replicated),
    "params": {"kernel": put(kernel, replicated)},
    "momenta": Momenta({"kernel": put(kernel[::-1].copy(), sharded)}),
    "words": put(np.array([0, 2**32 - 1], np.uint32), replicated),
  }


def copied(state):
  return jax.tree.map(lambda x: np.array(x, copy=True), state)


def assert_same_bits(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for a, b in zip(
    jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
  ):
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_restores_the_same_bits_and_shardings(tmp_path):
  state = make_state()
  data_state = {"epoch": 1, "position": 77}
  with Checkpoints(tmp_path / "checkpoints", keep=2) as checkpoints:
    assert checkpoints.latest_step() is None
    checkpoints.save(3, state, data_state)

  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
  )
  with Checkpoints(tmp_path / "checkpoints", keep=2) as checkpoints:
    assert checkpoints.latest_step() == 3
    restored, restored_data_state = checkpoints.restore(abstract)
  assert_same_bits(restored, state)
  assert jax.tree.map(lambda x: x.sharding, restored) == jax.tree.map(
    lambda x: x.sharding, state
  )
  assert restored_data_state == data_state


def test_saves_what_it_was_given_though_the_next_steps_take_its_buffers(
  tmp_path,
):
  @functools.partial(jax.jit, donate_argnums=0)
  def step(state):
    return jax.tree.map(lambda x: x + jnp.ones((), x.dtype), state)

  state = make_state(width=100_000)
  saved = {}
  with Checkpoints(tmp_path, keep=3) as checkpoints:
    for number in range(1, 4):
      saved[number] = copied(state)
      checkpoints.save(number, state, {})
      for _ in range(3):
        given, state = state, step(state)
        assert given["params"]["kernel"].is_deleted()
    for number, expected in saved.items():
      assert_same_bits(checkpoints.restore(state, number)[0], expected)


def test_restores_onto_another_mesh(tmp_path):
  state = make_state()
  on_two = make_state(on=mesh(2, 1))
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    checkpoints.save(1, state, {})
    restored, _ = checkpoints.restore(on_two)
  assert_same_bits(restored, state)
  assert restored["params"]["kernel"].sharding == (
    on_two["params"]["kernel"].sharding
  )


def test_keeps_the_last_ones(tmp_path):
  state = make_state()
  with Checkpoints(tmp_path, keep=2) as checkpoints:
    for step in (2, 10, 30):
      checkpoints.save(step, state, {"step": step})
    checkpoints.wait()
    assert {path.name for path in tmp_path.iterdir()} == {"10", "30"}
    assert checkpoints.restore(state, 10)[1] == {"step": 10}


def test_a_step_that_is_there_is_left_as_it_is(tmp_path):
  state = make_state()
  with Checkpoints(tmp_path, keep=2) as checkpoints:
    checkpoints.save(5, state, {"save": "first"})
    checkpoints.save(5, state, {"save": "second"})
    assert checkpoints.restore(state)[1] == {"save": "first"}


def test_what_a_killed_save_left_does_not_count(tmp_path):
  state = make_state()
  with Checkpoints(tmp_path, keep=3) as checkpoints:
    checkpoints.save(1, state, {})
  # Orbax uses this name until the checkpoint is complete.
  (tmp_path / "1").rename(tmp_path / "2.orbax-checkpoint-tmp")
  with Checkpoints(tmp_path, keep=3) as checkpoints:
    assert checkpoints.latest_step() is None
    checkpoints.save(2, state, {"step": 2})
    assert checkpoints.restore(state, 2)[1] == {"step": 2}
  assert [path.name for path in tmp_path.iterdir()] == ["2"]


@pytest.mark.parametrize(
  "change, difference",
  [
    (
      lambda state: state | {"params": make_state(width=32)["params"]},
      r"params\.kernel is float32\[16,24\] there, float32\[16,32\] here",
    ),
    (
      lambda state: state | {"step": state["step"].astype(jnp.float32)},
      r"step is int32\[\] there, float32\[\] here",
    ),
    (
      lambda state: state | {"ema": state["step"]},
      r"ema is absent there, int32\[\] here",
    ),
    (
      lambda state: {k: v for k, v in state.items() if k != "words"},
      r"words is uint32\[2\] there, absent here",
    ),
  ],
)
def test_a_checkpoint_of_another_model_is_refused(tmp_path, change, difference):
  state = make_state()
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    checkpoints.save(4, state, {})
    with pytest.raises(UsageError, match=difference) as error:
      checkpoints.restore(change(state))
    assert "\n" not in str(error.value)
    assert "step 4" in str(error.value)


def test_a_missing_checkpoint_is_named(tmp_path):
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    with pytest.raises(UsageError, match=f"no checkpoint in {tmp_path}"):
      checkpoints.restore(make_state())
    with pytest.raises(UsageError, match="no checkpoint of step 7 in"):
      checkpoints.restore(make_state(), 7)


def test_a_damaged_checkpoint_is_named(tmp_path):
  state = make_state()["params"]  # one array: one error, not one per thread
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    checkpoints.save(4, state, {})
  manifest = tmp_path / "4" / "state" / "manifest.ocdbt"
  manifest.write_bytes(manifest.read_bytes()[:20])
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    with pytest.raises(UsageError, match=f"{tmp_path}/4 .*DATA_LOSS") as error:
      checkpoints.restore(state)
    assert "\n" not in str(error.value)


def flip_a_bit_of_the_data(folder):
  """Change the largest file, which holds the compressed arrays."""
  path = max(folder.rglob("*"), key=lambda p: p.is_file() and p.stat().st_size)
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 16
  path.write_bytes(data)


def test_the_one_before_a_damaged_one_is_used(tmp_path):
  state = make_state(width=1000)["params"]  # one array: one error
  with Checkpoints(tmp_path, keep=3) as checkpoints:
    for step in (1, 2, 3):
      checkpoints.save(step, state, {"step": step})
  flip_a_bit_of_the_data(tmp_path / "3")
  (tmp_path / "2" / "state" / "manifest.ocdbt").write_bytes(b"half")
  with Checkpoints(tmp_path, keep=3) as checkpoints:
    restored = checkpoints.restore_latest(state)
    assert (restored.step, restored.data_state) == (1, {"step": 1})
    assert_same_bits(restored.state, state)
    newest, next_ = restored.damaged
    assert f"the checkpoint {tmp_path}/3 is damaged" in newest
    assert f"the checkpoint {tmp_path}/2 is damaged" in next_
    # The run repeats their steps.
    checkpoints.save(2, state, {"step": "again"})
    assert checkpoints.restore(state, 2)[1] == {"step": "again"}
  names = {path.name for path in tmp_path.iterdir()}
  assert names == {"1", "2", "2.damaged", "3.damaged"}
  with Checkpoints(tmp_path, keep=3) as checkpoints:
    assert checkpoints.restore_latest(state).step == 2


def rewrite_record(checkpoint, change, *, seal=True):
  """Change the record of a checkpoint; if sealed, update its SHA-256."""
  path = checkpoint / "record" / "metadata"
  record = json.loads(path.read_text())
  record["record"] = change(record["record"])
  if seal:
    record["sha256"] = digest(record["record"])
  path.write_text(json.dumps(record))


def test_an_array_with_another_checksum_is_named(tmp_path):
  """The array may have changed on the disk or in transfer."""
  state = make_state()

  def flip(record):
    record["arrays"]["params.kernel"]["crc32"] ^= 1
    return record

  with Checkpoints(tmp_path, keep=1) as checkpoints:
    checkpoints.save(1, state, {})
  rewrite_record(tmp_path / "1", flip)
  with (
    Checkpoints(tmp_path, keep=1) as checkpoints,
    pytest.raises(DamagedError, match="params.kernel has checksum"),
  ):
    checkpoints.restore(state)


def check_position(data_state):
  if type(data_state["position"]) is not int:
    raise ValueError(f"the position is {data_state['position']!r}")


def assert_the_one_before_is_used(directory, state, reason):
  """Assert that step 2 is damaged and step 1 is restored."""
  with Checkpoints(directory, keep=3) as checkpoints:
    restored = checkpoints.restore_latest(state, check_data=check_position)
  assert (restored.step, restored.data_state) == (1, {"position": 10})
  (line,) = restored.damaged
  assert f"the checkpoint {directory}/2 is damaged" in line
  assert reason in line
  assert "\n" not in line
  assert {path.name for path in directory.iterdir()} == {"1", "2.damaged"}


@pytest.fixture
def two(tmp_path):
  """Directory with checkpoints of steps 1 and 2, and their state."""
  state = make_state()["params"]
  with Checkpoints(tmp_path, keep=3) as checkpoints:
    for step in (1, 2):
      checkpoints.save(step, state, {"position": 10 * step})
  return tmp_path, state


def test_a_data_state_that_has_changed_is_damage(two):
  directory, state = two

  def move(record):
    return record | {"data": {"position": 21}}

  rewrite_record(directory / "2", move, seal=False)
  assert_the_one_before_is_used(directory, state, "record of step, input")


@pytest.mark.parametrize(
  "data, reason",
  [
    ({"position": "20"}, "the position is '20'"),
    ({"position": None}, "the position is None"),
    ({"posit": 20}, "KeyError: 'position'"),
    ([20], "TypeError"),
    (None, "TypeError"),
  ],
)
def test_a_data_state_that_is_none_is_damage(two, data, reason):
  directory, state = two
  rewrite_record(directory / "2", lambda record: record | {"data": data})
  assert_the_one_before_is_used(directory, state, reason)


@pytest.mark.parametrize("record", [None, [], {"step": 2}, {"arrays": {}}])
def test_a_record_of_something_else_is_damage(two, record):
  directory, state = two
  rewrite_record(directory / "2", lambda _: record)
  assert_the_one_before_is_used(directory, state, "Error: ")


def test_a_lost_record_is_damage(two):
  directory, state = two
  shutil.rmtree(directory / "2" / "record")
  assert_the_one_before_is_used(directory, state, "record")


@pytest.mark.parametrize("transfer", [Path.rename, shutil.copytree])
def test_a_checkpoint_under_another_step_is_damage(tmp_path, transfer):
  state = make_state()["params"]
  with Checkpoints(tmp_path, keep=3) as checkpoints:
    for step in (6, 9):
      checkpoints.save(step, state, {"position": step})
  transfer(tmp_path / "9", tmp_path / "11")
  with Checkpoints(tmp_path, keep=3) as checkpoints:
    restored = checkpoints.restore_latest(state, last_step=12)
  assert restored.step == (6 if transfer is Path.rename else 9)
  (line,) = restored.damaged
  assert f"{tmp_path}/11 is damaged" in line
  assert "saved at step 9" in line


def test_a_checkpoint_beyond_the_end_is_refused(tmp_path):
  state = make_state()["params"]
  with Checkpoints(tmp_path, keep=4) as checkpoints:
    for step in (6, 12, 13, 14):
      checkpoints.save(step, state, {})
  (tmp_path / "14" / "state" / "manifest.ocdbt").write_bytes(b"half")
  with Checkpoints(tmp_path, keep=4) as checkpoints:
    with pytest.raises(
      UsageError, match="13 is beyond .* at step 12;"
    ) as error:
      checkpoints.restore_latest(state, last_step=12)
    assert "\n" not in str(error.value)
    assert not isinstance(error.value, DamagedError)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"6", "12", "13", "14"}
    assert checkpoints.restore_latest(state, last_step=13).step == 13


def test_a_checkpoint_of_an_earlier_format_is_refused(two):
  """That format had the items data and checksums instead of a record."""
  directory, state = two
  (directory / "2" / "record").rename(directory / "2" / "checksums")
  shutil.copytree(directory / "2" / "checksums", directory / "2" / "data")
  with (
    Checkpoints(directory, keep=3) as checkpoints,
    pytest.raises(UsageError, match="2 has the format of an earlier") as error,
  ):
    checkpoints.restore_latest(state)
  assert not isinstance(error.value, DamagedError)
  assert {path.name for path in directory.iterdir()} == {"1", "2"}


def test_a_flipped_bit_is_damage_or_harmless(two):
  """Flip a bit at positions all over every file of a checkpoint."""
  directory, state = two
  shutil.rmtree(directory / "2")
  files = [path for path in (directory / "1").rglob("*") if path.is_file()]
  record = directory / "1" / "record" / "metadata"
  assert record in files
  outcomes = {"damage": 0, "harmless": 0}
  with Checkpoints(directory, keep=3) as checkpoints:
    for path in files:
      content = path.read_bytes()
      stride = 1 if path == record else max(1, len(content) // 16)
      for at in range(0, len(content), stride):
        changed = bytearray(content)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        try:
          restored, data_state = checkpoints.restore(state, 1)
        except DamagedError as error:
          assert "\n" not in str(error)
          outcomes["damage"] += 1
        else:
          assert path != record
          assert_same_bits(restored, state)
          assert data_state == {"position": 10}
          outcomes["harmless"] += 1
      path.write_bytes(content)
  assert outcomes["damage"] > len(record.read_bytes())


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file"])
def test_what_is_in_the_way_of_a_save_does_not_fail_it_for_ever(tmp_path, kind):
  """A run that wrote here at the same time may leave such things."""
  state = make_state()
  with Checkpoints(tmp_path, keep=3) as checkpoints:
    checkpoints.save(1, state, {})
    checkpoints.wait()
    for name in ("2", "2.orbax-checkpoint-tmp"):
      if kind == "file":
        (tmp_path / name).write_text("left over")
        continue
      (tmp_path / name).mkdir()
      if kind == "folder":
        (tmp_path / name / "junk").write_text("left over")
    checkpoints.save(2, state, {"step": 2})
    assert checkpoints.restore(state, 2)[1] == {"step": 2}
  assert {path.name for path in tmp_path.iterdir()} == {"1", "2"}


def test_when_all_are_damaged_the_newest_is_named(tmp_path):
  state = make_state()["params"]
  with Checkpoints(tmp_path, keep=2) as checkpoints:
    assert checkpoints.restore_latest(state) is None
    for step in (1, 2):
      checkpoints.save(step, state, {})
  for step in (1, 2):
    (tmp_path / str(step) / "state" / "manifest.ocdbt").write_bytes(b"half")
  with (
    Checkpoints(tmp_path, keep=2) as checkpoints,
    pytest.raises(DamagedError, match=f"{tmp_path}/2 is damaged"),
  ):
    checkpoints.restore_latest(state)
  assert {path.name for path in tmp_path.iterdir()} == {"1", "2"}


def test_two_leaves_of_one_name_are_not_saved_over_each_other(tmp_path):
  leaf = make_state()["step"]
  with (
    Checkpoints(tmp_path, keep=1) as checkpoints,
    pytest.raises(ValueError, match="same name"),
  ):
    checkpoints.save(1, {"a": {"b": leaf}, "a.b": leaf}, {})


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(UsageError, match="file/checkpoints: .*/file is a file"):
    Checkpoints(tmp_path / "file" / "checkpoints", keep=1)


def test_the_terminal_stays_quiet(tmp_path, capfd, caplog):
  state = make_state()
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    checkpoints.save(1, state, {})
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    checkpoints.restore(state)
  output = capfd.readouterr()
  assert (output.out, output.err, caplog.records) == ("", "", [])


def fill_disk_while_saving(directory):
  """Save on a disk that fills midway; for `run_alone`."""
  state = make_state(width=20_000)
  with Checkpoints(directory, keep=3) as checkpoints:
    checkpoints.save(1, state, {})
    checkpoints.wait()
    with files_up_to(100_000):
      checkpoints.save(2, state, {})
      with pytest.raises(SaveError) as error:
        checkpoints.wait()
      assert "step 1 is kept" in str(error.value)
      assert "File too large" in str(error.value), str(error.value)
      assert "\n" not in str(error.value)
      checkpoints.save(3, state, {})
      while checkpoints._manager.is_saving_in_progress():
        time.sleep(0.01)
    with pytest.raises(SaveError, match="step 1 is kept"):
      checkpoints.save(4, state, {})
    checkpoints.wait()
    assert_same_bits(checkpoints.restore(state)[0], state)
  with files_up_to(100_000):
    with (
      pytest.raises(SaveError, match="step 4 is kept"),
      Checkpoints(directory, keep=3) as checkpoints,
    ):
      checkpoints.save(5, state, {})
    with (
      pytest.raises(KeyError),  # the block's own error comes first
      Checkpoints(directory, keep=3) as checkpoints,
    ):
      checkpoints.save(6, state, {})
      raise KeyError
  # Threads of a failed save may still write other files.
  names = {path.name for path in directory.iterdir()}
  assert {name for name in names if "tmp" not in name} == {"1", "4"}
  print("done")


def run_alone(function, directory):
  """Run a function in another process, so that Orbax's threads end with it.

  Returns what it has written to stderr.
  """
  folders = (str(Path(__file__).parent), str(Path(__file__).parents[2]))
  code = (
    f"import sys; sys.path[:0] = {folders}; import conftest, pathlib\n"
    f"from test_checkpoint import {function.__name__}\n"
    f"{function.__name__}(pathlib.Path({str(directory)!r}))"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=False
  )
  assert done.stdout == "done\n", done.stderr
  return done.stderr


def test_a_disk_that_fills_keeps_the_older_ones(tmp_path):
  run_alone(fill_disk_while_saving, tmp_path / "run")


def test_without_room_nothing_is_begun(tmp_path, monkeypatch, capfd):
  state = make_state()
  bytes_there = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  with Checkpoints(tmp_path, keep=3) as checkpoints:
    checkpoints.save(1, state, {})
    checkpoints.wait()
    usage = shutil.disk_usage(tmp_path)._replace(free=bytes_there - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(SaveError) as error:
      checkpoints.save(2, state, {})
    assert "step 1 is kept" in str(error.value)
    assert (
      f"needs {bytes_there:,} bytes, the disk has room for {bytes_there - 1:,}"
      in str(error.value)
    )
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    monkeypatch.undo()
    checkpoints.save(2, state, {})
  assert {path.name for path in tmp_path.iterdir()} == {"1", "2"}
  output = capfd.readouterr()
  assert (output.out, output.err) == ("", "")


def restore_many_damaged_arrays(directory):
  """Restore hundreds of damaged arrays with one error; for `run_alone`."""
  state = {f"array {i}": jnp.full((8, 4), float(i)) for i in range(300)}
  with Checkpoints(directory, keep=3) as checkpoints:
    checkpoints.save(1, state, {})
  manifest = directory / "1" / "state" / "manifest.ocdbt"
  manifest.write_bytes(manifest.read_bytes()[:50])
  with Checkpoints(directory, keep=3) as checkpoints:
    for _ in range(3):
      with pytest.raises(DamagedError):
        checkpoints.restore(state)
  print("done")


def test_of_many_damaged_arrays_one_line_is_said(tmp_path):
  said = run_alone(restore_many_damaged_arrays, tmp_path)
  assert said == ""


class Bomb:
  """Object that makes a file when it is unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return open, (str(self.path), "w")


def restore_hostile_files(directory):
  """Replace each file in turn by such a pickle; for `run_alone`."""
  state = make_state()["params"]
  run, mark = directory / "run", directory / "mark"
  with Checkpoints(run, keep=1) as checkpoints:
    checkpoints.save(1, state, {})
  paths = [path for path in (run / "1").rglob("*") if path.is_file()]
  assert len(paths) > 5
  refused = 0
  for path in paths:
    content = path.read_bytes()
    path.write_bytes(pickle.dumps(Bomb(mark)))
    with Checkpoints(run, keep=1) as checkpoints:
      try:
        restored = checkpoints.restore_latest(state)
        assert_same_bits(restored.state, state)
      except DamagedError:
        refused += 1
    path.write_bytes(content)
  assert refused > 3
  assert not mark.exists()
  pickle.loads(pickle.dumps(Bomb(mark))).close()
  assert mark.exists()
  print("done")


def test_a_hostile_checkpoint_executes_nothing(tmp_path):
  run_alone(restore_hostile_files, tmp_path)


def state_of_0_1_0(optimizer):
  """Make the state in checkpoints_0_1_0.zip, without the second counter.

  `Checkpoints.save` of commit b18c627 wrote both: LARS as `LarsState`, RMSProp
  as the state of `podscale.train.optimizer.rmsprop` with a schedule.
  """
  variables = Variables(
    {"stem": {"kernel": jnp.arange(6.0).reshape(2, 3)}},
    {"norm": {"mean": jnp.array([0.5, -0.5])}},
    {"norm": {"var": jnp.array([1.5, 2.0])}},
  )
  return TrainState(
    jnp.int32(3), variables, optimizer(variables.params), variables
  )


@pytest.mark.parametrize("name", ["lars", "rmsprop"])
def test_a_checkpoint_with_two_step_counters_is_restored(tmp_path, name):
  archive = Path(__file__).with_name("checkpoints_0_1_0.zip")
  shutil.unpack_archive(archive, tmp_path)
  init = LarsBuffers if name == "lars" else rmsprop(0.0).init
  state = state_of_0_1_0(init)
  with Checkpoints(tmp_path / name, keep=1) as checkpoints:
    restored = checkpoints.restore_latest(state)
    # A run saves it without the second counter and restores that.
    checkpoints.save(4, restored.state, {"epoch": 1})
    again, _ = checkpoints.restore(state, 4)
  assert (restored.step, restored.data_state) == (3, {"epoch": 1})
  assert jax.tree.structure(restored.state) == jax.tree.structure(state)
  assert_same_bits(restored.state.variables, state.variables)
  half = jax.tree.map(lambda x: x / 2, state.variables)
  assert_same_bits(restored.state.average, half)
  if name == "lars":
    assert_same_bits(restored.state.optimizer.momenta, half.params)
  assert_same_bits(again, restored.state)


def test_a_second_step_counter_that_differs_is_damage(tmp_path):
  state = {"step": jnp.int32(3), "optimizer": {"count": jnp.int32(2)}}
  with Checkpoints(tmp_path, keep=1) as checkpoints:
    checkpoints.save(3, state, {})
    with pytest.raises(DamagedError, match=r"optimizer\.count is 2"):
      checkpoints.restore({"step": jnp.int32(0), "optimizer": {}})
