"""A generator is read beside objects of unknown classes, which are neither made nor called."""

import collections
import functools
import io
import logging
import os
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from interop_files import persistent

from stylegan.errors import WeightsError
from stylegan.interop.load import load, load_networks
from stylegan.interop.restricted import Budget, Machine, Placeholder
from stylegan.models.stylegan2 import (
    Discriminator,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
)

SIZES = {"resolution": 8, "channel_base": 32, "channel_max": 4}


def generator() -> Generator:
    return Generator(GeneratorConfig(**SIZES, z_dim=4, w_dim=4, mapping_layers=2))


def module(network) -> object:
    return persistent(type(network).__name__, network.state_dict())


@pytest.fixture
def unknown(monkeypatch):
    """Return a function that makes a class of another program, whose use would be noticed."""

    def make(name: str, base: type = torch.nn.Module) -> type:
        place, _, last = name.rpartition(".")

        def refuse(*_: object) -> None:
            raise AssertionError("nothing from a file may run")

        namespace = {"__module__": place, "__qualname__": last, "__setstate__": refuse}
        made = type(last, (base,), namespace)
        parts = place.split(".")
        for end in range(1, len(parts) + 1):
            inner = ".".join(parts[:end])
            if inner not in sys.modules:
                monkeypatch.setitem(sys.modules, inner, types.ModuleType(inner))
        monkeypatch.setattr(sys.modules[place], last, made, raising=False)
        return made

    return make


def projected_discriminator(unknown) -> torch.nn.Module:
    """Make a discriminator like that of Projected GANs: features of timm, and MiDaS's blocks."""
    features = unknown("timm.models.efficientnet.EfficientNet")()
    features.conv = torch.nn.Conv2d(3, 4, 3)
    features.make_layer = functools.partial(torch.nn.BatchNorm2d, momentum=0.1)
    features.interpolate = torch.nn.functional.interpolate
    features.sizes = collections.defaultdict(list, a=[1])
    features.kind = torch.float16
    features.names = collections.deque(["a"])
    features.table = {None: 1, 0.5: 2, (1, "a"): 3}
    network = unknown("pg_modules.discriminator.ProjectedDiscriminator")()
    network.feature_network = features
    network.settings = unknown("easydict.EasyDict", dict)(a=1, b=unknown("other.Items", list)([1]))
    return network


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_the_generator_beside_a_projected_discriminator_is_read(
    write_pickle, unknown, caplog, protocol
):
    average = generator()
    root = {
        "G": module(generator()),
        "D": projected_discriminator(unknown),
        "G_ema": module(average),
        "augment_pipe": unknown("training.diffusion.Diffusion")(),
        "training_set_kwargs": {"path": "x", "kind": unknown("training.data.Options", object)()},
    }
    path = write_pickle(root, protocol=protocol)
    with caplog.at_level(logging.INFO):
        networks = load_networks(path)
    assert networks.discriminator is None
    found = networks.generator_ema.state_dict()
    assert all(torch.equal(value, found[key]) for key, value in average.state_dict().items())
    (line,) = caplog.messages
    assert line == (
        f"{path}: left out parts of other classes: D (pg_modules.discriminator."
        "ProjectedDiscriminator), augment_pipe (training.diffusion.Diffusion)"
    )
    assert torch.equal(load(path)(torch.ones(1, 4)), average(torch.ones(1, 4)))


def test_a_discriminator_with_an_unknown_part_is_left_out(write_pickle, unknown, caplog):
    critic = persistent("Discriminator", {"b4.out.weight": torch.ones(1)})
    features = unknown("clip.model.CLIP")()
    critic.meta["state"]["_modules"]["features"] = features
    second = persistent("Discriminator", {"x.weight": torch.ones(1)})
    path = write_pickle({"D": critic, "D_aug": second, "G_ema": module(generator())})
    with caplog.at_level(logging.INFO):
        networks = load_networks(path)
    assert networks.generator_ema is not None
    assert networks.discriminator is None
    assert "other classes: D (clip.model.CLIP), D_aug (Discriminator)" in caplog.text


def test_an_official_looking_discriminator_of_another_class_is_left_out(write_pickle, caplog):
    critic = persistent("MultiDiscriminator", {"main.0.weight": torch.ones(2)})
    path = write_pickle({"D": critic, "G": module(generator())})
    with caplog.at_level(logging.INFO):
        networks = load_networks(path)
    assert networks.generator is not None
    assert networks.discriminator is None
    assert "(D): left out, as 'MultiDiscriminator' is not StyleGAN2's" in caplog.text


def test_a_damaged_discriminator_beside_a_generator_is_refused(write_pickle):
    critic = Discriminator(DiscriminatorConfig(**SIZES))
    tensors = dict(critic.state_dict())
    del tensors["b8.conv0.bias"]
    path = write_pickle({"D": persistent("Discriminator", tensors), "G": module(generator())})
    with pytest.raises(WeightsError, match="lacks b8"):
        load_networks(path)


def test_an_average_of_an_unknown_class_is_left_out(write_pickle, unknown, caplog):
    path = write_pickle({"G": module(generator()), "G_ema": unknown("ema_pytorch.EMA")()})
    with caplog.at_level(logging.INFO):
        assert load(path).z_dim == 4
    assert "left out parts of other classes: G_ema (ema_pytorch.EMA)" in caplog.text


def test_a_file_without_a_generator_that_we_know_is_refused_by_name(write_pickle, unknown):
    network = persistent("Generator", {})
    network.meta["state"]["_modules"]["mapping"] = unknown("stylegan_xl.Mapping")()
    for root, name in (
        ({"G_ema": unknown("alias_free.Generator")()}, "G_ema (alias_free.Generator)"),
        ({"G_ema": network}, "G_ema (stylegan_xl.Mapping)"),
    ):
        with pytest.raises(WeightsError) as caught:
            load(write_pickle(root))
        assert name in str(caught.value)
        assert str(caught.value).isprintable()


class Call:
    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("true",), "posix.system"),
        (subprocess.Popen, (["true"],), "subprocess.Popen"),
        (getattr, (1, "real"), "builtins.getattr"),
        (__import__, ("os",), "builtins.__import__"),
        (functools.reduce, (max, [1]), "_functools.reduce"),
        (torch.hub.load, ("a", "b"), "torch.hub.load"),
        (np.load, ("file",), "numpy.load"),
        (types.FunctionType, (), "builtins.function"),
    ],
)
def test_hostile_calls_are_refused_inside_unknown_objects(
    write_pickle, unknown, function, arguments, name, monkeypatch
):
    if function is types.FunctionType:
        monkeypatch.setattr("builtins.function", types.FunctionType, raising=False)
    network = unknown("pg_modules.discriminator.ProjectedDiscriminator")()
    network.inner = [{"a": Call(function, *arguments)}]
    path = write_pickle({"G_ema": module(generator()), "D": network})
    with pytest.raises(WeightsError, match=f"refers to '{name}', which no supported file needs"):
        load_networks(path)


def read(body: bytes, *, keeps_unknown: bool = True) -> object:
    machine = Machine("x", {}, budget=Budget(1000, "x"), keeps_unknown=keeps_unknown)
    return machine.run(io.BytesIO(b"\x80\x04" + body + b"."))


def test_a_placeholder_records_name_arguments_and_state():
    class_ = b"ca.b\nC\n"
    assert isinstance(read(class_), Placeholder)
    found = read(class_ + b"K\x05\x85R}\x8c\x01xK\x07sb")
    assert (found.name, found.arguments, found.state) == ("a.b.C", (5,), {"x": 7})
    assert read(class_ + b")\x81").arguments == ()  # NEWOBJ
    assert read(class_ + b")}\x92").arguments == [(), {}]  # NEWOBJ_EX
    filled = read(class_ + b")R(K\x01K\x02e(K\x01K\x02u(K\x01\x90")  # APPENDS, SETITEMS, ADDITEMS
    assert (filled.name, filled.arguments) == ("a.b.C", ())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"ca.b\nload\n)R", "refers to 'a.b.load'"),
        (b"ca.b\nC\n)R)R", "a call of an object"),
        (b"ca\nb c\n", "refers to 'a.b c'"),
        (b"ca.b\nC\n)RK\x01R", "damaged"),
        (b"]}b", "takes no state"),
        (b"c__main__\nC\n)RR", "damaged"),
    ],
)
def test_what_is_no_object_of_a_class_is_refused(body, message):
    with pytest.raises(WeightsError, match=message):
        read(body)


def test_unknown_names_are_refused_unless_they_are_wanted():
    with pytest.raises(WeightsError, match=r"refers to 'a\.b\.C'"):
        read(b"ca.b\nC\n", keeps_unknown=False)


def test_a_shared_module_is_searched_once(write_pickle, unknown):
    node = persistent("Layer", {})
    for _ in range(60):  # 2**60 paths
        outer = persistent("Layer", {})
        outer.meta["state"]["_modules"] = {"a": node, "b": node}
        node = outer
    path = write_pickle({"D": unknown("a.B")(), "D2": node, "G_ema": module(generator())})
    assert load_networks(path).generator_ema is not None


def test_a_deep_chain_of_modules_is_no_recursion(tmp_path):
    # nested calls of _reconstruct_persistent_obj, which pickle itself could not write
    text = lambda word: b"\x8c" + bytes([len(word)]) + word.encode()  # noqa: E731
    start = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n}("
    start += text("type") + text("class") + text("class_name") + text("Layer")
    start += text("state") + b"}" + text("_modules") + b"}" + text("a")
    depth = 5000
    end = b"ssu\x85R"  # a into _modules, _modules into the state, the three items, the call
    body = b"}" + text("G_ema") + start * depth + b"N" + end * depth + b"s."
    path = tmp_path / "deep.pkl"
    path.write_bytes(b"\x80\x04" + body)
    with pytest.raises(WeightsError, match="twice or too deep"):
        load_networks(path)
