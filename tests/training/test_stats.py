import json

import torch

from stylegan.training.stats import Averages


def test_means_are_over_the_values_since_the_last_report():
    averages = Averages()
    for value in (1.0, 2.0, 6.0):
        averages.add({"a": torch.tensor(value)})
    averages.add({"a": torch.tensor(3.0), "lazy": torch.tensor(5.0)})
    assert averages.report() == {"a": 3.0, "lazy": 5.0}
    averages.add({"a": torch.tensor(7.0)})
    assert averages.report() == {"a": 7.0}
    assert averages.report() == {}


def test_values_that_are_not_finite_are_left_out():
    averages = Averages()
    for value in (1.0, float("nan"), float("inf"), 3.0):
        averages.add({"a": torch.tensor(value), "never": torch.tensor(float("nan"))})
    report = averages.report()
    assert report == {"a": 2.0}
    json.dumps(report, allow_nan=False)


def test_loaded_sums_go_to_the_device():
    averages = Averages()
    averages.load_state_dict(
        {"sums": {"a": torch.tensor(1.0)}, "counts": {"a": torch.tensor(1.0)}},
        device=torch.device("meta"),
    )
    assert {value.device.type for value in averages.state_dict()["sums"].values()} == {"meta"}


def test_half_precision_is_summed_in_float32():
    averages = Averages()
    for _ in range(1000):
        averages.add({"a": torch.tensor(1.0, dtype=torch.bfloat16)})
    assert averages.report() == {"a": 1.0}  # bfloat16 sums stop at 256
