"""What an op would run, and why."""

from typing import Any, NamedTuple

from .dispatch import Implementation


class Choice(NamedTuple):
  """What `implementation=None` comes to.

  Attributes:
    implementation: The one that runs.
    chip: The TPU that is compiled for; 'unknown' where there is none.
    reason: Why this one.
    blocks: Name of each kernel to its block sizes; empty for 'xla'.
  """

  implementation: Implementation
  chip: str
  reason: str
  blocks: dict[str, Any]
