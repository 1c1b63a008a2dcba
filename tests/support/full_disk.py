"""Stand-in for a full disk: the system limits the size of files."""

import contextlib
import resource


@contextlib.contextmanager
def files_up_to(size):
  """Limit every file of this process to `size` bytes."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
