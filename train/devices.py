"""What is set in JAX before its devices are first looked at."""

import os
from pathlib import Path

import jax

from .config import Config


def configure_jax(config: Config) -> None:
  """Sets the number of simulated CPU devices and the compilation cache.

  The cache is in the user's cache folder, unless JAX_COMPILATION_CACHE_DIR
  names another (or is empty, for none).
  """
  jax.config.update("jax_num_cpu_devices", config.cpu_devices)
  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    jax.config.update("jax_compilation_cache_dir", str(cache_folder()))


def cache_folder() -> Path:
  """Where compiled programs are kept between runs."""
  home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
  return Path(home) / "podscale" / "xla"
