import pytest
from support.full_disk import files_up_to

from podscale.train.records.append_file import AppendFile


def test_lines_are_appended_at_once(tmp_path):
  path = tmp_path / "file"
  path.write_text("there\n")
  file = AppendFile(path)
  assert file.append(b"one\n") == ""
  assert path.read_text() == "there\none\n"
  assert file.close() == 0


def test_a_full_disk_leaves_no_half_line_and_nothing_is_lost(tmp_path):
  path = tmp_path / "file"
  file = AppendFile(path)
  file.append(b"12345\n")
  with files_up_to(10):
    assert file.append(b"123456789\n") == "File too large"
    assert path.read_text() == "12345\n"
    # It would fit, but the records before it come first.
    assert file.append(b"123\n") == "File too large"
  assert file.append(b"last\n") == ""
  assert path.read_text() == "12345\n123456789\n123\nlast\n"
  assert file.close() == 0


def test_what_could_not_be_written_is_counted(tmp_path):
  file = AppendFile(tmp_path / "file")
  with files_up_to(5):
    file.append(b"123456789\n")
    assert file.close() == 10


def test_a_file_that_cannot_be_opened(tmp_path):
  with pytest.raises(FileNotFoundError):
    AppendFile(tmp_path / "absent" / "file")
