"""Record in a checkpoint: step, input position, types and checksums."""

import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


def seal(
  step: int, data_state: dict[str, Any], leaves: Mapping[str, np.ndarray]
) -> dict[str, Any]:
  """Make the record of a checkpoint, with a SHA-256 over the whole record.

  Args:
    step: Number of steps done.
    data_state: Position of the input.
    leaves: Arrays by name.
  """
  arrays = {
    name: {"type": array_type(leaf), "crc32": checksum(leaf)}
    for name, leaf in leaves.items()
  }
  record = {"step": step, "data": data_state, "arrays": arrays}
  return {"record": record, "sha256": digest(record)}


def unseal(step: int, sealed: Any) -> dict[str, Any]:
  """Check a result of `seal` and return its record.

  Args:
    step: Step of the checkpoint, by the name of its folder.
    sealed: Record with its SHA-256.

  Raises:
    ValueError: The record has changed, or belongs to another step.
  """
  record = sealed["record"]
  if sealed["sha256"] != digest(record):
    raise ValueError("the record of step, input and arrays has changed")
  if record["step"] != step:
    raise ValueError(f"it was saved at step {record['step']}")
  return record


def digest(record: Any) -> str:
  """Compute the SHA-256 of a record as JSON, whatever the file's layout."""
  text = json.dumps(record, sort_keys=True, separators=(",", ":"))
  return hashlib.sha256(text.encode()).hexdigest()


def checksum(leaf: Any) -> int:
  """Compute the CRC-32 of an array's bytes."""
  return zlib.crc32(np.ascontiguousarray(leaf).view(np.uint8))


def array_type(leaf: Any) -> str:
  """Describe shape and dtype, such as "float32[3,3,32]"."""
  return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def leaves_by_name(tree: Any) -> dict[str, Any]:
  """Return the leaves of a tree by path, such as "params.stem.kernel".

  Checkpoints store leaves by name, so they do not depend on Python classes.

  Raises:
    ValueError: Two leaves have the same name.
  """
  paths_and_leaves, _ = jax.tree.flatten_with_path(tree)
  by_name = {
    jax.tree_util.keystr(path, simple=True, separator="."): leaf
    for path, leaf in paths_and_leaves
  }
  if len(by_name) != len(paths_and_leaves):
    raise ValueError("two leaves of the state have the same name")
  return by_name
