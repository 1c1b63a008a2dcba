"""Tests of the filter for Orbax's error output."""

import asyncio
import gc
import logging

import pytest
import tensorstore

from podscale.train.records.orbax_noise import silence_orbax


async def abandon_failed_read(directory):
  """Let a TensorStore read fail that nobody waits for any more."""
  base = f"file://{directory}"
  spec = {"driver": "zarr", "kvstore": {"driver": "ocdbt", "base": base}}
  waiting = tensorstore.open(spec).__await__()
  future = next(waiting)
  while not future.done():
    await asyncio.sleep(0.01)
  waiting.close()


async def abandon_own_failure():
  future = asyncio.get_running_loop().create_future()
  future.set_exception(ValueError("of another library"))


@pytest.fixture
def silenced():
  silence_orbax()


def test_an_abandoned_read_of_tensorstore_says_nothing(
  tmp_path, caplog, silenced
):
  (tmp_path / "manifest.ocdbt").write_bytes(b"x" * 50)
  with caplog.at_level(logging.ERROR):
    asyncio.run(abandon_failed_read(tmp_path))
    gc.collect()
  assert caplog.messages == []


def test_the_same_of_another_library_is_said(caplog, silenced):
  with caplog.at_level(logging.ERROR):
    asyncio.run(abandon_own_failure())
    gc.collect()
  assert len(caplog.messages) == 1
  assert "of another library" in caplog.messages[0]
