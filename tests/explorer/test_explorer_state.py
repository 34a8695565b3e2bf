import json

import pytest

from stylegan.errors import ConfigError
from stylegan.explorer.state import PictureState, read_state, read_timeline, state_json

FULL = {
    "base": {"seed": 7, "saved": "0123456789abcdef"},
    "walk": {"space": "z", "plane": 3, "x": 0.25, "y": -1.5},
    "psi": 0.7,
    "cutoff": 2,
    "class": 1,
    "noise": {"mode": "random", "seed": 4, "strength": 0.5},
    "lod": 1.5,
    "mixes": [{"base": {"seed": 9}, "amounts": [0, 0.5, 1]}],
    "edits": [{"directions": "pca", "index": 2, "strength": -3.5, "layers": [0, 1]}],
}


def test_a_state_survives_json_and_an_empty_one_has_the_defaults():
    state = read_state(FULL)
    assert read_state(json.loads(json.dumps(state_json(state)))) == state
    assert state.mixes[0].amounts == (0.0, 0.5, 1.0)
    assert read_state({}) == PictureState()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "state must be an object"),
        ({"psi": float("nan")}, "psi must be a number from -4 to 4"),
        ({"psi": 10**400}, "psi must be a number"),
        ({"psi": True}, "psi must be a number"),
        ({"base": {"seed": -1}}, "seed must be a whole number"),
        ({"base": {"seed": 2**32}}, "seed must be a whole number"),
        ({"base": {"seed": 1.5}}, "seed must be a whole number"),
        ({"base": {"saved": "../../etc/passwd"}}, "saved must be an identifier"),
        ({"walk": {"x": 1e9}}, "x must be a number from -10 to 10"),
        ({"walk": {"space": "y"}}, "space must be one of z, w"),
        ({"noise": {"mode": "loud"}}, "mode must be one of"),
        ({"mixes": [{}] * 9}, "mixes must be a list of at most 8"),
        ({"mixes": [{"amounts": [2]}]}, "amounts must be a number from 0 to 1"),
        ({"edits": [{"directions": "pca", "strength": 1e6}]}, "strength must be"),
        ({"edits": [{"directions": "x" * 99}]}, "directions must be a text"),
        ({"edits": "abc"}, "edits must be a list"),
        ({"psy": 1}, "unknown key 'psy'"),
    ],
)
def test_each_value_is_bounded(value, message):
    with pytest.raises(ConfigError, match=message):
        read_state(value)


def test_timelines_are_bounded():
    timeline = read_timeline({"keys": [{}, FULL], "seconds": 2, "fps": 10, "easing": "in"})
    assert timeline.num_frames == 21
    for value, message in [
        ({"keys": []}, "no keyframes"),
        ({"keys": [{}] * 65}, "at most 64"),
        ({"keys": [{}] * 50, "seconds": 60}, "at most 2000 frames"),
        ({"keys": [{}], "fps": 0}, "fps must be"),
        ({"keys": [{"psi": 99}]}, "psi must be"),
    ]:
        with pytest.raises(ConfigError, match=message):
            read_timeline(value)
