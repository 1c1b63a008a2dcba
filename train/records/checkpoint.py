"""Checkpoints of a run.

With several processes, all of them call the same methods in the same order.
Every process holds the whole state; process 0 writes it and all processes read
it. A failed write raises in every process at the next `save` or `wait`.

Processes wait for each other only outside Orbax. After a failure in one
process, Orbax's own barriers would block the others for minutes.
"""

import contextlib
import functools
import itertools
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import LatestN

from ..errors import SaveError, UsageError, one_line
from ..processes.distributed import first_message, on_main
from .checkpoint_record import (
  array_type,
  checksum,
  leaves_by_name,
  seal,
  unseal,
)
from .files import make_folder
from .orbax_noise import silence_orbax

# Step counters of LARS and RMSProp, which podscale 0.1.0 saved besides the step
# that they equal.
_EARLIER_COUNTERS = ("optimizer.count", "optimizer.1.count")
_MOST_OF_A_REASON = 150  # characters, at each end of a long reason


class DamagedError(UsageError):
  """Checkpoint that cannot be read back as it was saved.

  Args:
    path: Folder of the checkpoint.
    reason: Cause of the error, in one line.
  """

  def __init__(self, path: Path, reason: str):
    super().__init__(f"the checkpoint {path} is damaged ({reason})")
    self.path = path


class Restored(NamedTuple):
  """Restored checkpoint.

  Attributes:
    step: Number of steps done.
    state: State that was saved.
    data_state: Position of the input.
    damaged: Error texts of newer checkpoints, which were damaged and are
      renamed.
  """

  step: int
  state: Any
  data_state: dict[str, Any]
  damaged: list[str]


class Checkpoints:
  """Last checkpoints of a run in a directory, one per step.

  Saving is asynchronous: `save` returns once it has copied the arrays to the
  host, so the next step may overwrite their buffers, and a thread writes them
  while training goes on. Only completely written checkpoints count; the next
  start removes the rest of one that a killed process or a full disk has left.
  Call `close` at the end, or use the object as a context manager.

  A record in each checkpoint holds the step, the position of the input, and the
  shape, dtype and CRC-32 of every array, protected by a SHA-256. Restoring
  detects any change on the disk.

  Args:
    directory: Directory that all processes share; made if missing.
    keep: Number of checkpoints to keep.

  Raises:
    UsageError: The directory cannot be made.

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
    with contextlib.suppress(SaveError):  # the block's own error matters more
      self.close()

  def save(self, step: int, state: Any, data_state: dict[str, Any]) -> None:
    """Start to save a checkpoint; do nothing if the step is saved already.

    Args:
      step: Number of steps done.
      state: Pytree of `jax.Array`s that every process holds whole. No array is
        empty or holds PRNG keys.
      data_state: Position of the input, in types of JSON.

    Raises:
      SaveError: The previous save failed, and this one has started; or the
        disk has no room for this one, and it has not started.
    """
    failed = self._finish()
    lack = ""
    if jax.process_index() == 0 and step not in self._manager.all_steps():
      leaves = jax.tree.map(np.asarray, leaves_by_name(state))
      lack = self._lack_of_room(leaves)
      if not lack:
        self._start(step, leaves, data_state)
    lack = first_message(lack)
    if lack:
      raise self._error(lack)
    if failed:
      raise failed

  def latest_step(self) -> int | None:
    """Return the latest step; None without checkpoints.

    In process 0 this may be a step that is still being written.
    """
    return self._manager.latest_step()

  def restore(
    self,
    abstract_state: Any,
    step: int | None = None,
    *,
    check_data: Callable[[Any], object] | None = None,
  ) -> tuple[Any, dict[str, Any]]:
    """Restore a checkpoint, bit for bit, once it is on disk.

    Args:
      abstract_state: Pytree of arrays or `jax.ShapeDtypeStruct`s with the
        shardings to restore to; they may differ from the saved arrays'.
      step: Step to restore; None takes the latest.
      check_data: Function of the data_state that raises ValueError if it is
        invalid.

    Returns:
      The state, in the tree and shardings of `abstract_state`, and the
      data_state.

    Raises:
      UsageError: The checkpoint does not exist, or belongs to another model or
        an earlier format.
      DamagedError: The files cannot be read, have changed, were saved at
        another step, or hold an invalid data_state.
    """
    self.wait()
    if step is None:
      step = self.latest_step()
    if step is None or step not in self._manager.all_steps():
      wanted = "" if step is None else f" of step {step}"
      raise UsageError(f"no checkpoint{wanted} in {self._directory}")
    target = leaves_by_name(
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
    counters = _earlier_counters(types, target)
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
    """Restore the newest checkpoint that is not damaged.

    This renames newer, damaged checkpoints to STEP.damaged, with a number
    appended if that name is taken.

    Args:
      abstract_state: Shapes and shardings, as in `restore`.
      last_step: Last step of the run; None for no limit.
      check_data: Check of the data_state, as in `restore`.

    Returns:
      The checkpoint; None if the directory has none.

    Raises:
      UsageError: The checkpoint is beyond the last step, or belongs to another
        model or an earlier format. Nothing is renamed then.
      DamagedError: All checkpoints are damaged.
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
          f"the checkpoint {self._directory / str(step)} is beyond the end "
          f"of the run at step {last_step}; move it away or choose another "
          "--workdir"
        )
      for newer in damaged:
        on_main(functools.partial(_rename_damaged, newer.path))
      if damaged:
        self._manager.reload()
      return Restored(step, *restored, [str(newer) for newer in damaged])
    if damaged:
      raise damaged[0]
    return None

  def wait(self) -> None:
    """Wait until the last save is on disk.

    Raises:
      SaveError: The last save failed. Its files are removed; older checkpoints
        are intact.
    """
    failed = self._finish()
    if failed:
      raise failed

  def close(self) -> None:
    """Wait for the last save and end the threads that write.

    Raises:
      SaveError: The last save failed; raised in process 0 only.
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
          record=ocp.args.JsonSave(seal(step, data_state, leaves)),
        ),
        force=True,
      )

  def _finish(self) -> SaveError | None:
    """Wait for the last save; return its error, or None."""
    with self._noting_failure():
      self._manager.wait_until_finished()
    failure, self._failure = first_message(self._failure), ""
    if failure and jax.process_index() == 0:
      self._remove_unfinished()
    # Only process 0 has written, so the others look for new checkpoints.
    if failure or jax.process_index() > 0:
      self._manager.reload()
    return self._error(failure) if failure else None

  @contextlib.contextmanager
  def _noting_failure(self) -> Iterator[None]:
    """Keep an error for `_finish`, which raises it in every process."""
    try:
      yield
    except Exception as e:  # Orbax raises many types for a full disk
      self._failure = _reason(e)

  def _lack_of_room(self, leaves: Mapping[str, np.ndarray]) -> str:
    needed = sum(leaf.nbytes for leaf in leaves.values())
    free = shutil.disk_usage(self._directory).free
    if free >= needed:
      return ""
    return f"it needs {needed:,} bytes, the disk has room for {free:,}"

  def _error(self, failure: str) -> SaveError:
    latest = self.latest_step()
    kept = "there is no other" if latest is None else f"step {latest} is kept"
    return SaveError(
      f"a checkpoint could not be saved in {self._directory}, {kept} "
      f"({failure})"
    )

  def _remove_unfinished(self) -> None:
    for path in self._directory.glob("*.orbax-checkpoint-tmp"):
      shutil.rmtree(path, ignore_errors=True)

  @contextlib.contextmanager
  def _reading(self, step: int) -> Iterator[None]:
    """Raise a DamagedError in every process if one of them cannot read."""
    cause, reason = None, ""
    try:
      yield
    except Exception as e:  # Orbax raises many types for a damaged file
      cause, reason = e, _reason(e)
    reason = first_message(reason)
    if reason:
      raise DamagedError(self._directory / str(step), reason) from cause

  def _refuse_earlier_format(self, step: int) -> None:
    folder = self._directory / str(step)
    if (folder / "data").exists() and not (folder / "record").exists():
      raise UsageError(
        f"the checkpoint {folder} has the format of an earlier version of "
        "podscale, without checksums of every array; resume the run with that "
        "version or choose another --workdir"
      )

  def _read_record(self, step: int) -> dict[str, Any]:
    wanted = ocp.args.Composite(record=ocp.args.JsonRestore())
    return unseal(step, self._manager.restore(step, args=wanted)["record"])

  def _read_state(
    self, step: int, target: dict[str, Any], saved: Mapping[str, Any]
  ) -> dict[str, jax.Array]:
    wanted = ocp.args.Composite(state=ocp.args.StandardRestore(target))
    state = self._manager.restore(step, args=wanted)["state"]
    for name, leaf in state.items():
      found, expected = checksum(leaf), saved[name]["crc32"]
      if found != expected:
        raise ValueError(f"{name} has checksum {found}, expected {expected}")
    return state

  def _check_same(
    self, step: int, saved: Mapping[str, str], target: Mapping[str, Any]
  ) -> None:
    for name in {**target, **saved}:
      there = saved.get(name, "absent")
      here = array_type(target[name]) if name in target else "absent"
      if there != here:
        raise UsageError(
          f"the checkpoint of step {step} in {self._directory} belongs to "
          f"another model: {name} is {there} there, {here} here"
        )


def _earlier_counters(
  saved: Mapping[str, str], target: Mapping[str, Any]
) -> dict[str, jax.ShapeDtypeStruct]:
  """Select the step counters of podscale 0.1.0 that the target state lacks."""
  own_device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return {
    name: jax.ShapeDtypeStruct((), np.int32, sharding=own_device)
    for name in _EARLIER_COUNTERS
    if saved.get(name) == "int32[]" and name not in target
  }


def _options(process: int, keep: int) -> ocp.CheckpointManagerOptions:
  """Return options by which each process works alone and only 0 writes."""
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
  """Describe an error: the system's own words first, a long text shortened.

  >>> _reason(ValueError("Failed: No space left [os_error_code='28']"))
  "No space left, ValueError: Failed: No space left [os_error_code='28']"
  """
  text, most = f"{type(error).__name__}: {one_line(error)}", _MOST_OF_A_REASON
  system = re.search(r"([^:]+) \[os_error_code=", text)
  if len(text) > 2 * most:
    text = f"{text[:most]}...{text[-most:]}"
  return f"{system[1].strip()}, {text}" if system else text


def _rename_damaged(path: Path) -> None:
  """Rename a damaged checkpoint, so that its step can be saved again."""
  names = (f"{path.name}.damaged{n or ''}" for n in itertools.count())
  targets = (path.with_name(name) for name in names)
  path.rename(next(target for target in targets if not target.exists()))
