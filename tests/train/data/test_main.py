"""The command line of data sets; each error is one line."""

import errno
import subprocess
import sys

import pytest

from podscale.train.data.__main__ import main
from podscale.train.data.images import open_images
from podscale.train.data.tools import synthesize as synthetic_jpegs

PROGRAM = "python -m podscale.train.data"
SMALL = ["--train", "7", "--test", "3", "--width", "24", "--height", "18"]


@pytest.fixture
def refused(capsys):
  def refuse(*words):
    """Return the only line of a command that fails."""
    capsys.readouterr()
    assert main([*map(str, words)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"{PROGRAM}: ") and said.err.count("\n") == 1
    assert len(said.err) < 500
    return said.err

  return refuse


def contents(folder):
  return {
    path: path.read_bytes() for path in folder.rglob("*") if path.is_file()
  }


def test_from_made_up_images_to_converted_ones(tmp_path, capsys, refused):
  source, destination = str(tmp_path / "a"), str(tmp_path / "b")
  assert main(["synthesize", source, "--layout", "tar", *SMALL]) == 0
  assert capsys.readouterr().out.endswith(
    "; train with --data.num-classes 10\n"
  )
  assert main(["convert", source, destination, "--num-classes", "10"]) == 0
  assert main(["verify", destination]) == 0
  said = capsys.readouterr().out
  assert "train: 7 images of 10 classes" in said
  assert "2 of 2 shards match their checksums" in said
  assert "already holds a converted data set" in refused(
    "convert", source, destination
  )


def test_it_calls_itself_by_what_can_be_typed(capsys):
  """The usage names no command `podscale-data`, which does not exist."""
  for words in ([], ["convert"], ["verify"], ["synthesize"]):
    with pytest.raises(SystemExit) as done:
      main([*words, "--help"])
    assert done.value.code == 0
    usage = capsys.readouterr().out
    assert usage.startswith(" ".join(["usage:", PROGRAM, *words]))
    assert "podscale-data" not in usage


def test_it_does_not_wait_for_jax():
  """Importing JAX takes a second, and a callback in it may swallow Ctrl-C."""
  program = (
    "import sys, podscale.train.data.__main__, "
    "podscale.train.data.tools.verify, podscale.train.data.tools.convert; "
    "raise SystemExit('jax' in sys.modules)"
  )
  subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
  "layout", ["array-record", "folder", "tar", "tfrecord"]
)
@pytest.mark.parametrize("before", ["shards", "classes", "a stranger's file"])
def test_synthesize_leaves_a_full_folder_alone(
  tmp_path, refused, layout, before
):
  if before == "a stranger's file":
    (tmp_path / "notes.txt").write_text("mine")
  else:
    kind = {"shards": "tfrecord", "classes": "folder"}[before]
    flags = [*SMALL, "--classes", "3"]
    assert main(["synthesize", str(tmp_path), "--layout", kind, *flags]) == 0
  there = contents(tmp_path)
  message = refused(
    *("synthesize", tmp_path, "--layout", layout, "--shards", 3, *SMALL),
    *("--classes", 3),
  )
  assert f"{tmp_path}: not empty" in message
  assert contents(tmp_path) == there


def test_synthesize_fills_an_empty_folder(tmp_path):
  assert main(["synthesize", str(tmp_path), *SMALL]) == 0
  assert len(open_images(tmp_path, "train")) == 7


@pytest.mark.parametrize("command", ["synthesize", "convert"])
@pytest.mark.parametrize("kind", ["file", "dangling link", "below a file"])
def test_no_folder_can_be_made_there(tmp_path, refused, command, kind):
  assert main(["synthesize", str(tmp_path / "source"), *SMALL]) == 0
  path = tmp_path / "place"
  if kind == "dangling link":
    path.symlink_to(tmp_path / "nowhere" / "at all")
  else:
    path.write_text("mine")
  if kind == "below a file":
    path = path / "folder"
  words = {"synthesize": SMALL, "convert": ["--label-offset=1"]}[command]
  source = [tmp_path / "source"] if command == "convert" else []
  assert str(path) in refused(command, *source, path, *words)


NUMBERS = [
  ("convert", "--num-classes", 1, 2**20),
  ("convert", "--examples-per-shard", 1, 2**31 - 1),
  ("convert", "--skip-bad", 0, 2**31 - 1),
  ("convert", "--label-offset", 0, 2**20),
  ("verify", "--num-classes", 1, 2**20),
  ("verify", "--label-offset", 0, 2**20),
  *(
    ("synthesize", f"--{name}", 1, most)
    for name, most in synthetic_jpegs.LIMITS.items()
  ),
]


@pytest.mark.parametrize("command, flag, least, most", NUMBERS)
def test_numbers_out_of_range_are_refused_with_the_range(
  tmp_path, refused, command, flag, least, most
):
  folders = ["x", "y"] if command == "convert" else ["x"]
  folders = [tmp_path / name for name in folders]
  for text in (
    *(str(least - 1), str(most + 1), "-7", "9" * 22, "-" + "9" * 22),
    *("9" * 5000, "inf", "-inf", "nan", "1e308", "1.5", "", " ", "x", "0x10"),
  ):
    message = refused(command, *folders, f"{flag}={text}")
    assert flag in message and f"from {least:,} to {most:,}" in message
  assert not any(path.exists() for path in folders)


@pytest.mark.parametrize(
  "words, named",
  [
    ([], "COMMAND"),
    (["inflate"], "inflate"),
    (["convert"], "source, destination"),
    (["verify"], "folder"),
    (["verify", "x", "--num-class", "3"], "--num-class"),
    (["synthesize", "x", "--layout", "zip"], "zip"),
    (["synthesize", "x", "--shards", "8", *SMALL], "8 shards"),
    (["synthesize", "x", "--layout", "folder", *SMALL], "10 class folders"),
    (
      ["synthesize", "x", "--width", "65500", "--height", "65500"],
      "65500 x 65500",
    ),
    (["synthesize", "memory://x"], "memory://x: podscale does not write"),
    (
      ["convert", "x", "gs://bucket/y"],
      "gs://bucket/y: podscale does not write",
    ),
    (["verify", "nothing://x"], "nothing://"),
  ],
)
def test_other_mistakes_are_one_line(
  tmp_path, monkeypatch, refused, words, named
):
  monkeypatch.chdir(tmp_path)
  assert named in refused(*words)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  "error, text",
  [
    (OSError("no device"), "no device"),
    (OSError(errno.ENOSPC, "No space left"), "No space left"),
    (OSError(errno.ENOSPC, "No space left", "a/b"), "a/b: No space left"),
  ],
)
def test_system_errors_say_what_they_know(
  tmp_path, monkeypatch, refused, error, text
):
  def fails(*_, **__):
    raise error

  monkeypatch.setattr(synthetic_jpegs, "synthesize", fails)
  assert refused("synthesize", tmp_path) == f"{PROGRAM}: {text}\n"
