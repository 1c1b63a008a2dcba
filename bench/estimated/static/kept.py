"""Compiled programs kept on disk, because some compile for many minutes."""

import contextlib
import hashlib
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .compile import Compilation, compiled, libtpu_version

if TYPE_CHECKING:
  import jax

_ABOUT = "compilation.json"
# Functions are lowered under new names, which the key must not depend on.
_NUMBERED = re.compile(r"estimated_\d+")


@contextlib.contextmanager
def kept_compilation(
  lowered: "jax.stages.Lowered", folder: Path, chip: str
) -> Iterator[Compilation]:
  """Compile a program, or read what an earlier call compiled.

  The dump is deleted when the context ends, and stays in an archive of
  `folder`. The archive's name depends on the program, the chip, and libtpu's
  flags and version.

  Args:
    lowered: Program.
    folder: Folder of the archives; it is made if it is missing.
    chip: Chip that the program was lowered for.

  Raises:
    UsageError: libtpu is missing or dumps nothing, or the program does not fit
      in HBM.
  """
  archive = folder / f"{_key(lowered, chip)}.tar.gz"
  if not archive.exists():
    with compiled(lowered) as compilation:
      _keep(compilation, archive)
  with tempfile.TemporaryDirectory(prefix="podscale-kept-") as unpacked:
    with tarfile.open(archive) as tar:
      tar.extractall(unpacked, filter="data")
    about = json.loads((Path(unpacked) / _ABOUT).read_text())
    yield Compilation(**about, folder=Path(unpacked))


def cache_folder() -> Path:
  """Return the user's folder for kept programs."""
  root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
  return Path(root) / "podscale" / "compiled"


def _key(lowered: "jax.stages.Lowered", chip: str) -> str:
  text = _NUMBERED.sub("estimated", lowered.as_text())
  flags = os.environ.get("LIBTPU_INIT_ARGS", "").partition("--xla_jf_dump_to")
  parts = text, chip, flags[0], libtpu_version()
  return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _keep(compilation: Compilation, archive: Path) -> None:
  """Write an archive, under its name only once it is whole."""
  archive.parent.mkdir(parents=True, exist_ok=True)
  about = compilation._asdict()
  folder = about.pop("folder")
  (folder / _ABOUT).write_text(json.dumps(about))
  part = archive.with_suffix(f".{os.getpid()}.part")
  with tarfile.open(part, mode="w:gz", compresslevel=1) as tar:
    tar.add(folder, arcname=".")
  part.replace(archive)
