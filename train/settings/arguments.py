"""Parser of the command line, which imports no JAX."""

import contextlib
import dataclasses
import io
import itertools
import re
from collections.abc import Sequence

import tyro

from ..errors import UsageError, unknown_name
from .config import Config
from .presets import DESCRIPTIONS, PRESETS, get_preset

_USAGE = "python -m podscale.train PRESET [--flag value]"


def parse(words: Sequence[str]) -> Config:
  """Parse `PRESET [--flag value ...]`.

  Args:
    words: Words of the command line, without the program's name.

  Raises:
    UsageError: The preset or a flag is unknown, or a value is invalid.
    SystemExit: The user asked for help.

  >>> parse(["b5-64k", "--optimizer.momentum", "0.95"]).optimizer.momentum
  0.95
  """
  if not words or words[0] in ("-h", "--help"):
    print(_help())
    raise SystemExit(0 if words else 2)
  if words[0].startswith("-"):
    raise UsageError(
      f"the preset must come first, got {words[0]}; usage: {_USAGE}"
    )
  name, *flags = words
  preset = get_preset(name)
  config, unknown = _parse_flags(preset, flags)
  if unknown:
    flag = next((w for w in unknown if w.startswith("--")), unknown[0])
    raise unknown_name("flag", flag.split("=")[0], _flag_names(preset))
  if config.preset != name:
    raise UsageError(
      f"--preset is {config.preset}, but the preset is {name}; leave out "
      "--preset"
    )
  return config


def _parse_flags(preset: Config, flags: list[str]) -> tuple[Config, list[str]]:
  complaint = io.StringIO()
  try:
    with contextlib.redirect_stderr(complaint):
      return tyro.cli(
        Config,
        default=preset,
        args=flags,
        prog=f"podscale-train {preset.preset}",
        description=DESCRIPTIONS[preset.preset],
        return_unknown_args=True,
      )
  except SystemExit as done:
    if done.code == 0:
      raise
    raise UsageError(_one_line(complaint.getvalue())) from None


def _one_line(box: str) -> str:
  """Extract the text from the first part of the box that tyro draws."""
  lines = [line.strip("│ ") for line in box.splitlines()[1:]]
  text = itertools.takewhile(lambda line: not set(line) <= set("─╰╯"), lines)
  return re.sub(r"^Error parsing \w[^:]*: ", "", " ".join(text))


def _flag_names(settings: object, prefix: str = "--") -> list[str]:
  names = []
  for field in dataclasses.fields(settings):  # type: ignore[arg-type]
    name = prefix + field.name.replace("_", "-")
    value = getattr(settings, field.name)
    if dataclasses.is_dataclass(value):
      names += _flag_names(value, name + ".")
    else:
      names.append(name)
  return names


def _help() -> str:
  width = max(map(len, PRESETS))
  lines = [f"  {name:{width}}  {DESCRIPTIONS[name]}" for name in PRESETS]
  return "\n".join(
    [
      f"usage: {_USAGE}",
      "",
      "Trains an EfficientNet. Presets:",
      *lines,
      "",
      "python -m podscale.train PRESET --help lists the flags of a preset.",
      "python -m podscale.train diff RUN_A RUN_B finds their first difference.",
    ]
  )
