"""Record of how a run was started, enough to repeat it."""

import dataclasses
import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

from ..settings.config import Config


def run_record(config: Config) -> dict[str, Any]:
  """Record settings, versions, devices and code, enough to repeat a run.

  Args:
    config: Settings of the run.

  Returns:
    A dict of preset, settings (all, nested), versions, device_kind,
    device_count and process_count (over all processes), and git_revision: the
    commit of the checkout, with "-dirty" appended if files differ; else None.
  """
  packages = ("podscale", "jax", "jaxlib", "flax", "optax", "numpy")
  versions = {name: _version(name) for name in packages}
  return {
    "preset": config.preset,
    "settings": dataclasses.asdict(config),
    "versions": versions | {"python": platform.python_version()},
    "device_kind": jax.devices()[0].device_kind,
    "device_count": jax.device_count(),
    "process_count": jax.process_count(),
    "git_revision": git_revision(Path(__file__).resolve().parent),
  }


def _version(package: str) -> str:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:  # podscale's sources alone
    return "not installed"


def git_revision(folder: Path) -> str | None:
  """Return the commit of the checkout around `folder`; None without one."""

  def git(*args: str) -> str:
    # Optional locks could block a git command that the user runs.
    command = ["git", "--no-optional-locks", "-C", str(folder), *args]
    return subprocess.run(
      command, capture_output=True, text=True, check=True, timeout=30
    ).stdout.strip()

  try:
    # An installed package may lie inside another project's checkout; only a
    # checkout of podscale tracks the files in this folder.
    if not git("ls-files", "--", "."):
      return None
    return git("describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")
  except (OSError, subprocess.SubprocessError):
    return None
