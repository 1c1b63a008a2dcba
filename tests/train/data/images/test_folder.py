"""A folder of image files, made here."""

import cv2
import numpy as np
import pytest
import simplejpeg

from podscale.train.data import eval_batches, train_batches
from podscale.train.data.decode import Picture
from podscale.train.data.images.folder import ImageFolder
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
  source = ImageFolder(folder, "train")
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
  source = ImageFolder(folder, "train")
  source.keep_first(3)
  assert [source[i]["label"] for i in range(len(source))] == [0, 1, 2]


def test_batches_of_files_of_many_sizes(folder):
  batches = train_batches(
    ImageFolder(folder, "train"),
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
  test = ImageFolder(folder, "test")
  (batch,) = eval_batches(test, batch_size=4, resolution=24)
  assert batch["label"].tolist() == [0, 1, 2, -1]


def test_evaluation_leaves_the_border_out(folder):
  image = picture("sky", 64, 64)
  image[16:48, 16:48] = COLOURS["leaf"]
  write(folder / "val" / "sky" / "0.jpeg", image)
  write(folder / "val" / "sky" / "0.png", image)
  (folder / "val" / "sky" / "0.jpeg").unlink()
  test = ImageFolder(folder, "test")
  (batch,) = eval_batches(test, batch_size=3, resolution=32)
  # At 32 pixels a padding of 32 leaves the central half.
  assert (batch["image"][2] == COLOURS["leaf"]).all()


def refusal(folder, split="train"):
  with pytest.raises(UsageError) as error:
    batches = eval_batches(
      ImageFolder(folder, split), batch_size=4, resolution=24
    )
    list(batches)
  assert "\n" not in str(error.value)
  return str(error.value)


def test_a_missing_folder_is_named(folder):
  assert str(folder / "nowhere" / "train") in refusal(folder / "nowhere")
  (folder / "val").rename(folder / "other")
  assert str(folder / "val") in refusal(folder, "test")


def test_a_folder_without_classes_is_named(tmp_path):
  (tmp_path / "train").mkdir()
  (tmp_path / "train" / "stray.jpg").write_bytes(b"")
  assert f"{tmp_path / 'train'}: no class folders" in refusal(tmp_path)


def test_a_class_without_images_is_named(folder):
  empty = folder / "train" / "bread"
  empty.mkdir()
  (empty / ".hidden").write_bytes(b"")
  assert f"{empty}: no images" in refusal(folder)


def test_a_class_that_training_lacks_is_named(folder):
  write(folder / "val" / "bread" / "0.jpg", picture("sky"))
  message = refusal(folder, "test")
  assert str(folder / "val" / "bread") in message and "3 classes" in message


def test_another_kind_of_file_is_named(folder):
  stray = folder / "train" / "leaf" / "notes.txt"
  stray.write_text("x")
  assert f"{stray}: not one of .jpg" in refusal(folder)


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
    ImageFolder(folder, "train"),
    batch_size=10,
    resolution=24,
    seed=0,
    crop="none",
    flip=False,
  )
  with pytest.raises(UsageError, match=r"leaf/0\.jpg: cannot decode"):
    next(batches)
