"""What is set in JAX before its devices are first looked at."""

import ctypes
import os
from pathlib import Path

import jax

from ..settings.config import Config


def configure_jax(config: Config) -> None:
  """Sets the number of simulated CPU devices and the compilation cache.

  The cache is in the user's cache folder, unless JAX_COMPILATION_CACHE_DIR
  names another (or is empty, for none).
  """
  jax.config.update("jax_num_cpu_devices", config.cpu_devices)
  keep_freed_memory()
  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    jax.config.update("jax_compilation_cache_dir", str(cache_folder()))


def cache_folder() -> Path:
  """Where compiled programs are kept between runs."""
  home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
  return Path(home) / "podscale" / "xla"


def keep_freed_memory() -> None:
  """Has glibc's malloc keep what XLA:CPU frees for its next step.

  XLA:CPU allocates its temporaries anew in each step, and glibc maps and
  unmaps blocks of that size, so that every page is zeroed by the kernel again:
  half the time of a demo step. Elsewhere than on glibc nothing is done.
  """
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
  if mallopt is None:
    return
  trim_threshold, top_pad, mmap_max = -1, -2, -4  # from malloc.h
  mallopt(trim_threshold, 2**31 - 1)
  mallopt(top_pad, 2**26)
  mallopt(mmap_max, 0)
