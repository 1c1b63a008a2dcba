"""Local paths and URLs of data sets."""

import sys
from pathlib import Path

import pytest

from podscale.train.data.images.paths import Entry, as_path, list_folder
from podscale.train.errors import UsageError


def refusal(call, *args):
  with pytest.raises(UsageError) as error:
    call(*args)
  assert "\n" not in str(error.value)
  return str(error.value)


@pytest.mark.parametrize("text", ["images", "/images/a b", "gs:/bucket", "a:b"])
def test_local_paths(text):
  assert as_path(text) == Path(text)
  assert as_path(Path(text)) == Path(text)


def test_a_file_url_is_a_local_path(tmp_path):
  assert as_path(f"file://{tmp_path}") == tmp_path


def test_a_url_has_a_paths_methods():
  folder = as_path("memory://paths/data")
  assert str(folder) == "memory://paths/data" and folder.name == "data"
  (folder / "train").mkdir(parents=True)
  (folder / "train" / "a.jpg").write_bytes(b"jpeg")
  file = folder / "train" / "a.jpg"
  assert file.is_file() and not file.is_dir()
  assert file.stat().st_size == 4
  with file.open("rb") as opened:
    opened.seek(1)
    assert opened.read(2) == b"pe"


@pytest.mark.parametrize("root", ["memory://paths/list", "{tmp_path}"])
def test_a_folder_is_listed_by_name(tmp_path, root):
  folder = as_path(root.format(tmp_path=tmp_path))
  for name in ("b", "a"):
    (folder / name).mkdir(parents=True)
    (folder / name / "x").write_bytes(b"")
  (folder / "c").write_bytes(b"")
  want = [Entry("a", True), Entry("b", True), Entry("c", False)]
  assert list_folder(folder) == want


@pytest.mark.parametrize("root", ["memory://paths/nowhere", "{tmp_path}/no"])
def test_a_folder_that_is_not_there_is_named(tmp_path, root):
  folder = as_path(root.format(tmp_path=tmp_path))
  assert refusal(list_folder, folder) == f"{folder}: No such file or directory"


@pytest.mark.parametrize(
  "protocol, package",
  [("gs", "gcsfs"), ("s3", "s3fs"), ("abfs", "adlfs"), ("http", "aiohttp")],
)
def test_a_missing_file_system_is_named(protocol, package, monkeypatch):
  monkeypatch.setitem(sys.modules, package, None)
  message = refusal(as_path, f"{protocol}://bucket/x")
  assert f"{protocol}://" in message and package in message


def test_an_unknown_protocol_is_named():
  message = refusal(as_path, "zz://bucket/x")
  assert "no protocol zz://" in message and "mount" in message


@pytest.mark.parametrize("module", ["fsspec", "upath"])
def test_the_extra_is_named_where_it_is_missing(module, monkeypatch):
  monkeypatch.setitem(sys.modules, module, None)
  message = refusal(as_path, "gs://bucket/x")
  assert "reading gs:// needs pip install 'podscale[remote]'" in message
