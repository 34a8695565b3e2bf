import json

import pytest

from stylegan.errors import ConfigError
from stylegan.metrics.protocols import (
    STANDARD,
    FrechetProtocol,
    InceptionScoreProtocol,
    KernelProtocol,
    PathLengthProtocol,
    PrecisionRecallProtocol,
    SeparabilityProtocol,
    SlicedWassersteinProtocol,
    parse,
)

OTHERS = [
    "fid5k",
    "fid500",
    "fid2_full",
    "fid5k:efficientnet-lite0",
    "fid5k_full:vgg16",
    "kid50k",
    "kid1500_full",
    "is10",
    "pr5k3",
    "pr5k10_full",
    "pr500_3",
    "pr501_12_full:efficientnet-lite0",
    "ppl_10k_wend",
    "ppl2_10k_zfull",
    "ppl2_8_wend:efficientnet-lite0",
    "ls20k",
    "ls500",
    "swd1k",
    "swd500",
]


@pytest.mark.parametrize("name", [*STANDARD, *OTHERS])
def test_a_canonical_name_is_read_and_written_the_same(name):
    protocol = parse(name)
    assert protocol.name == name
    assert parse(protocol.name) == protocol
    assert json.loads(json.dumps(protocol.record()))["name"] == name


def test_different_names_are_different_records():
    records = [json.dumps(parse(name).record()) for name in [*STANDARD, *OTHERS]]
    assert len(set(records)) == len(records)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("fid50000", "fid50k"),
        ("fid50k:inception-v3", "fid50k"),
        (" kid50000_full ", "kid50k_full"),
        ("ppl_50k_wend", "ppl_wend"),
        ("ls200k", "ls"),
        ("ls200000", "ls"),
        ("swd16384", "swd16k"),
        ("pr50000_3", "pr50k3"),
    ],
)
def test_other_spellings_have_one_canonical_name(text, name):
    assert parse(text).name == name


def test_the_official_settings_stand_behind_the_names():
    fid, full = parse("fid50k"), parse("fid50k_full")
    assert isinstance(fid, FrechetProtocol)
    assert isinstance(full, FrechetProtocol)
    assert (fid.num_fake, fid.num_real, fid.unbiased, fid.follows_mirroring) == (
        50_000,
        50_000,
        True,
        True,
    )
    assert (full.num_fake, full.num_real, full.unbiased, full.follows_mirroring) == (
        50_000,
        None,
        False,
        False,
    )
    kid = parse("kid50k_full")
    assert isinstance(kid, KernelProtocol)
    assert (kid.num_real, kid.num_subsets, kid.max_subset, kid.follows_mirroring) == (
        1_000_000,
        100,
        1000,
        False,
    )
    score = parse("is50k")
    assert isinstance(score, InceptionScoreProtocol)
    assert (score.num_splits, score.num_real, score.is_lower_better) == (10, 0, False)
    precision, precision_full = parse("pr50k3"), parse("pr50k3_full")
    assert isinstance(precision, PrecisionRecallProtocol)
    assert (precision.num_real, precision.num_neighbors, precision.features) == (50_000, 3, "vgg16")
    assert (precision_full.num_real, precision_full.follows_mirroring) == (200_000, False)
    path = parse("ppl_zfull")
    assert isinstance(path, PathLengthProtocol)
    assert (path.space, path.sampling, path.crop, path.num_fake) == ("z", "full", True, 50_000)
    assert (path.epsilon, path.lowest, path.highest, path.features) == (1e-4, 1, 99, "lpips-vgg16")
    assert parse("ppl2_wend").record()["crop"] is False
    separability = parse("ls")
    assert isinstance(separability, SeparabilityProtocol)
    assert (separability.num_fake, separability.num_kept) == (200_000, 100_000)
    swd = parse("swd16k")
    assert isinstance(swd, SlicedWassersteinProtocol)
    assert (swd.num_fake, swd.num_real, swd.features) == (16_384, 16_384, "")


def test_features_replace_only_features():
    assert parse("fid5k").with_features("efficientnet-lite0") == parse("fid5k:efficientnet-lite0")
    assert parse("swd1k").with_features("efficientnet-lite0") == parse("swd1k")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fid",
        "fid50K",
        "fid-5",
        "fid5k_ful",
        "is5k_full",
        "pr50k",
        "pr503",
        "ppl_wmiddle",
        "ppl3_wend",
        "swd16k_full",
        "fidk",
        "xfid5k",
        "fid5kk",
    ],
)
def test_an_unknown_name_is_answered_with_those_there_are(text):
    with pytest.raises(ConfigError, match="fid50k_full") as caught:
        parse(text)
    assert all(name in str(caught.value) for name in STANDARD)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["fid5k:", "swd1k:vgg16", "ls:inception-v3"])
def test_features_are_named_only_where_there_are_some(text):
    with pytest.raises(ConfigError, match="a colon precedes the name of a feature network"):
        parse(text)


@pytest.mark.parametrize(
    "text", ["fid1", "fid0", "kid1_full", "is9", "pr3_3", "pr5k0", "ppl_0_wend", "ls1", "swd0"]
)
def test_too_few_images_are_refused(text):
    with pytest.raises(ConfigError, match=r"more images|needs at least"):
        parse(text)


def test_every_standard_name_has_a_line():
    for name, line in STANDARD.items():
        assert line
        assert "\n" not in line
        assert parse(name).values
