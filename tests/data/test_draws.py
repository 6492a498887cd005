import math

import pytest
import torch

from cvtrain.data.draws import Draws

N = 20_000


def draw(*, seed=1, epoch=0, indices=None, name=0):
    return Draws(seed, epoch, torch.arange(N) if indices is None else indices).uniform(name)


def correlation(x, y):
    return torch.corrcoef(torch.stack([x, y]).double())[0, 1].item()


@pytest.mark.parametrize("epoch", [0, 1, 999])
@pytest.mark.parametrize("name", [0, 1, 19])
def test_draws_are_uniform(epoch, name):
    values = draw(epoch=epoch, name=name)
    assert values.dtype == torch.float32
    assert values.min() >= 0
    assert values.max() < 1
    # Six standard errors: 1 / sqrt(12 N) of the mean, 1 / sqrt(180 N) of the variance.
    assert abs(values.mean().item() - 0.5) < 6 / math.sqrt(12 * N)
    assert abs(values.var().item() - 1 / 12) < 6 / math.sqrt(180 * N)
    counts = torch.histc(values, bins=100, min=0, max=1)
    chi_square = ((counts - N / 100) ** 2 / (N / 100)).sum().item()
    assert abs(chi_square - 99) < 6 * math.sqrt(2 * 99)


def test_neighbouring_indices_epochs_names_and_seeds_are_uncorrelated():
    first = draw()
    neighbours = [
        draw(indices=torch.arange(N) + 1),
        draw(epoch=1),
        draw(name=1),
        draw(seed=2),
        draw(seed=1 + 2**32),
        draw(indices=torch.arange(N) + 2**20),  # epochs are shifted by 20 bits: no index may stand in for one
    ]
    for other in neighbours:
        assert not torch.equal(first, other)
        assert abs(correlation(first, other)) < 6 / math.sqrt(N)
        assert (first == other).sum() < 5


def test_pairs_of_draws_fill_the_square_evenly():
    x, y = (draw(name=name) * 10 for name in (3, 4))
    counts = torch.bincount(x.long() * 10 + y.long(), minlength=100)
    chi_square = ((counts - N / 100) ** 2 / (N / 100)).sum().item()
    assert abs(chi_square - 99) < 6 * math.sqrt(2 * 99)


def test_draws_of_an_image_depend_neither_on_its_batch_nor_on_earlier_calls():
    whole = draw()
    some = torch.tensor([17, 3, 19_999, 3])
    draws = Draws(1, 0, some)
    assert torch.equal(draws.uniform(0), whole[some])
    draws.uniform(5)
    torch.rand(3)
    assert torch.equal(draws.uniform(0), whole[some])
    assert torch.equal(Draws(1, 0, torch.tensor([17])).uniform(0), whole[17:18])


@pytest.mark.parametrize("seed", [0, 2**31, 2**62, 2**63 - 1])
def test_every_seed_works(seed):
    values = draw(seed=seed, epoch=10_000)
    assert abs(values.mean().item() - 0.5) < 6 / math.sqrt(12 * N)
    assert not torch.equal(values, draw(seed=seed ^ 1, epoch=10_000))


def test_range_is_kept():
    values = Draws(0, 0, torch.arange(N)).uniform(0, -3.0, 5.0)
    assert values.min() >= -3
    assert values.max() <= 5
    assert abs(values.mean().item() - 1) < 6 * 8 / math.sqrt(12 * N)


@pytest.mark.parametrize("num", [1, 2, 9, 1000])
def test_integers_take_every_value_equally_often(num):
    values = Draws(0, 3, torch.arange(N)).integers(0, num)
    assert values.dtype == torch.int64
    counts = torch.bincount(values, minlength=num)
    assert len(counts) == num
    chi_square = ((counts - N / num) ** 2 / (N / num)).sum().item()
    assert abs(chi_square - (num - 1)) <= 6 * math.sqrt(2 * (num - 1))


def splitmix(x):
    """The finaliser of SplitMix64 on Python's own whole numbers."""
    mask = 2**64 - 1
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


def test_draws_equal_whole_number_arithmetic():
    """Runs that were started with an earlier version must go on with the same augmentation."""
    seed, epoch, name, indices = 2**62 + 7, 2, 4, [0, 1, 59_999]
    keys = [splitmix((i * 0x9E3779B97F4A7C15 + (epoch << 20) + name) % 2**64) for i in indices]
    expected = [splitmix(key ^ seed) >> 40 for key in keys]
    values = Draws(seed, epoch, torch.tensor(indices)).uniform(name)
    assert (values * 2**24).long().tolist() == expected
