"""From names to numbers: what is shared, what is refused, what a record says."""

import logging
from dataclasses import replace

import pytest
import torch
from metric_helpers import PlainDetector, PlainDistance, plain_generator

from stylegan import images
from stylegan.data.labels import LabelTable
from stylegan.data.pictures import Pictures
from stylegan.errors import ConfigError, DataError
from stylegan.image_size import ImageSize
from stylegan.metrics.frechet import gaussian_frechet_distance
from stylegan.metrics.measure import EvaluationDependencies
from stylegan.metrics.protocols import parse
from stylegan.metrics.suite import check, evaluate, facts_of, load_dependencies
from stylegan.metrics.targets import ImagesTarget, NetworkTarget, RealImages
from stylegan.models.classifiers import Classifier
from stylegan.models.registry import create
from stylegan.ops.precision import float32_precision

LOGGER = "stylegan.metrics.suite"


def protocols(*names):
    return [parse(name if name.startswith("swd") else f"{name}:plain") for name in names]


def network_subject(generator, **options):
    return NetworkTarget(generator=generator, origin={"path": "net"}, **options)


def reals_of(folder, **options):
    pictures = Pictures(folder)
    return RealImages(images=pictures, size=pictures.size, **options)


def measure(names, target, reals, detector):
    dependencies = EvaluationDependencies(detectors={"plain": detector})
    results = evaluate(protocols(*names), target, reals, dependencies)
    return {result.record["metric"]: result.record for result in results}


def test_metrics_on_the_same_images_share_one_pass(generator, detector, smooth_folder):
    names = ("fid100_full", "kid100_full", "pr100_3_full", "is100")
    found = measure(names, network_subject(generator), reals_of(smooth_folder), detector)
    assert list(found) == [f"{name}:plain" for name in names]
    assert detector.num_seen == 100 + 150


def test_a_second_evaluation_makes_no_pass_over_the_real_images(
    generator, detector, smooth_folder, monkeypatch
):
    names = ("fid100_full", "kid100_full", "pr100_3_full")
    first = measure(names, network_subject(generator), reals_of(smooth_folder), detector)
    reals = reals_of(smooth_folder)
    monkeypatch.setattr(Pictures, "__getitem__", lambda *_: pytest.fail("a real image was read"))
    second = measure(names, network_subject(generator), reals, PlainDetector())
    assert [r["value"] for r in first.values()] == [r["value"] for r in second.values()]


def test_the_frechet_distance_is_that_of_the_images_features(detector, smooth_folder, generator):
    target = network_subject(generator, seed=3)
    found = measure(["fid120_full"], target, reals_of(smooth_folder), detector)
    source = target.source(120)
    fake = torch.stack([image for chunk in source.chunks([0, 1]) for image in chunk])
    pictures = Pictures(smooth_folder)
    real = torch.stack([pictures[index] for index in range(150)])
    sides = []
    for pixels in (real, fake):
        features = detector(detector.prepare(pixels)).detach().double()
        sides += [features.mean(dim=0), torch.cov(features.T, correction=0)]
    expected = gaussian_frechet_distance(*sides)
    assert found["fid120_full:plain"]["value"] == pytest.approx(expected, rel=1e-9)


def test_real_images_against_themselves_are_at_no_distance(detector, smooth_folder):
    target = ImagesTarget(images=Pictures(smooth_folder), size=ImageSize(16, 16))
    names = ("fid150", "swd150")
    found = measure(names, target, reals_of(smooth_folder), detector)
    assert abs(found["fid150:plain"]["value"]) < 1e-6
    assert found["swd150"]["value"] == 0


def test_reals_are_mirrored_only_where_the_protocol_follows_the_training(
    generator, detector, smooth_folder
):
    names = ("fid150", "fid150_full")
    plain, mirrored = (
        measure(
            names, network_subject(generator), reals_of(smooth_folder, is_mirrored=flag), detector
        )
        for flag in (False, True)
    )
    assert plain["fid150_full:plain"]["value"] == mirrored["fid150_full:plain"]["value"]
    assert plain["fid150:plain"]["value"] != mirrored["fid150:plain"]["value"]
    assert mirrored["fid150:plain"]["real"]["mirrored"]
    assert not mirrored["fid150_full:plain"]["real"]["mirrored"]


def test_a_record_says_all_that_a_value_depends_on(generator, detector, smooth_folder):
    target = network_subject(generator, seed=9, psi=0.5)
    record = measure(["kid64"], target, reals_of(smooth_folder), detector)["kid64:plain"]
    assert record["fake"] == {
        "kind": "network",
        "side": 16,
        "num": 64,
        "seed": 9,
        "labels": False,
        "truncation": 0.5,
        "noise": "random",
        "precision": "float32",
        "origin": {"path": "net"},
    }
    assert record["real"]["fingerprint"] == Pictures(smooth_folder).fingerprint
    assert (record["real"]["num"], record["real"]["choice"]) == (64, "spread")
    assert record["features"] == {
        "name": "plain",
        "weights": "plain.pt",
        "sha256": "0" * 64,
        "resize": "area to 8",
    }
    assert record["error"] is None  # subsets of 64 out of 64 are all the same
    assert record["lower_is_better"]
    assert record["quantized"]
    assert record["seconds"] >= 0
    assert set(record["versions"]) == {"stylegan", "torch", "numpy", "python"}
    assert (record["device"], record["tf32"]) == ("cpu", False)
    assert record["threads"] == torch.get_num_threads()


@pytest.mark.parametrize(("device", "tf32"), [("cuda", True), ("cuda", False), ("cpu", True)])
def test_a_record_says_whether_a_gpu_rounded_to_tf32(
    generator, detector, smooth_folder, monkeypatch, device, tf32
):
    monkeypatch.setattr("stylegan.metrics.suite._device", lambda *_: torch.device(device))
    dependencies = EvaluationDependencies(detectors={"plain": detector})
    (kid,) = protocols("kid64")
    with float32_precision(tf32=tf32):
        facts = facts_of(kid, network_subject(generator), reals_of(smooth_folder), dependencies)
    assert facts["tf32"] is (device == "cuda" and tf32)


def test_a_record_of_path_lengths_says_how_they_are_measured(detector):
    generator = plain_generator()
    generator.compute_dtype = torch.bfloat16
    dependencies = EvaluationDependencies(
        detectors={"plain": detector}, distances={"plain": PlainDistance()}
    )
    lengths, score = (
        result.record
        for result in evaluate(
            protocols("ppl2_64_wend", "is64"), network_subject(generator), None, dependencies
        )
    )
    assert lengths["fake"]["precision"] == "float32"
    assert score["fake"]["precision"] == "bfloat16"
    assert (lengths["quantized"], score["quantized"]) == (False, True)
    assert (lengths["features"]["weights"], score["features"]["weights"]) == (
        "plain-distance.pt",
        "plain.pt",
    )


def test_path_lengths_of_truncated_or_small_images_are_refused():
    class Wide(PlainDistance):
        smallest = 16

    network, dependencies = (
        network_subject(plain_generator()),
        EvaluationDependencies(distances={"plain": Wide()}),
    )
    check(protocols("ppl2_64_wend"), network, None, dependencies)
    with pytest.raises(
        ConfigError, match=r"needs psi 1, as path lengths are defined without truncation, got 0\.5"
    ):
        check(protocols("ppl2_64_wend"), replace(network, psi=0.5), None, dependencies)
    with pytest.raises(ConfigError, match=r"of side 16: plain needs at least 16 .* crop leaves 8"):
        check(protocols("ppl_64_wend"), network, None, dependencies)
    small = network_subject(plain_generator(resolution=8))
    with pytest.raises(ConfigError, match=r"of side 8: plain needs at least 16 pixels;"):
        check(protocols("ppl2_64_wend"), small, None, dependencies)
    plain = EvaluationDependencies(distances={"plain": PlainDistance()})
    check(protocols("ppl_64_wend"), small, None, plain)
    growing = create("progan", 8, channel_base=64, channel_max=6).generator
    growing.lod = 1.0
    tiny = network_subject(growing)
    with pytest.raises(ConfigError, match=r"the crop leaves 0"):
        check(protocols("ppl_64_wend"), tiny, None, plain)


def test_classifiers_must_fit_the_network():
    network = create("stylegan-f", 32, channel_base=64, channel_max=6).discriminator.eval()
    dependencies = EvaluationDependencies(
        classifiers=[Classifier(name="bald", index=0, network=network, sha256="")]
    )
    with pytest.raises(ConfigError, match="the classifier bald takes images of"):
        check([parse("ls64")], network_subject(plain_generator()), None, dependencies)


def test_a_distance_of_pixels_needs_images_with_a_pyramid(tmp_path):
    for side, is_fine in ((8, False), (16, True)):
        for index in range(2):
            path = tmp_path / str(side) / f"{index}.png"
            images.write(torch.zeros(3, side, side, dtype=torch.uint8), path)
        reals = reals_of(tmp_path / str(side))
        network = network_subject(plain_generator(resolution=side))
        if is_fine:
            check([parse("swd2")], network, reals, EvaluationDependencies())
        else:
            with pytest.raises(DataError, match="sides of 16 pixels or more"):
                check([parse("swd2")], network, reals, EvaluationDependencies())
    network = network_subject(plain_generator(resolution=32))
    with pytest.raises(DataError, match="got 16x16 and 32x32"):
        check([parse("swd2")], network, reals, EvaluationDependencies())


def test_what_a_metric_lacks_is_reported_before_anything_is_computed(
    generator, detector, smooth_folder, tmp_path, caplog
):
    dependencies = EvaluationDependencies(detectors={"plain": detector})
    network, pictures = network_subject(generator), Pictures(smooth_folder)
    reals = reals_of(smooth_folder)
    files = ImagesTarget(images=pictures, size=ImageSize(16, 16))
    with pytest.raises(ConfigError, match="needs real images"):
        check(protocols("fid100"), network, None, dependencies)
    with pytest.raises(ConfigError, match="cannot be computed from images, as it needs latents"):
        check(protocols("ppl2_100_wend"), files, reals, dependencies)
    with pytest.raises(DataError, match=r"has 150 images, and the metric needs 151"):
        check(protocols("fid151"), files, reals, dependencies)
    with pytest.raises(DataError, match="150 images, and swd"):
        check(protocols("swd151"), network, reals, dependencies)
    with pytest.raises(DataError, match="several sizes"):
        check(protocols("swd100"), ImagesTarget(images=pictures), reals, dependencies)
    images.write(torch.zeros(3, 16, 16, dtype=torch.uint8), tmp_path / "few" / "0.png")
    with pytest.raises(DataError, match="more than 3"):
        check(protocols("pr100_3"), network, reals_of(tmp_path / "few"), dependencies)
    with caplog.at_level(logging.WARNING, logger=LOGGER):
        check(protocols("fid20"), network, reals, dependencies)
    assert "biased upwards" in caplog.text
    assert "fid20:plain uses the first 20 of 150 real images" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger=LOGGER):
        check(protocols("fid50_full", "kid50", "pr150_3"), network, reals, dependencies)
    assert caplog.text == ""
    assert detector.num_seen == 0


def test_tools_refuse_what_does_not_fit_the_metric():
    with pytest.raises(ConfigError, match="needs classifiers of attributes"):
        load_dependencies([parse("ls")])
    with pytest.raises(
        ConfigError, match="needs a feature network that classifies"
    ):  # before 553 MB are asked for
        load_dependencies([parse("is100:vgg16")])
    with pytest.raises(ConfigError, match="nonesuch"):
        load_dependencies([parse("fid5k:nonesuch")])


def test_labels_are_part_of_the_images(detector, smooth_folder):
    generator = plain_generator(c_dim=2)
    table = LabelTable([0, 1], ["a", "b"])
    target = network_subject(generator, labels=table)
    record = measure(["is64"], target, None, detector)["is64:plain"]
    assert record["fake"]["labels"]
    assert record["real"] is None


def test_a_cache_that_takes_no_files_costs_a_warning(
    generator, detector, smooth_folder, tmp_path, monkeypatch, caplog
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        found = measure(["kid64"], network_subject(generator), reals_of(smooth_folder), detector)
    assert "set STYLEGAN_CACHE to a writable folder" in caplog.text
    assert found["kid64:plain"]["real"]["num"] == 64
