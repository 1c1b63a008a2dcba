"""Records of metrics.jsonl, checked when they are read back."""

import json
from collections.abc import Callable
from typing import Any

from ..errors import one_line

_MOST_NESTED = 20
_MOST_OF_A_VALUE = 40  # characters
_MOST_NUMBER = 1e39  # logged numbers come from float32
_MOST_SECONDS = 1e11  # as a time since 1970, the year 5138


def _is_text(value: Any) -> bool:
  return isinstance(value, str) and value.isprintable()


def _is_count(value: Any) -> bool:
  return type(value) is int and 0 <= value < 2**63  # a bool is no int


def _is_within(value: Any, most: float) -> bool:
  return type(value) in (int, float) and -most <= value <= most


def _is_number(value: Any) -> bool:
  return _is_within(value, _MOST_NUMBER)


def _is_number_or_null(value: Any) -> bool:
  return value is None or _is_number(value)  # null stands for not finite


def _is_time(value: Any) -> bool:
  return _is_within(value, _MOST_SECONDS)


def _is_seconds_by_activity(value: Any) -> bool:
  return isinstance(value, dict) and all(map(_is_time, value.values()))


_Fields = dict[str, Callable[[Any], bool]]
_COMMON: _Fields = {"step": _is_count, "time": _is_time}
_BY_KIND: dict[str, _Fields] = {
  "run": {
    "preset": _is_text,
    "device_kind": _is_text,
    "device_count": _is_count,
    "process_count": _is_count,
  },
  "train": {
    "epoch": _is_number,
    "loss": _is_number_or_null,
    "learning_rate": _is_number_or_null,
    "images_per_s": _is_number,
  },
  "eval": {
    "split": _is_text,
    "epoch": _is_number,
    "examples": _is_count,
    "correct": _is_count,
    "top1": _is_number,
    "loss": _is_number_or_null,
  },
  "times": {"seconds": _is_seconds_by_activity},
}
_OPTIONAL: _Fields = {"lost_seconds": _is_time}


def parse_record(line: bytes) -> dict[str, Any]:
  """Parse a line of metrics.jsonl.

  The record must have the fields of its kind that the report and `diff` read.
  `RunLog` has written them since the first version.

  Args:
    line: JSON text.

  Raises:
    ValueError: The line is not such a record; the message names the problem.

  >>> parse_record(b'{"kind": "times", "step": 3, "time": 1e9, "seconds": {}}')
  {'kind': 'times', 'step': 3, 'time': 1000000000.0, 'seconds': {}}
  >>> parse_record(b'{"kind": "times", "step": "3", "time": 1e9}')
  Traceback (most recent call last):
    ...
  ValueError: step is '3'
  """
  try:
    record = json.loads(line)
  except ValueError as error:
    raise ValueError(f"not JSON: {one_line(error)}") from None
  except RecursionError:
    raise ValueError("too many nested brackets") from None
  if not isinstance(record, dict):
    raise ValueError(f"{_cut(record)}, not an object")
  kind = record.get("kind")
  if not isinstance(kind, str) or kind not in _BY_KIND:
    raise ValueError(f"kind is {_cut(kind)}, not one of {', '.join(_BY_KIND)}")
  for name, is_right in {**_COMMON, **_BY_KIND[kind], **_OPTIONAL}.items():
    if name in record and not is_right(record[name]):
      raise ValueError(f"{name} is {_cut(record[name])}")
    if name not in record and name not in _OPTIONAL:
      raise ValueError(f"it lacks {name}")
  if _is_nested(record, _MOST_NESTED):
    raise ValueError(f"more than {_MOST_NESTED} nested brackets")
  return record


def _cut(value: Any) -> str:
  text = repr(value)
  return f"{text[:_MOST_OF_A_VALUE]}{'...' * (len(text) > _MOST_OF_A_VALUE)}"


def _is_nested(value: Any, most: int) -> bool:
  """Tell if objects and lists are nested more than `most` deep."""
  if not isinstance(value, dict | list):
    return False
  inner = value.values() if isinstance(value, dict) else value
  return most == 0 or any(_is_nested(item, most - 1) for item in inner)
