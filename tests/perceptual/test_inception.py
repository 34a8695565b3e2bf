import pytest
import torch
import torch.nn.functional as F

import made_up
from stylegan.errors import WeightsError
from stylegan.perceptual.inception import InceptionV3, resize_like_tensorflow1


@pytest.fixture(scope="module")
def network():
    return InceptionV3(made_up.inception_v3())


def test_the_resize_takes_pixels_at_multiples_of_the_ratio():
    ramp = torch.arange(8, dtype=torch.uint8).view(1, 1, 1, 8).expand(1, 1, 8, 8)
    smaller = resize_like_tensorflow1(ramp, 4)
    assert smaller[0, 0, 0].tolist() == [0, 2, 4, 6]  # neither 0.5, 2.5, ... nor averages
    larger = resize_like_tensorflow1(ramp, 16)
    assert larger[0, 0, 0].tolist() == [min(i / 2, 7) for i in range(16)]  # the edge repeats
    assert torch.equal(larger.mT, resize_like_tensorflow1(ramp.mT, 16))
    assert larger.dtype == torch.float32


def test_the_resize_of_the_size_itself_changes_nothing():
    images = torch.randint(0, 256, [2, 3, 299, 299], dtype=torch.uint8)
    assert torch.equal(resize_like_tensorflow1(images, 299), images.float())


def test_images_of_any_shape_come_to_the_networks_size_and_range(network):
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 5, 700)
    prepared = network.prepare(images)
    assert prepared.shape == (2, 3, 299, 299)
    assert prepared[0].unique().tolist() == [-1.0]
    assert prepared[1].unique().tolist() == [127 / 128]


def test_grey_images_are_repeated_and_others_refused(network):
    grey = torch.randint(0, 256, [1, 1, 20, 20], dtype=torch.uint8)
    assert torch.equal(network.prepare(grey), network.prepare(grey.repeat(1, 3, 1, 1)))
    with pytest.raises(ValueError, match="1 or 3"):
        network.prepare(grey.repeat(1, 2, 1, 1))
    with pytest.raises(ValueError, match="uint8"):
        network.prepare(grey.float())


@pytest.mark.slow
def test_features_of_an_image_do_not_depend_on_its_neighbours(network):
    images = torch.randint(0, 256, [10, 3, 16, 16], dtype=torch.uint8)  # more than one part
    prepared = network.prepare(images)
    features = network(prepared)
    assert features.shape == (10, network.num_features)
    # Kernels differ with the batch, and so does the last digit.
    torch.testing.assert_close(features[9:], network(prepared[9:]), rtol=1e-4, atol=1e-5)
    assert not features.requires_grad
    assert network(prepared[:0]).shape == (0, 2048)


def test_probabilities_leave_the_last_bias_out(network):
    features = torch.zeros(1, 2048)
    probabilities = network.probabilities(features)
    torch.testing.assert_close(probabilities, torch.full([1, 1008], 1 / 1008))
    torch.testing.assert_close(
        network.logits(features, bias=True), F.linear(features, network.fc.weight, network.fc.bias)
    )


def test_a_file_that_lacks_a_layer_is_refused():
    state = made_up.inception_v3()
    del state["Mixed_7c.branch1x1.bn.weight"]
    with pytest.raises(WeightsError, match=r"do not fit InceptionV3 .*Mixed_7c\.branch1x1"):
        InceptionV3(state)
