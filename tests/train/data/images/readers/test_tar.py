"""Tar shards: whole ones, damaged ones and ambiguous ones."""

import io
import json
import subprocess
import tarfile

import pytest
from upath import UPath

from podscale.train.data.images.readers.tar import TarImages, find_samples
from podscale.train.data.tools.synthesize import synthetic_jpeg
from podscale.train.errors import UsageError

JPEG = synthetic_jpeg(0, 0, width=24, height=18)
BLOCK = 512
# More than a block in the last member, so that it can be cut within.
MEMBERS = (("a.jpg", JPEG), ("a.cls", b"0"), ("b.cls", b"1"), ("b.jpg", JPEG))


def member(name, data=b"", **fields):
  made = tarfile.TarInfo(name)
  made.size = len(data)
  for field, value in fields.items():
    setattr(made, field, value)
  return made, io.BytesIO(data)


def archive(members=MEMBERS, format=tarfile.USTAR_FORMAT):
  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode="w", format=format) as tar:
    for name, data in members:
      tar.addfile(*member(name, data))
  return file.getvalue()


def headers(data):
  with tarfile.open(fileobj=io.BytesIO(data)) as tar:
    return [each.offset for each in tar]


def end_of(data):
  """Find the first of the zero blocks."""
  with tarfile.open(fileobj=io.BytesIO(data)) as tar:
    last = tar.getmembers()[-1]
  return last.offset_data + -(-last.size // BLOCK) * BLOCK


@pytest.fixture(params=["local", "remote"])
def path(request, tmp_path):
  if request.param == "local":
    return tmp_path / "train-0.tar"
  return UPath("memory://tars/train-0.tar")


def refusal(path, data):
  path.write_bytes(data)
  with pytest.raises(UsageError) as error:
    find_samples(path)
  message = str(error.value)
  assert message.startswith(str(path)) and "\n" not in message
  return message


@pytest.mark.parametrize("suffix", ["jpeg", "JPG", "png", "webp", "bmp"])
def test_images_of_all_kinds(path, suffix):
  path.write_bytes(archive([(f"a.{suffix}", JPEG), ("a.cls", b"1")]))
  assert TarImages([path], 2)[0] == {"image": JPEG, "label": 1}


def test_labels_and_files(path):
  path.write_bytes(archive())
  source = TarImages([path], 2)
  assert [source[i] for i in range(2)] == [
    {"image": JPEG, "label": 0},
    {"image": JPEG, "label": 1},
  ]
  assert [label.label for label in source.labels()] == [0, 1]
  source.keep_first(1)
  assert len(list(source.labels())) == 1


@pytest.mark.parametrize(
  "format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
)
def test_the_least_end_is_two_blocks(path, format):
  """busybox and Go write two blocks; long names have their own headers."""
  name = "a" * 90 + "/" + "b" * 90
  data = archive([(f"{name}.jpg", JPEG), (f"{name}.cls", b"1")], format)
  path.write_bytes(data[: end_of(data) + 2 * BLOCK])
  assert len(find_samples(path)) == 1


def test_a_cut_at_a_member_is_refused(path):
  """Python's tarfile takes a damaged header for the end."""
  data, end = archive(), end_of(archive())
  for at in headers(data)[1:]:
    message = refusal(path, data[:at])
    assert f"byte {at}: the file ends without an archive's two zero" in message
  for at in (end, end + BLOCK, end + BLOCK + 100):
    message = refusal(path, data[:at])
    assert f"byte {end}: the file ends without an archive's two zero" in message


def test_a_cut_elsewhere_is_refused(path):
  data = archive()
  for at in range(100, end_of(data), 97):
    assert "byte" in refusal(path, data[:at])


@pytest.mark.parametrize("number", [0, len(MEMBERS) - 1])
def test_a_flipped_bit_in_a_header_is_refused_or_harmless(tmp_path, number):
  path = tmp_path / "train-0.tar"
  data = archive()
  path.write_bytes(data)
  want = find_samples(path)
  at = headers(data)[number]
  refused = 0
  for byte in range(BLOCK):
    damaged = bytearray(data)
    damaged[at + byte] ^= 1 << byte % 8
    path.write_bytes(damaged)
    try:
      assert find_samples(path) == want
    except UsageError as error:
      assert f"byte {at}" in str(error)
      refused += 1
  # The two characters behind the checksum's digits are not looked at.
  assert refused >= BLOCK - 2


@pytest.mark.parametrize("number", range(1, len(MEMBERS)))
def test_zeros_in_place_of_the_last_members_are_refused(path, number):
  """A copy that allocates the file first leaves zeros when it stops."""
  data = archive() + bytes(2 * tarfile.RECORDSIZE)
  at = headers(data)[number]
  zeroed = data[:at] + bytes(len(data) - at)
  message = refusal(path, zeroed)
  assert f"byte {at}: the last {len(data) - at:,} bytes are zeros" in message


@pytest.mark.parametrize("factor", [20, 64, 2048])
def test_blocking_factors(path, factor):
  data = archive()[: end_of(archive()) + 2 * BLOCK]
  path.write_bytes(data + bytes(-len(data) % (factor * BLOCK)))
  assert len(find_samples(path)) == 2


def test_what_follows_the_end_is_refused(path):
  data = archive()
  joined = data + archive([("c.jpg", JPEG), ("c.cls", b"2")])
  assert "data follow the end" in refusal(path, joined)
  assert "data follow" in refusal(path, data + b"junk")
  one_bit = bytearray(data)
  one_bit[-1] = 1
  assert "data follow" in refusal(path, bytes(one_bit))
  one_bit[end_of(data) + BLOCK] = 1
  assert "data follow" in refusal(path, bytes(one_bit))


@pytest.mark.parametrize("size", [2**40, 2**70, -1, -512, -(2**40)])
@pytest.mark.parametrize("kind", [b"0", b"L", b"x", b"S"])
def test_a_length_beyond_the_file_is_refused(tmp_path, size, kind):
  """The reader allocates nothing for it; a negative size causes no loop."""
  info = tarfile.TarInfo("b.jpg")
  info.size, info.type = size, kind
  data = archive(MEMBERS[:2])
  block = info.tobuf(tarfile.GNU_FORMAT)
  path = tmp_path / "train-0.tar"
  refusal(path, data[: end_of(data)] + block + data[end_of(data) :])


@pytest.mark.parametrize(
  "members, message",
  [
    ([*MEMBERS, ("a.jpg", b"x")], "sample a has a second image, a.jpg"),
    ([*MEMBERS, ("a.png", b"x")], "sample a has a second image, a.png"),
    ([*MEMBERS, ("b.JPEG", b"x")], "sample b has a second image, b.JPEG"),
    ([*MEMBERS, ("a.cls", b"0")], "sample a has a second label, a.cls"),
    ([*MEMBERS, ("a.CLS", b"1")], "sample a has a second label, a.CLS"),
    (
      [("n/c.json", b"{}"), ("n/c.jpg", b"x"), ("n/c.json", b"{}")],
      "sample n/c has a second label, n/c.json",
    ),
  ],
)
def test_two_of_one_key_are_refused(path, members, message):
  assert message in refusal(path, archive(members))


def test_the_first_of_several_half_samples_is_named(path):
  names = [f"{i:03d}" for i in range(40)]
  labels = [(f"{name}.cls", b"0") for name in reversed(names)]
  assert "sample 039 has no image" in refusal(path, archive(labels))
  mixed = archive([("z.jpg", JPEG), *labels])
  assert "sample z has no label" in refusal(path, mixed)


def test_labels_in_json(path):
  members = [
    ("a.jpg", JPEG),
    ("a.json", b'{"label": 2, "filename": "a.JPEG"}'),
    ("b.jpg", JPEG),
    ("b.cls", b"1"),
    ("b.json", b'{"label": 1}'),
    ("c.jpg", JPEG),
    ("c.cls", b"0"),
    ("c.json", b'{"label": "cat", "caption": "a cat"}'),
    ("d.jpg", JPEG),
    ("d.cls", b"0"),
    ("d.json", b"not JSON"),
    ("dataset.json", b'{"classes": 3}'),
  ]
  path.write_bytes(archive(members))
  assert [s.label for s in find_samples(path)] == [2, 1, 0, 0]


@pytest.mark.parametrize(
  "label", ["3", 1.5, True, None, [1], {"label": 1}, "[" * 5000]
)
def test_json_without_a_whole_number_is_no_label(path, label):
  data = json.dumps({"label": label}).encode()
  members = [("a.jpg", JPEG), ("a.json", data)]
  assert "sample a has no label: neither a .cls, nor a .json" in refusal(
    path, archive(members)
  )
  nested = archive([("a.jpg", JPEG), ("a.json", b"[" * 100_000)])
  assert "sample a has no label" in refusal(path, nested)


def test_two_labels_that_differ_are_refused(path):
  members = [*MEMBERS, ("a.json", b'{"label": 1}')]
  want = "sample a has label 0 in .cls and 1 in .json"
  assert want in refusal(path, archive(members))


@pytest.mark.parametrize("text", [b"1_0", b"", b"0x1", b"1" * 33, b"1 2"])
def test_labels_are_whole_numbers(path, text):
  members = [("a.jpg", JPEG), ("a.cls", text)]
  assert "expected a label" in refusal(path, archive(members))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("name", ["b.jpg", "b.cls"])
def test_links_are_named(path, kind, name):
  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode="w") as tar:
    tar.addfile(*member("a.jpg", JPEG))
    tar.addfile(member(name, type=kind, linkname="/etc/passwd")[0])
  assert f"{name}: is a link" in refusal(path, file.getvalue())


@pytest.mark.parametrize("format", ["gnu", "posix"])
def test_sparse_members_are_named(tmp_path, format):
  """GNU tar writes a file with holes in two formats."""
  with (tmp_path / "a.jpg").open("wb") as file:
    file.write(JPEG)
    file.seek(2**20)
    file.write(b"end")
  (tmp_path / "a.cls").write_bytes(b"1")
  shard = tmp_path / "train-0.tar"
  subprocess.run(
    ["tar", "--sparse", f"--format={format}", "-cf", shard, "a.jpg", "a.cls"],
    cwd=tmp_path,
    check=True,
  )
  message = refusal(shard, shard.read_bytes())
  assert "a.jpg: sparse tar entries are not supported" in message


def test_a_name_of_several_lines_is_in_one(path):
  assert "second image" in refusal(
    path, archive([("a\nb.jpg", JPEG), ("a\nb.jpg", JPEG)])
  )
