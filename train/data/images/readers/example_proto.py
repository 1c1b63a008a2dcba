"""The records of TFRecord and ArrayRecord files: `tf.train.Example`.

The encoding is that of protocol buffers (protobuf.dev, "Encoding"): a message
is a sequence of fields, each a key with the field's number and wire type,
followed by a value. The reader takes only the first value of each feature,
bytes or an integer, because image data sets use no more.
"""

from collections.abc import Iterable, Iterator, Mapping

from ...source import BadExampleError
from .encoded import StoredImage

Features = dict[str, memoryview | int]
"""First value of each feature, by name."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_BYTES_LIST, _INT64_LIST = 1, 3
_MOST_SHIFT = 63

# Names of image and label, and the label of the first class, as written by
# imagenet_to_gcs, and by TensorFlow Datasets and podscale.
_NAMES = (("image/encoded", "image/class/label", 1), ("image", "label", 0))


def read_image(record: bytes) -> StoredImage:
  """Read the file and the label of a record.

  Args:
    record: A `tf.train.Example` with "image/encoded" and "image/class/label"
      from 1, as imagenet_to_gcs writes them, or with "image" and "label"
      from 0, as TensorFlow Datasets and `write_image` write them.

  Raises:
    BadExampleError: The record is no such example.

  >>> read_image(write_image(b"a file", 3))
  StoredImage(file=b'a file', label=3, first_label=0)
  """
  features = read_features(record)
  for image, name, first in _NAMES:
    file, label = features.get(image), features.get(name)
    if isinstance(file, memoryview) and isinstance(label, int):
      return StoredImage(bytes(file), label, first)
  raise _no_image(features)


def read_label(record: memoryview) -> tuple[int, int]:
  """Read the label of a record, and the label of the first class.

  The image is not touched, so only a few pages of a memory-mapped record are
  read.

  Args:
    record: A `tf.train.Example`, see `read_image`.

  Returns:
    (label, label of the first class).

  Raises:
    BadExampleError: The record has no label.

  >>> read_label(memoryview(write_image(b"a file", 3)))
  (3, 0)
  """
  features = read_features(record)
  for image, name, first in _NAMES:
    label = features.get(name)
    if image in features and isinstance(label, int):
      return label, first
  raise _no_image(features)


def _no_image(features: Iterable[str]) -> BadExampleError:
  known = ", ".join(sorted(features)) or "none"
  return BadExampleError(
    "the record has neither image/encoded and image/class/label nor image and "
    f"label; its features: {known}"
  )


def write_image(file: bytes, label: int) -> bytes:
  """Encode an image file and its label, from 0, as a record."""
  return write_features({"image": file, "label": label})


def read_features(record: bytes | memoryview) -> Features:
  """Read the features of a `tf.train.Example`; bytes are views of the record.

  Raises:
    BadExampleError: The record is no `tf.train.Example`.

  >>> features = read_features(write_features({"a": b"x", "b": -1}))
  >>> bytes(features["a"]), features["b"]
  (b'x', -1)
  """
  features: Features = {}
  try:
    for _, container in _fields(memoryview(record)):
      for _, entry in _fields(_message(container)):
        parts = dict(_fields(_message(entry)))
        value = _first_value(_message(parts.get(2, memoryview(b""))))
        if value is not None:
          features[bytes(_message(parts[1])).decode()] = value
  except (IndexError, KeyError, TypeError, ValueError):
    raise BadExampleError("the record is not a tf.train.Example") from None
  return features


def write_features(features: Mapping[str, bytes | int]) -> bytes:
  """Encode features with one value each as a `tf.train.Example`."""
  entries = b""
  for name, value in features.items():
    if isinstance(value, bytes):
      feature = _field(_BYTES_LIST, _field(1, value))
    else:
      feature = _field(_INT64_LIST, _field(1, _varint(value % 2**64)))
    entries += _field(1, _field(1, name.encode()) + _field(2, feature))
  return _field(1, entries)


def _first_value(feature: memoryview) -> memoryview | int | None:
  """Read the first value of a Feature; None for floats and empty lists."""
  for kind, values in _fields(feature):
    for _, value in _fields(_message(values)):
      if kind == _BYTES_LIST:
        return _message(value)
      if kind == _INT64_LIST:
        if isinstance(value, memoryview):  # packed
          value, _ = _read_varint(value, 0)
        return value - 2**64 if value >= 2**63 else value
  return None


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
  """Yield the number and the value of each field."""
  at = 0
  while at < len(message):
    key, at = _read_varint(message, at)
    value: memoryview | int
    if key & 7 == _VARINT:
      value, at = _read_varint(message, at)
    else:
      size, at = _size(message, key & 7, at)
      if at + size > len(message):
        raise ValueError("cut short")
      value, at = message[at : at + size], at + size
    yield key >> 3, value


def _size(message: memoryview, kind: int, at: int) -> tuple[int, int]:
  """Read the size of a value and its offset."""
  if kind == _BYTES:
    return _read_varint(message, at)
  if kind in (_FIXED32, _FIXED64):
    return {_FIXED32: 4, _FIXED64: 8}[kind], at
  raise ValueError(f"wire type {kind}")


def _message(value: memoryview | int) -> memoryview:
  if not isinstance(value, memoryview):
    raise TypeError("expected a message, got a number")
  return value


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
  """Read the number at an offset, and the offset behind it."""
  number = shift = 0
  while True:
    byte = data[at]
    at += 1
    number |= (byte & 0x7F) << shift
    if byte < 0x80:
      return number, at
    shift += 7
    if shift > _MOST_SHIFT:
      raise ValueError("a number has more than 64 bits")


def _varint(number: int) -> bytes:
  encoded = bytearray()
  while number >= 0x80:
    encoded.append(number & 0x7F | 0x80)
    number >>= 7
  encoded.append(number)
  return bytes(encoded)


def _field(number: int, value: bytes) -> bytes:
  return _varint(number << 3 | _BYTES) + _varint(len(value)) + value
