"""Checkpoints of a run.

With several processes each calls the same methods in the same order. The state
is whole on all of them, so process 0 alone writes it, and what fails there is
told to the others when it is their turn to wait; all read. None waits for
another inside Orbax, whose barriers keep those a failure has not reached for
minutes.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import LatestN

from ..errors import SaveError, UsageError, one_line
from ..processes.distributed import first_message, on_main
from .log import make_folder
from .orbax_noise import silence_orbax

# Second step counters, which podscale saved up to version 0.1.0: of LARS and of
# RMSProp. They equal the step, and no state holds them any more.
_EARLIER_COUNTERS = ("optimizer.count", "optimizer.1.count")
_MOST_OF_A_REASON = 150  # characters, from each end


class DamagedError(UsageError):
  """A checkpoint that cannot be read back as it was saved.

  Args:
    path: Its folder.
    reason: Why, in one line.
  """

  def __init__(self, path: Path, reason: str):
    super().__init__(f"the checkpoint {path} is damaged ({reason})")
    self.path = path


class Restored(NamedTuple):
  """What a run goes on from.

  Attributes:
    step: Steps done.
    state: As it was saved.
    data_state: Where the input stood.
    damaged: What is wrong with the newer checkpoints that were put aside.
  """

  step: int
  state: Any
  data_state: dict[str, Any]
  damaged: list[str]


class Checkpoints:
  """The checkpoints in a directory: the last `keep` of them, one per step.

  Saving is asynchronous: `save` returns when the arrays are copied to the host
  (so the next step may have their buffers), and writes while training goes on.
  A checkpoint counts when it is written whole; what a killed process or a full
  disk left of one is cleared away. That one could not be written is told by the
  next `save` or `wait`. A process must end with `close`, or use this as a
  context manager.

  One record in each holds the step, the data state, and the shape, dtype and
  CRC-32 of every array, under a SHA-256 of its own, so that whatever changes
  on disk is noticed when it is read.

  Args:
    directory: Where they are, of all processes; made if it is not there.
    keep: How many to keep.

  Raises:
    UsageError: If the directory cannot be made.

  Example:
    >>> import tempfile, jax.numpy as jnp
    >>> state = {"weight": jnp.arange(3.0)}
    >>> with (
    ...   tempfile.TemporaryDirectory() as directory,
    ...   Checkpoints(directory, keep=2) as checkpoints,
    ... ):
    ...   checkpoints.save(10, state, {"epoch": 1})
    ...   checkpoints.wait()
    ...   checkpoints.latest_step(), checkpoints.restore(state)
    (10, ({'weight': Array([0., 1., 2.], dtype=float32)}, {'epoch': 1}))
  """

  def __init__(self, directory: str | Path, *, keep: int):
    self._directory = Path(directory).absolute()
    make_folder(self._directory)
    self._failure = ""
    silence_orbax()
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    registry.add("state", ocp.args.StandardSave)
    registry.add("state", ocp.args.StandardRestore)
    registry.add("record", ocp.args.JsonSave)
    registry.add("record", ocp.args.JsonRestore)
    self._manager = ocp.CheckpointManager(
      self._directory,
      options=_options(jax.process_index(), keep),
      handler_registry=registry,
    )

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: object, *exception: object) -> None:
    if kind is None:
      return self.close()
    with contextlib.suppress(SaveError):  # what ended the block comes first
      self.close()

  def save(self, step: int, state: Any, data_state: dict[str, Any]) -> None:
    """Start to save; a step that is there already is left as it is.

    Args:
      step: Number of steps done.
      state: Pytree of `jax.Array`s that each process has whole, none of them
        empty, no PRNG keys.
      data_state: Where the input stands, as JSON can hold it.

    Raises:
      SaveError: If the save before failed, which does not keep this one from
        being started; or if there is not room enough for this one, which does.
    """
    failed = self._finish()
    lack = ""
    if jax.process_index() == 0 and step not in self._manager.all_steps():
      leaves = jax.tree.map(np.asarray, _by_name(state))
      lack = self._lack_of_room(leaves)
      if not lack:
        self._start(step, leaves, data_state)
    lack = first_message(lack)
    if lack:
      raise self._error(lack)
    if failed:
      raise failed

  def latest_step(self) -> int | None:
    """The last step that is saved; in process 0 also one being saved.

    None without checkpoints.
    """
    return self._manager.latest_step()

  def restore(
    self,
    abstract_state: Any,
    step: int | None = None,
    *,
    check_data: Callable[[Any], object] | None = None,
  ) -> tuple[Any, dict[str, Any]]:
    """Read a checkpoint back, bit for bit, once it is on disk.

    Args:
      abstract_state: Pytree of what the state is to be: arrays or
        `jax.ShapeDtypeStruct`s with a sharding, which may be another than that
        of the saved arrays.
      step: Which one; None takes the latest.
      check_data: Called with the data_state; raises ValueError if it is none.

    Returns:
      The state, in the tree and shardings of `abstract_state`, and the
      data_state.

    Raises:
      UsageError: If there is no such checkpoint, or it is of another model or
        an earlier version of podscale.
      DamagedError: If its files cannot be read, are not what was saved, were
        saved at another step, or hold no data_state.
    """
    self.wait()
    if step is None:
      step = self.latest_step()
    if step is None or step not in self._manager.all_steps():
      wanted = "" if step is None else f" of step {step}"
      raise UsageError(f"no checkpoint{wanted} in {self._directory}")
    target = _by_name(
      jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        abstract_state,
      )
    )
    on_main(lambda: self._refuse_earlier_format(step))
    with self._reading(step):
      record = self._read_record(step)
      types = {name: array["type"] for name, array in record["arrays"].items()}
      if check_data is not None:
        check_data(record["data"])
    own_device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    counters = {
      name: jax.ShapeDtypeStruct((), np.int32, sharding=own_device)
      for name in _EARLIER_COUNTERS
      if types.get(name) == "int32[]" and name not in target
    }
    self._check_same(step, types, target | counters)
    with self._reading(step):
      restored = self._read_state(step, target | counters, record["arrays"])
      for name in counters:
        if int(restored[name]) != step:
          raise ValueError(f"{name} is {restored[name]}, not {step}")
    leaves = [restored[name] for name in target]
    structure = jax.tree.structure(abstract_state)
    return jax.tree.unflatten(structure, leaves), record["data"]

  def restore_latest(
    self,
    abstract_state: Any,
    *,
    last_step: int | None = None,
    check_data: Callable[[Any], object] | None = None,
  ) -> Restored | None:
    """Read back the newest checkpoint that is whole, if there is any.

    Those that are damaged and newer are put aside: STEP.damaged is what they
    are called then, and a number follows if that is taken.

    Args:
      abstract_state: As in `restore`.
      last_step: Of the run; there may be no checkpoint beyond it.
      check_data: As in `restore`.

    Raises:
      UsageError: If the newest is beyond the last step, of another model or of
        an earlier version of podscale. No other is put aside then.
      DamagedError: If there are checkpoints and all are damaged.
    """
    self.wait()
    damaged: list[DamagedError] = []
    for step in sorted(self._manager.all_steps(), reverse=True):
      try:
        restored = self.restore(abstract_state, step, check_data=check_data)
      except DamagedError as error:
        damaged.append(error)
        continue
      if last_step is not None and step > last_step:
        raise UsageError(
          f"the checkpoint {self._directory / str(step)} is that of step "
          f"{step}, beyond the end of the run at step {last_step}; move it "
          "away or choose another --workdir"
        )
      for newer in damaged:
        on_main(functools.partial(_put_aside, newer.path))
      if damaged:
        self._manager.reload()
      return Restored(step, *restored, [str(newer) for newer in damaged])
    if damaged:
      raise damaged[0]
    return None

  def wait(self) -> None:
    """Wait until all that was saved is on disk.

    Raises:
      SaveError: If the last save failed. What it had written is removed; the
        checkpoints before it are as they were.
    """
    failed = self._finish()
    if failed:
      raise failed

  def close(self) -> None:
    """Wait for what is being written and end the threads that write.

    Raises:
      SaveError: In process 0, if the last save failed.
    """
    with self._noting_failure():
      self._manager.close()
    if self._failure:
      raise self._error(self._failure)

  def _start(
    self, step: int, leaves: dict[str, np.ndarray], data_state: dict[str, Any]
  ) -> None:
    with self._noting_failure():
      self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(leaves),
          record=ocp.args.JsonSave(_sealed(step, data_state, leaves)),
        ),
        force=True,
      )

  def _finish(self) -> SaveError | None:
    """Wait for the last save, and tell if it failed."""
    with self._noting_failure():
      self._manager.wait_until_finished()
    failure, self._failure = first_message(self._failure), ""
    if failure and jax.process_index() == 0:
      self._remove_unfinished()
    # Who has not written knows of no new ones.
    if failure or jax.process_index() > 0:
      self._manager.reload()
    return self._error(failure) if failure else None

  @contextlib.contextmanager
  def _noting_failure(self) -> Iterator[None]:
    # For `wait`, in which all processes learn of it.
    try:
      yield
    except Exception as e:  # Orbax raises all sorts for a full disk
      self._failure = _reason(e)

  def _lack_of_room(self, leaves: Mapping[str, np.ndarray]) -> str:
    needed = sum(leaf.nbytes for leaf in leaves.values())
    free = shutil.disk_usage(self._directory).free
    if free >= needed:
      return ""
    return f"it has {needed:,} bytes, the disk has room for {free:,}"

  def _error(self, failure: str) -> SaveError:
    latest = self.latest_step()
    kept = "no other is there" if latest is None else f"step {latest} is kept"
    return SaveError(
      f"a checkpoint could not be saved in {self._directory}, {kept} "
      f"({failure})"
    )

  def _remove_unfinished(self) -> None:
    for path in self._directory.glob("*.orbax-checkpoint-tmp"):
      shutil.rmtree(path, ignore_errors=True)

  @contextlib.contextmanager
  def _reading(self, step: int) -> Iterator[None]:
    """Damage that one process finds is every process's."""
    cause, reason = None, ""
    try:
      yield
    except Exception as e:  # Orbax raises all sorts for a damaged file
      cause, reason = e, _reason(e)
    reason = first_message(reason)
    if reason:
      raise DamagedError(self._directory / str(step), reason) from cause

  def _refuse_earlier_format(self, step: int) -> None:
    folder = self._directory / str(step)
    if (folder / "data").exists() and not (folder / "record").exists():
      raise UsageError(
        f"the checkpoint {folder} was written by an earlier version of "
        "podscale, in a format without checksums of all that it holds; resume "
        "it with that version or choose another --workdir"
      )

  def _read_record(self, step: int) -> dict[str, Any]:
    wanted = ocp.args.Composite(record=ocp.args.JsonRestore())
    return _unsealed(step, self._manager.restore(step, args=wanted)["record"])

  def _read_state(
    self, step: int, target: dict[str, Any], saved: Mapping[str, Any]
  ) -> dict[str, jax.Array]:
    wanted = ocp.args.Composite(state=ocp.args.StandardRestore(target))
    state = self._manager.restore(step, args=wanted)["state"]
    for name, leaf in state.items():
      found, expected = _checksum(leaf), saved[name]["crc32"]
      if found != expected:
        raise ValueError(
          f"{name} has checksum {found}, it was saved with {expected}"
        )
    return state

  def _check_same(
    self, step: int, saved: Mapping[str, str], target: Mapping[str, Any]
  ) -> None:
    for name in {**target, **saved}:
      there = saved.get(name, "absent")
      here = _describe(target[name]) if name in target else "absent"
      if there != here:
        raise UsageError(
          f"the checkpoint of step {step} in {self._directory} is of another "
          f"model: {name} is {there} there, {here} here"
        )


def _options(process: int, keep: int) -> ocp.CheckpointManagerOptions:
  """Of a process by itself, which writes if it is the first."""
  return ocp.CheckpointManagerOptions(
    create=False,
    read_only=process > 0,
    cleanup_tmp_directories=process == 0,
    preservation_policy=LatestN(keep),
    multiprocessing_options=ocp.options.MultiprocessingOptions(
      primary_host=process, active_processes={process}
    ),
  )


def _reason(error: Exception) -> str:
  """What an error says, the system's own words first; of a long one the ends.

  >>> _reason(ValueError("Failed: No space left [os_error_code='28']"))
  "No space left, ValueError: Failed: No space left [os_error_code='28']"
  """
  text, most = f"{type(error).__name__}: {one_line(error)}", _MOST_OF_A_REASON
  system = re.search(r"([^:]+) \[os_error_code=", text)
  if len(text) > 2 * most:
    text = f"{text[:most]}...{text[-most:]}"
  return f"{system[1].strip()}, {text}" if system else text


def _sealed(
  step: int, data_state: dict[str, Any], leaves: Mapping[str, np.ndarray]
) -> dict[str, Any]:
  """Put what identifies a checkpoint under a SHA-256."""
  arrays = {
    name: {"type": _describe(leaf), "crc32": _checksum(leaf)}
    for name, leaf in leaves.items()
  }
  record = {"step": step, "data": data_state, "arrays": arrays}
  return {"record": record, "sha256": _digest(record)}


def _unsealed(step: int, sealed: Any) -> dict[str, Any]:
  """Return the record that was `_sealed` at this step.

  Raises:
    ValueError: It has changed, or is of another step.
  """
  record = sealed["record"]
  if sealed["sha256"] != _digest(record):
    raise ValueError("the record of step, input and arrays has changed")
  if record["step"] != step:
    raise ValueError(f"it was saved at step {record['step']}")
  return record


def _digest(record: Any) -> str:
  """Compute the SHA-256 of a record as JSON, however its file is laid out."""
  text = json.dumps(record, sort_keys=True, separators=(",", ":"))
  return hashlib.sha256(text.encode()).hexdigest()


def _checksum(leaf: Any) -> int:
  """Compute the CRC-32 of an array's bytes."""
  return zlib.crc32(np.ascontiguousarray(leaf).view(np.uint8))


def _put_aside(path: Path) -> None:
  """Rename a damaged checkpoint, so that its step can be saved again."""
  names = (f"{path.name}.damaged{n or ''}" for n in itertools.count())
  asides = (path.with_name(name) for name in names)
  path.rename(next(aside for aside in asides if not aside.exists()))


def _by_name(tree: Any) -> dict[str, Any]:
  """The leaves of a tree by their path, such as "params.stem.kernel".

  What is on disk is then free of the classes that the tree is made of.
  """
  paths_and_leaves, _ = jax.tree.flatten_with_path(tree)
  by_name = {
    jax.tree_util.keystr(path, simple=True, separator="."): leaf
    for path, leaf in paths_and_leaves
  }
  if len(by_name) != len(paths_and_leaves):
    raise ValueError("two leaves of the state have the same name")
  return by_name


def _describe(leaf: Any) -> str:
  """Describe shape and dtype, such as "float32[3,3,32]"."""
  return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
