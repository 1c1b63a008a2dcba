"""Limits and counts of the fuzz targets of `make fuzz`."""

import resource

import pytest
from support.mutants import Tally

_MOST_MEMORY = 2**30
_FUZZED = "fuzzed"


def pytest_collection_modifyitems(items):
  for item in items:
    if "/fuzz/" in item.path.as_posix():
      item.add_marker(pytest.mark.slow)
      item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(autouse=True)
def _one_gigabyte_more():
  """Fail a target whose readers allocate over 1 GB."""
  before = _peak_memory()
  yield
  assert _peak_memory() - before < _MOST_MEMORY


def _peak_memory():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.fixture
def tally(record_property):
  """Count a target's inputs; print the counts at the end of the session."""
  counted = Tally()
  yield counted
  record_property(_FUZZED, str(counted))


def pytest_terminal_summary(terminalreporter):
  reports = [r for found in terminalreporter.stats.values() for r in found]
  for report in reports:
    for name, value in getattr(report, "user_properties", ()):
      if name == _FUZZED and report.when == "teardown":
        terminalreporter.write_line(f"{report.nodeid}: {value}")
