"""Folders of image files."""

import cv2
import numpy as np
import pytest
import simplejpeg

from podscale.train.data import eval_batches, train_batches
from podscale.train.data.decoding.picture import Picture
from podscale.train.data.images import open_images
from podscale.train.errors import UsageError

# Red, green, blue, so that a swap of channels is seen.
COLOURS = {"apple": (200, 30, 40), "leaf": (20, 180, 60), "sky": (30, 90, 220)}


def picture(name, h=48, w=64):
  return np.full((h, w, 3), COLOURS[name], np.uint8)


def write(path, image):
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.suffix.lower() == ".png":
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
  else:
    path.write_bytes(simplejpeg.encode_jpeg(image, quality=95))


@pytest.fixture
def folder(tmp_path):
  for name in COLOURS:
    write(tmp_path / "train" / name / "0.jpg", picture(name))
    write(tmp_path / "train" / name / "1.JPEG", picture(name, 70, 50))
    write(tmp_path / "train" / name / "2.png", picture(name, 33, 90))
    write(tmp_path / "val" / name / "0.jpeg", picture(name))
  write(tmp_path / "train" / "sky" / "3.jpg", picture("sky"))
  return tmp_path


def test_classes_labels_and_colours(folder):
  source = open_images(folder, "train")
  assert source.class_names == ("apple", "leaf", "sky")
  assert source.num_classes == 3
  assert len(source) == 10
  for i in range(len(source)):
    example = source[i]
    colour = COLOURS[source.class_names[example["label"]]]
    # JPEG at quality 95 keeps a flat colour to a few units.
    found = Picture(example["image"]).decode().mean((0, 1))
    np.testing.assert_allclose(found, colour, atol=3)


def test_the_first_examples_are_of_all_classes(folder):
  source = open_images(folder, "train")
  source.keep_first(3)
  assert [source[i]["label"] for i in range(len(source))] == [0, 1, 2]


def test_batches_of_files_of_many_sizes(folder):
  batches = train_batches(
    open_images(folder, "train"),
    batch_size=10,
    resolution=24,
    seed=0,
    crop="resized",
    flip=True,
  )
  for _ in range(3):
    batch = next(batches)
    assert batch["image"].shape == (10, 24, 24, 3)
    assert np.bincount(batch["label"]).tolist() == [3, 3, 4]
    want = np.array(list(COLOURS.values()))[batch["label"]]
    found = batch["image"].mean((1, 2))
    np.testing.assert_allclose(found, want, atol=3)
  test = open_images(folder, "test")
  (batch,) = eval_batches(test, batch_size=4, resolution=24)
  assert batch["label"].tolist() == [0, 1, 2, -1]


def test_evaluation_leaves_the_border_out(folder):
  image = picture("sky", 64, 64)
  image[16:48, 16:48] = COLOURS["leaf"]
  write(folder / "val" / "sky" / "0.jpeg", image)
  write(folder / "val" / "sky" / "0.png", image)
  (folder / "val" / "sky" / "0.jpeg").unlink()
  test = open_images(folder, "test")
  (batch,) = eval_batches(test, batch_size=3, resolution=32)
  # At 32 pixels a padding of 32 leaves the central half.
  assert (batch["image"][2] == COLOURS["leaf"]).all()


def refusal(folder, split="train"):
  with pytest.raises(UsageError) as error:
    batches = eval_batches(
      open_images(folder, split), batch_size=4, resolution=24
    )
    list(batches)
  assert "\n" not in str(error.value)
  return str(error.value)


def test_a_missing_folder_is_named(folder):
  assert str(folder / "nowhere") in refusal(folder / "nowhere")
  (folder / "val").rename(folder / "other")
  assert f"{folder}: no test images" in refusal(folder, "test")


def test_images_outside_class_folders_need_labels(tmp_path):
  write(tmp_path / "train" / "stray.jpg", picture("sky"))
  message = refusal(tmp_path)
  assert f"{tmp_path / 'train'}: has images outside class folders" in message


def test_a_class_without_images_is_named(folder):
  empty = folder / "train" / "bread"
  empty.mkdir()
  (empty / ".hidden").write_bytes(b"")
  assert f"{empty}: this class folder has no images;" in refusal(folder)
  (empty / "Thumbs.db").write_bytes(b"")
  assert "only 1 .db" in refusal(folder)


@pytest.mark.parametrize("names", [["bread"], ["bread", "salt"]])
def test_classes_that_training_lacks_are_named(folder, names):
  for name in names:
    write(folder / "val" / name / "0.jpg", picture("sky"))
  message = refusal(folder, "test")
  assert f"{folder / 'val'}: {len(names)} of its classes" in message
  assert f"3 classes of the training images: {', '.join(names)}" in message


FOREIGN = ["notes.txt", "0.jpg.part", "Thumbs.db", "README", "x.JPG.crc"]


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("split, word", [("train", "train"), ("test", "val")])
def test_other_files_are_left_out_and_counted(folder, split, word, name):
  before = open_images(folder, split)
  (folder / word / "leaf" / name).write_text("x")
  (folder / word / "sky" / name).write_text("x")
  (folder / word / "sky" / ".hidden.jpg").write_text("x")
  source = open_images(folder, split)
  assert source.listing == before.listing and before.left_out == ()
  (said,) = source.left_out
  assert said.startswith("2 ") and said.endswith(f" in {word}/")


def test_folders_below_a_class_are_its_images(folder):
  write(folder / "train" / "sky" / "2012" / "may" / "9.jpg", picture("sky"))
  write(folder / "val" / "leaf" / "more" / "1.webp.png", picture("leaf"))
  for name in ("__MACOSX", "@eaDir", ".ipynb_checkpoints"):
    write(folder / "train" / name / "0.jpg", picture("sky"))
    write(folder / "train" / "sky" / name / "0.jpg", picture("sky"))
  train, test = open_images(folder, "train"), open_images(folder, "test")
  assert (len(train), train.num_classes, len(test)) == (11, 3, 4)
  labels = [train[i]["label"] for i in range(11)]
  assert np.bincount(labels).tolist() == [3, 3, 5]
  assert any("2012/may/9.jpg" in train.where(i) for i in range(11))


def test_a_link_that_leads_back_is_refused(folder):
  (folder / "train" / "sky" / "back").symlink_to(folder / "train")
  assert "remove links that lead back" in refusal(folder)


@pytest.mark.parametrize(
  "name", ["a.jpg", "a.JPEG", "a.png", "a.webp", "a.WebP", "a.bmp"]
)
def test_suffixes_of_images(tmp_path, name):
  (tmp_path / "train" / "sky").mkdir(parents=True)
  (tmp_path / "train" / "sky" / name).write_bytes(b"image")
  source = open_images(tmp_path, "train")
  assert source.where(0).endswith(f"train/sky/{name}")


@pytest.mark.parametrize("name", ["0.jpg", "2.png"])
@pytest.mark.parametrize("keep", [0, 3, 60])
def test_an_unreadable_image_is_named(folder, name, keep, capfd):
  path = folder / "train" / "leaf" / name
  path.write_bytes(path.read_bytes()[:keep])
  assert str(path) in refusal(folder)


def test_an_unreadable_image_stops_the_batches(folder):
  path = folder / "train" / "leaf" / "0.jpg"
  path.write_bytes(path.read_bytes()[:-5])
  batches = train_batches(
    open_images(folder, "train"),
    batch_size=10,
    resolution=24,
    seed=0,
    crop="none",
    flip=False,
  )
  with pytest.raises(UsageError, match=r"leaf/0\.jpg: cannot decode"):
    next(batches)
