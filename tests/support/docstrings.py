"""Reader of the sections of Google-style docstrings."""

import inspect
import re
from collections.abc import Callable
from types import ModuleType


def documented_arguments(function: Callable) -> list[str]:
  """List the names that the docstring's Args section describes, in order."""
  doc = inspect.getdoc(function) or ""
  section = re.search(r"^Args:\n((?:  .*\n|\n)*)", doc + "\n", re.MULTILINE)
  entries = section[1] if section else ""
  return re.findall(r"^  \*{0,2}(\w+): \S", entries, re.MULTILINE)


def public_functions(module: ModuleType) -> dict[str, Callable]:
  """Return the functions among the names that a module exports."""
  exported = {name: getattr(module, name) for name in module.__all__}
  return {n: f for n, f in exported.items() if inspect.isfunction(f)}
