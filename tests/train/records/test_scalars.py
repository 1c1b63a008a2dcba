import contextlib

from support.full_disk import files_up_to
from support.tensorboard_files import scalars

from podscale.train.records.scalars import Scalars


def test_scalars_are_written_at_once(tmp_path):
  with contextlib.closing(Scalars(tmp_path, purge_step=1)) as file:
    assert file.add(1, {"loss": 2.0, "rate": 3.0}) == ""
    assert scalars(tmp_path) == {("loss", 1): 2.0, ("rate", 1): 3.0}


def test_after_a_full_disk_nothing_is_lost(tmp_path):
  with contextlib.closing(Scalars(tmp_path, purge_step=1)) as file:
    file.add(1, {"loss": 2.0})
    (path,) = tmp_path.iterdir()
    with files_up_to(path.stat().st_size + 5):
      assert file.add(2, {"loss": 1.0}) == "File too large"
    assert file.add(3, {"loss": 0.5}) == ""
    assert scalars(tmp_path) == {
      ("loss", 1): 2.0,
      ("loss", 2): 1.0,
      ("loss", 3): 0.5,
    }


def test_two_in_the_same_second_are_two_files(tmp_path):
  for step in (1, 2):
    with contextlib.closing(Scalars(tmp_path, purge_step=step)) as file:
      file.add(step, {"loss": 1.0})
  assert scalars(tmp_path).keys() == {("loss", 1), ("loss", 2)}
