"""Random numbers that saved runs rely on."""

from podscale.train.data.loading.randomness import uniform_numbers


def test_a_later_numpy_gives_the_same_numbers():
  # Recorded with NumPy 2.5.5; a run saved then must go on as it began.
  assert uniform_numbers(seed=7, position=5, count=1, width=4).tolist() == [
    [
      0.4543056052750971,
      0.3627149253491818,
      0.3085405873580116,
      0.1148992775205836,
    ]
  ]


def test_numbers_are_uniform_and_unalike():
  numbers = uniform_numbers(seed=0, position=0, count=1000, width=44)
  assert numbers.min() >= 0 and numbers.max() < 1
  # The mean of n uniform numbers has deviation sqrt(1 / 12 n): five of them.
  assert abs(numbers.mean() - 0.5) < 5 * (1 / (12 * numbers.size)) ** 0.5
  assert len(set(numbers.ravel().tolist())) == numbers.size
