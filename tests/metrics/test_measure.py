"""Each metric, beside the same number computed by hand from the images of the sources."""

from dataclasses import replace

import pytest
import torch
from metric_helpers import PlainDetector, PlainDistance, plain_generator
from torch import Tensor

from stylegan import images
from stylegan.data.labels import LabelTable
from stylegan.data.pictures import Pictures
from stylegan.image_size import ImageSize
from stylegan.metrics import features, measure
from stylegan.metrics.inception_score import inception_score
from stylegan.metrics.kernel import kernel_distance
from stylegan.metrics.measure import EvaluationDependencies
from stylegan.metrics.path_length import filtered_mean, path_length_values
from stylegan.metrics.precision_recall import precision_recall
from stylegan.metrics.protocols import parse
from stylegan.metrics.separability import separability
from stylegan.metrics.sliced_wasserstein import sliced_wasserstein_distance
from stylegan.metrics.sources import CHUNK, GeneratedImages
from stylegan.metrics.suite import check, evaluate
from stylegan.metrics.targets import ImagesTarget, NetworkTarget, RealImages
from stylegan.models.classifiers import Classifier
from stylegan.models.registry import create
from stylegan.rng import generator_for

SEED = 9
NUM = 100  # a chunk and a part of another


@pytest.fixture
def target():
    """A generator with labels."""
    table = LabelTable([0, 1, 1], list("abc"))
    return NetworkTarget(generator=plain_generator(c_dim=2), origin={}, seed=SEED, labels=table)


@pytest.fixture
def reals(smooth_folder):
    return RealImages(images=Pictures(smooth_folder), size=ImageSize(16, 16), seed=SEED)


@pytest.fixture
def fake(target):
    return torch.stack([*images_of(target.source(NUM))])


def images_of(source):
    return [image for chunk in source.chunks(range(source.num_chunks)) for image in chunk]


def features_of(pixels: Tensor) -> Tensor:
    detector = PlainDetector()
    with torch.no_grad():
        return detector(detector.prepare(pixels))


def first(protocol, target, reals, **dependencies):
    found = EvaluationDependencies(detectors={"plain": PlainDetector()}, **dependencies)
    check([protocol], target, reals, found)
    (result,) = evaluate([protocol], target, reals, found)
    return result


def test_the_kernel_distance_takes_subsets_as_the_protocol_says(target, reals, fake):
    protocol = replace(parse(f"kid{NUM}_full:plain"), num_subsets=7, max_subset=40)
    record = first(protocol, target, reals).record
    real = features_of(torch.stack([reals.images[index] for index in range(150)]))
    expected = kernel_distance(
        real.numpy(),
        features_of(fake).numpy(),
        generator=generator_for("kid subsets", seed=SEED),
        num_subsets=7,
        max_subset=40,
    )
    assert (record["value"], record["error"]) == (expected.value, expected.error)


def test_the_inception_score_takes_splits_as_the_protocol_says(target, fake):
    protocol = replace(parse(f"is{NUM}:plain"), num_splits=4)
    record = first(protocol, target, None).record
    with torch.no_grad():
        probabilities = PlainDetector().probabilities(features_of(fake))
    expected = inception_score(probabilities, num_splits=4)
    assert record["value"] == pytest.approx(expected.mean, rel=1e-6)
    assert record["error"] == pytest.approx(expected.std, rel=1e-5)


def test_precision_and_recall_are_not_each_other_and_take_their_neighbors(
    target, reals, fake, smooth_folder
):
    # Images of the set itself, but few kinds of them: precise, and without recall.
    narrow = torch.stack([reals.images[index % 30] for index in range(60)])
    real = features_of(torch.stack([reals.images[index] for index in range(150)])).half()
    for pixels, name in ((narrow, "pr60_4_full"), (fake, f"pr{NUM}_40_full")):
        protocol = parse(f"{name}:plain")
        subject_of_it = target
        if pixels is narrow:
            subject_of_it = ImagesTarget(
                images=Repeated(smooth_folder, 30, 60), size=ImageSize(16, 16)
            )
        values = first(protocol, subject_of_it, reals).record["values"]
        expected = precision_recall(real, features_of(pixels).half(), k=protocol.num_neighbors)
        assert values == {"precision": expected.precision, "recall": expected.recall}
        if pixels is narrow:
            assert values["precision"] > values["recall"]


class Repeated:
    """The first images of a folder, again and again."""

    fingerprint, path, preparation, formats, num_channels = "", "", None, {}, 3
    view = None

    def __init__(self, folder, period, num):
        self._pictures, self._period, self._num = Pictures(folder), period, num

    def __len__(self):
        return self._num

    def seen(self, index):
        return self._pictures[index % self._period]


@pytest.mark.parametrize("name", ["ppl2_100_zfull", "ppl_100_wend"])
def test_path_lengths_are_those_between_the_percentiles_with_labels(target, name):
    protocol = replace(parse(f"{name}:plain"), lowest=20, highest=60)
    distance = PlainDistance()
    result = first(protocol, target, None, distances={"plain": distance})
    source = target.source(NUM)
    expected = torch.cat(
        [
            path_length_values(
                target.generator,
                distance,
                protocol,
                seed=SEED,
                index=index,
                size=CHUNK,
                num=source.chunk_size(index),
                labels=source.draw(index).c,
            )
            for index in range(2)
        ]
    )
    assert torch.equal(result.per_image, expected)
    assert result.record["value"] == filtered_mean(expected, lowest=20, highest=60)
    assert result.record["value"] != filtered_mean(expected)


def test_separability_is_of_the_last_w_and_of_z_with_classifiers_that_saw_whole_parts(
    target, monkeypatch
):
    to_ws = GeneratedImages.map
    # Each layer has another w, as no network of ours has unless a user mixes styles.
    monkeypatch.setattr(
        GeneratedImages, "map", lambda *a: to_ws(*a) * torch.arange(1.0, 7.0)[None, :, None].cos()
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        networks = [
            create("stylegan-f", 8, channel_base=64, channel_max=6, mbstd_group_size=4)
            for _ in range(2)
        ]
    classifiers = [
        Classifier(
            name=f"a{index}", index=index, network=each.discriminator.eval(), sha256=f"{index}" * 64
        )
        for index, each in enumerate(networks)
    ]
    monkeypatch.setattr("stylegan.metrics.sources._PIXELS_AT_ONCE", 16 * 16 * 16)
    # 98 images: 2 of a group of 4 are left out, 14 of a part of 16
    record = first(parse("ls98"), target, None, classifiers=classifiers).record
    source = target.source(2 * CHUNK)
    z, w, logits = [], [], []
    for index in range(2):
        latents = source.draw(index)
        ws = source.map(latents)
        z.append(latents.z)
        w.append(ws[:, -1])
        for part in source.render(ws, index):
            logits.append(torch.stack([each.logits(part) for each in classifiers], dim=1))
    columns = [torch.cat(each)[:98] for each in (w, z, logits)]
    in_w, in_z = (separability(latents, columns[2], num_kept=49) for latents in columns[:2])
    assert record["values"] == {"ls_w": in_w.score, "ls_z": in_z.score}
    assert in_w.score != in_z.score
    assert record["details"]["entropies_w"] == list(in_w.entropies)
    assert [each["name"] for each in record["classifiers"]] == ["a0", "a1"]


def test_the_sliced_wasserstein_distance_draws_by_the_seed(target, reals, fake):
    record = first(parse(f"swd{NUM}"), target, reals).record
    real = torch.stack([reals.images[index] for index in range(NUM)])
    expected = sliced_wasserstein_distance(real, fake, seed=SEED)
    assert record["values"] == {"swd": expected.average, "swd_16": expected.levels[16]}
    assert expected.average != sliced_wasserstein_distance(real, fake, seed=0).average


@pytest.mark.parametrize("real_channels", [(1,), (3,), (1, 3)])
@pytest.mark.parametrize("fake_channels", [(1,), (3,), (1, 3)])
def test_grey_beside_color_is_compared_as_rgb(tmp_path, real_channels, fake_channels):
    stream = torch.Generator().manual_seed(2)
    sides = {}
    for name, channels in (("real", real_channels), ("fake", fake_channels)):
        for index in range(6):
            pixels = torch.rand([channels[index % len(channels)], 16, 16], generator=stream)
            images.write((pixels * 255).to(torch.uint8), tmp_path / name / f"{index}.png")
        sides[name] = Pictures(tmp_path / name)
    reals = RealImages(images=sides["real"], size=ImageSize(16, 16))
    record = first(
        parse("swd6"), ImagesTarget(images=sides["fake"], size=ImageSize(16, 16)), reals
    ).record
    num = 1 if real_channels == fake_channels == (1,) else 3
    real, fake = (
        torch.stack([pictures[index].expand(num, -1, -1) for index in range(6)])
        for pictures in sides.values()
    )
    assert record["value"] == sliced_wasserstein_distance(real, fake, seed=0).average


def test_no_image_is_made_twice_for_the_sliced_wasserstein_distance(target, reals, monkeypatch):
    rendered = []
    render = GeneratedImages.render
    monkeypatch.setattr(
        GeneratedImages,
        "render",
        lambda s, ws, index: rendered.append(index) or render(s, ws, index),
    )
    first(parse(f"swd{NUM}"), target, reals)
    assert rendered == [0, 1]


def test_a_distance_of_a_detectors_name_is_no_detector(target, reals, monkeypatch):
    storage = []

    def spy(source, requests, **options):
        storage.append({name: request.storage for name, request in requests.items()})
        return features.extract(source, requests, **options)

    monkeypatch.setattr(measure, "extract", spy)
    protocols = [parse("fid64_full:plain"), parse("ppl2_64_wend:plain")]
    dependencies = EvaluationDependencies(
        detectors={"plain": PlainDetector()}, distances={"plain": PlainDistance()}
    )
    found = [
        result.record["features"] for result in evaluate(protocols, target, reals, dependencies)
    ]
    assert storage == [{"plain": {"moments"}}] * 2
    assert [each["weights"] for each in found] == ["plain.pt", "plain-distance.pt"]
