import torch

import processes
from stylegan.rng import generator_for


def draw(*args, **options):
    return torch.randn(4, generator=generator_for(*args, **options))


def test_equal_arguments_give_equal_numbers():
    assert torch.equal(draw("z", seed=1, nimg=2), draw("z", seed=1, nimg=2))


def test_each_argument_changes_the_stream():
    streams = [
        draw("z", seed=1, nimg=2),
        draw("noise", seed=1, nimg=2),
        draw("z", seed=2, nimg=2),
        draw("z", seed=1, nimg=3),
        draw("z", seed=1, nimg=2, group=1),
        draw("z", seed=12, nimg=0),  # the parts of the key do not run into each other
        draw("z", seed=1, nimg=20),
    ]
    for index, stream in enumerate(streams):
        assert all(not torch.equal(stream, other) for other in streams[:index])


def print_seed():
    print(generator_for("z", seed=1).initial_seed())


def test_the_stream_is_the_same_in_every_process(tmp_path):
    found = processes.run(print_seed, folder=tmp_path)
    assert int(found) == generator_for("z", seed=1).initial_seed() == 9136041393054665908


def test_neighbouring_places_are_uncorrelated():
    rows = torch.stack(
        [torch.randn(512, generator=generator_for("z", seed=0, nimg=n)) for n in range(64)]
    )
    correlation = torch.corrcoef(rows) - torch.eye(64)
    assert correlation.abs().max() < 0.22  # 5 standard deviations of 1 / sqrt(512)
