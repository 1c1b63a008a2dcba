"""What is in the files of a TensorBoard folder."""

import struct

from tensorboardX.proto.event_pb2 import Event


def events(folder):
  """Everything in the TensorBoard files, in the order it was written."""
  found = []
  for path in sorted(folder.iterdir()):
    data = path.read_bytes()
    while data:  # length, its checksum, the event, its checksum
      (length,) = struct.unpack_from("<Q", data)
      found.append(Event.FromString(data[12 : 12 + length]))
      data = data[16 + length :]
  return found


def scalars(folder):
  return {
    (value.tag, event.step): value.simple_value
    for event in events(folder)
    for value in event.summary.value
  }
