"""JAX settings that must precede the first use of its devices."""

import ctypes
import os
from pathlib import Path

import jax

from ..settings.config import Config


def configure_jax(config: Config) -> None:
  """Set the number of simulated CPU devices and the compilation cache.

  The cache is in the user's cache folder, unless JAX_COMPILATION_CACHE_DIR
  names another folder; an empty value turns the cache off.

  Args:
    config: Settings of the run.
  """
  jax.config.update("jax_num_cpu_devices", config.cpu_devices)
  keep_freed_memory()
  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    jax.config.update("jax_compilation_cache_dir", str(cache_folder()))


def cache_folder() -> Path:
  """Return the folder that keeps compiled programs between runs."""
  home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
  return Path(home) / "podscale" / "xla"


def keep_freed_memory() -> None:
  """Make glibc's malloc keep the memory that XLA:CPU frees.

  XLA:CPU allocates its temporaries anew in each step. By default glibc returns
  blocks of that size to the kernel, which must zero every page again; that
  takes half the time of a demo step. Without glibc this does nothing.
  """
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
  if mallopt is None:
    return
  trim_threshold, top_pad, mmap_max = -1, -2, -4  # from malloc.h
  mallopt(trim_threshold, 2**31 - 1)
  mallopt(top_pad, 2**26)
  mallopt(mmap_max, 0)
