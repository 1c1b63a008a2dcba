"""A stand-in for a full disk: the system refuses to let files grow."""

import contextlib
import resource


@contextlib.contextmanager
def files_up_to(size):
  """No file of this process grows beyond `size` bytes inside."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
