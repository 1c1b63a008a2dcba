"""Checkpoints of a run, and the record of the settings it was started with.

One process saves and restores here. With several, every process calls the same
methods in the same order; Orbax then needs no more than the shared directory.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import LatestN

from .. import __version__
from .config import Config
from .errors import UsageError
from .log import flat, make_folder, write_atomically

# Another value of these trains the same weights, so a run may go on with it.
_MAY_DIFFER = {
  "workdir",
  "log_every_steps",
  "keep_checkpoints",
  "checkpoint_every_epochs",
  "eval_every_epochs",
  "eval_batch_size",
  "distributed",
  "coordinator",
  "num_processes",
  "process_id",
  "data.augment_on",
  "data.skip_bad",
}
_MOST_NAMED = 5


def check_settings(workdir: str | Path, config: Config) -> None:
  """Claim `workdir` for a run with these settings, or agree to resume there.

  The first start writes WORKDIR/config.json. Later ones must have the same
  settings, but for those that do not change the training: how often to log,
  evaluate and save, how many checkpoints to keep, the evaluation's batch, where
  images are augmented, how many bad ones are left out.

  Raises:
    UsageError: If the workdir cannot be written, holds something else, or
      holds a run with other settings. Nothing in it is changed then.
  """
  path = Path(workdir) / "config.json"
  make_folder(path.parent)
  now = json.loads(json.dumps(dataclasses.asdict(config)))
  there = _recorded_settings(path)
  if there is None:
    record = {"podscale": __version__, "settings": now}
    write_atomically(path, json.dumps(record, indent=2) + "\n")
    return
  differing = _differing(flat(there), flat(now))
  if differing:
    more = len(differing) - _MOST_NAMED
    if more > 0:
      differing[_MOST_NAMED:] = [f"and {more} more"]
    raise UsageError(
      f"{workdir} holds a run with other settings ({', '.join(differing)}); "
      "resume it with its own, or choose another --workdir"
    )


def _recorded_settings(path: Path) -> dict[str, Any] | None:
  """The settings in config.json; None where the folder is still empty."""
  try:
    if not any(path.parent.iterdir()):
      return None
    record = json.loads(path.read_bytes())
    if "podscale" in record:
      return record["settings"]
  except (OSError, ValueError, TypeError, KeyError):
    pass  # not there or not ours: the same refusal
  raise UsageError(
    f"{path.parent} is not empty and has no config.json of podscale's; "
    "choose another --workdir"
  )


def _differing(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
  absent = "absent"
  return [
    f"{name}: {there.get(name, absent)} there, {now.get(name, absent)} now"
    for name in {**now, **there}
    if name not in _MAY_DIFFER
    and there.get(name, absent) != now.get(name, absent)
  ]


class Checkpoints:
  """The checkpoints in a directory: the last `keep` of them, one per step.

  Saving is asynchronous: `save` returns when the arrays are copied to the host
  (so the next step may have their buffers), and writes while training goes on.
  A checkpoint counts when it is written whole; what a killed process left of
  one is cleared away. Errors of writing come with the next `save`, `wait` or
  `close`. A process must end with `close`, or use this as a context manager.

  Args:
    directory: Where they are; made if it is not there.
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
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    registry.add("state", ocp.args.StandardSave)
    registry.add("state", ocp.args.StandardRestore)
    registry.add("data", ocp.args.JsonSave)
    registry.add("data", ocp.args.JsonRestore)
    self._manager = ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=LatestN(keep), cleanup_tmp_directories=True
      ),
      handler_registry=registry,
    )

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def save(self, step: int, state: Any, data_state: dict[str, Any]) -> None:
    """Start to save; a step that is there already is left as it is.

    Args:
      step: Number of steps done.
      state: Pytree of `jax.Array`s, none of them empty, no PRNG keys.
      data_state: Where the input stands, as JSON can hold it.
    """
    if step in self._manager.all_steps():
      return
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(_by_name(state)),
        data=ocp.args.JsonSave(data_state),
      ),
      force=True,
    )

  def latest_step(self) -> int | None:
    """The last step that is saved or being saved; None without checkpoints."""
    return self._manager.latest_step()

  def restore(
    self, abstract_state: Any, step: int | None = None
  ) -> tuple[Any, dict[str, Any]]:
    """Read a checkpoint back, bit for bit, once it is on disk.

    Args:
      abstract_state: Pytree of what the state is to be: arrays or
        `jax.ShapeDtypeStruct`s with a sharding, which may be another than that
        of the saved arrays.
      step: Which one; None takes the latest.

    Returns:
      The state, in the tree and shardings of `abstract_state`, and the
      data_state.

    Raises:
      UsageError: If there is no such checkpoint, it is of another model, or
        its files cannot be read.
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
    with self._reading(step):
      saved = self._manager.item_metadata(step)["state"].tree
    self._check_same(step, saved, target)
    with self._reading(step):
      restored = self._manager.restore(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardRestore(target),
          data=ocp.args.JsonRestore(),
        ),
      )
    leaves = [restored["state"][name] for name in target]
    structure = jax.tree.structure(abstract_state)
    return jax.tree.unflatten(structure, leaves), restored["data"]

  def wait(self) -> None:
    """Wait until all that was saved is on disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Wait as `wait` does and end the threads that write."""
    self._manager.close()

  @contextlib.contextmanager
  def _reading(self, step: int) -> Iterator[None]:
    try:
      yield
    except Exception as e:  # Orbax raises all sorts for a damaged file
      reason = f"{type(e).__name__}: {e}".splitlines()[0][:200]
      raise UsageError(
        f"cannot read the checkpoint {self._directory / str(step)} ({reason}); "
        "if it is damaged, move it away to resume from the one before"
      ) from e

  def _check_same(
    self, step: int, saved: Mapping[str, Any], target: Mapping[str, Any]
  ) -> None:
    for name in {**target, **saved}:
      there, here = _describe(saved.get(name)), _describe(target.get(name))
      if there != here:
        raise UsageError(
          f"the checkpoint of step {step} in {self._directory} is of another "
          f"model: {name} is {there} there, {here} here"
        )


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
  """Shape and dtype, such as "float32[3,3,32]"."""
  if leaf is None:
    return "absent"
  return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
