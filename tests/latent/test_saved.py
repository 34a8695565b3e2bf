import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from stylegan.errors import ConfigError, DataError
from stylegan.latent import saved
from stylegan.latent.render import map_latents
from stylegan.latent.saved import (
    latents_of,
    name_of,
    parse_keys,
    read_latents,
    styles_of,
    write_latents,
)
from stylegan.latent.seeds import latents_from_seeds
from stylegan.models.noise import noise_maps


@pytest.fixture
def ws(generator):
    return map_latents(generator, latents_from_seeds([1, 2], 16))


def test_what_is_written_is_read_again(generator, ws, tmp_path):
    noise = {layer: values + 1 for layer, values in noise_maps(generator).items()}
    write_latents(tmp_path / "a.npz", ws, noise=noise)
    found = read_latents(tmp_path / "a.npz", generator)
    assert torch.equal(found.ws, ws)
    assert found.noise.keys() == noise.keys()
    assert all(torch.equal(found.noise[layer], noise[layer]) for layer in noise)


def test_the_file_is_what_official_programs_read(ws, tmp_path):
    write_latents(tmp_path / "projected_w.npz", ws[:1])
    w = np.load(tmp_path / "projected_w.npz")["w"]
    assert (w.shape, w.dtype) == ((1, 8, 16), np.float32)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.float32])
def test_official_files_with_one_or_no_row_are_read(generator, ws, tmp_path, dtype):
    for name, w in (("rows.npz", ws[:1].numpy()), ("none.npz", ws[0].numpy())):
        np.savez(tmp_path / name, w=w.astype(dtype))
        found = read_latents(tmp_path / name, generator)
        assert found.ws.dtype == torch.float32
        torch.testing.assert_close(found.ws, ws[:1], atol=1e-2, rtol=1e-2)


def arrays(**content):
    def write(path):
        np.savez(path, **content)

    return write


def archive(name, data, method=zipfile.ZIP_STORED):
    def write(path):
        with zipfile.ZipFile(path, "w", method) as file:
            file.writestr(name, data)

    return write


def bomb(path):
    """A gigabyte of zeros in a megabyte."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (2**28,)}
    )
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        file.open("w.npy", "w", force_zip64=True) as member,
    ):
        member.write(header.getvalue())
        for _ in range(65):
            member.write(bytes(2**24))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_bytes(b"PK\x03\x04 and no more"), "cannot be read"),
        (lambda path: path.mkdir(), "cannot be read"),
        (arrays(z=np.zeros([1, 8, 16])), "holds z, and no w"),
        (arrays(), "holds nothing, and no w"),
        (arrays(w=np.zeros([1, 6, 16])), r"w is \[1, 6, 16\]"),
        (arrays(w=np.zeros([0, 8, 16])), r"w is \[0, 8, 16\]"),
        (arrays(w=np.zeros([8])), r"w is \[8\]"),
        (arrays(w=np.full([1, 8, 16], np.nan)), "NaN"),
        (arrays(w=np.full([1, 8, 16], 1e300)), "NaN or infinity"),
        (arrays(w=np.array(["a"])), "holds <U1 under w"),
        (arrays(w=np.array([{}], dtype=object)), "cannot be read"),
        (arrays(w=np.zeros([1, 8, 16], complex)), "holds complex128"),
        (arrays(w=np.zeros([1, 8, 16]), **{"noise.b4.conv1": np.zeros([8, 8])}), "of layer b4"),
        (arrays(w=np.zeros([1, 8, 16]), **{"noise.b2.conv1": np.zeros([4, 4])}), "of layer b2"),
        (archive("w.npy", b"no array"), "cannot be read|holds"),
        (archive("../w.npy", b""), r"holds \|S1 under"),
        (bomb, "1.0 GiB"),
    ],
)
def test_files_that_are_none_are_refused_in_a_line(generator, tmp_path, write, message):
    path = tmp_path / "a.npz"
    write(path)
    with pytest.raises(DataError, match=message) as caught:
        read_latents(path, generator)
    assert len(str(caught.value)) < 400


def test_latents_of_every_shape_and_program_give_their_ws(generator, ws, tmp_path):
    """`ws` are [2, num_ws, w_dim]; the shapes are those that encoders and projectors write."""
    one, rows = ws[:1], ws[:, 0]
    broadcast = rows[:, None].expand_as(ws)
    cases = [
        (ws, ws),
        (one, one),
        (ws[0], one),
        (rows, broadcast),
        (rows[:, None], broadcast),
        (rows[:1], broadcast[:1]),
        (rows[0], broadcast[:1]),
    ]
    for index, (given, expected) in enumerate(cases):
        np.savez(tmp_path / f"{index}.npz", w=given.numpy())
        np.savez(tmp_path / f"{index}-named.npz", latents=given.numpy())
        np.save(tmp_path / f"{index}.npy", given.numpy())
        torch.save(given, tmp_path / f"{index}.pt")
        torch.save({"latent": given}, tmp_path / f"{index}-named.pt")
        for name in (f"{index}.npz", f"{index}-named.npz", f"{index}.npy", f"{index}.pt"):
            assert torch.equal(read_latents(tmp_path / name, generator).ws, expected), name
        assert torch.equal(latents_of(given, generator).ws, expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.astype(np.float16),
        lambda w: np.asfortranarray(w.astype(np.float64)),
        lambda w: w.astype(">f4"),
        lambda w: np.repeat(w, 2, axis=1)[:, ::2],
    ],
    ids=["half", "double, by columns", "big-endian", "a view"],
)
def test_arrays_of_every_layout_are_read(generator, ws, tmp_path, change):
    np.save(tmp_path / "w.npy", change(ws.numpy()))
    found = read_latents(tmp_path / "w.npy", generator).ws
    torch.testing.assert_close(found, ws, atol=1e-2, rtol=1e-2)


def test_npy_and_npz_are_told_apart_by_content(generator, ws, tmp_path):
    with (tmp_path / "w.npy").open("wb") as file:
        np.savez_compressed(file, w=ws.numpy())
    with (tmp_path / "W.NPZ").open("wb") as file:
        np.save(file, ws.numpy())
    for name in ("w.npy", "W.NPZ"):
        assert torch.equal(read_latents(tmp_path / name, generator).ws, ws)


@pytest.mark.parametrize(
    "array", [np.array({"w": 1}), np.zeros([1, 8, 16], bool), np.array(["w"]), np.float32(3)]
)
def test_npy_files_without_latents_are_refused(generator, tmp_path, array):
    np.save(tmp_path / "w.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=r"cannot be read|holds (bool|<U1) under w|w is \[\]"):
        read_latents(tmp_path / "w.npy", generator)


def test_a_tensor_is_read_as_torch_saves_it(generator, ws, tmp_path):
    others = [ws.half(), ws.bfloat16(), torch.nn.Parameter(ws), ws.mT.contiguous().mT]
    for content in (*others, {"w": ws}, {"a.jpg": ws[0], "b.jpg": ws[1]}):
        torch.save(content, tmp_path / "w.pt")
        found = read_latents(tmp_path / "w.pt", generator).ws
        torch.testing.assert_close(found, ws, atol=1e-2, rtol=1e-2)
    torch.save(ws, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(read_latents(tmp_path / "w.pt", generator).ws, ws)


def test_a_projection_of_rosinalitys_program_is_read_with_its_noise(generator, ws, tmp_path):
    noise = [torch.randn(1, 1, *values.shape) for values in noise_maps(generator).values()]
    entry = {"img": torch.zeros(3, 8, 8), "latent": ws[0], "noise": noise}
    torch.save({"face.png": entry}, tmp_path / "face.pt")
    found = read_latents(tmp_path / "face.pt", generator)
    assert torch.equal(found.ws, ws[:1])
    for values, (layer, stored) in zip(noise, noise_maps(generator).items(), strict=True):
        assert stored.shape == found.noise[layer].shape
        assert torch.equal(found.noise[layer], values[0, 0])
    torch.save({"a.png": entry, "b.png": entry | {"latent": ws[1]}}, tmp_path / "two.pt")
    assert torch.equal(read_latents(tmp_path / "two.pt", generator).ws, ws)


@pytest.mark.parametrize(
    "shape", [[16, 8], [1, 16, 8], [2, 6, 16], [2, 15], [1, 2, 8, 16], [0, 16]]
)
def test_a_wrong_axis_is_refused_by_its_shape(generator, tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.float32))
    with pytest.raises(DataError, match=rf"w is {re.escape(str(shape))}, but this network takes"):
        read_latents(tmp_path / "a.npy", generator)


@pytest.mark.parametrize(
    "content",
    [{"w": 3}, {"a": {"latent": [1.0]}}, [torch.zeros(8, 16)], {}, {"a": torch.zeros(2), "b": 1}],
)
def test_other_contents_are_refused(generator, tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(DataError, match=r"no latents in an entry|several shapes, or none|holds a"):
        read_latents(tmp_path / "a.pt", generator)


def test_a_file_that_claims_more_than_it_holds_is_refused_before_it_is_read(generator, tmp_path):
    torch.save({"latent": torch.zeros(3)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as source:
        members = {name: source.read(name) for name in source.namelist()}
    large = b"J" + (10**9).to_bytes(4, "little")
    (pickle_name,) = [name for name in members if name.endswith("data.pkl")]
    members[pickle_name] = members[pickle_name].replace(b"K\x03", large)  # of storage and view
    with zipfile.ZipFile(tmp_path / "large.pt", "w") as target:
        for name, content in members.items():
            target.writestr(name, content)
    with pytest.raises(DataError, match="declares a storage of 1000000000 elements over 12 bytes"):
        read_latents(tmp_path / "large.pt", generator)


def test_keys_are_seeds_and_files_in_their_order():
    found = parse_keys("1-3, a/b.npz ,9,C.NPZ")
    assert found == [1, 2, 3, Path("a/b.npz"), 9, Path("C.NPZ")]
    for text in ("", "1,,2", "a.png", "1-", "x"):
        with pytest.raises(ConfigError):
            parse_keys(text)


def test_styles_of_keys_stand_in_their_order_and_files_are_not_truncated(generator, ws, tmp_path):
    write_latents(tmp_path / "a.npz", ws)
    found = styles_of(generator, [5, tmp_path / "a.npz", 6], psi=0.5, cutoff=3)
    seeds = map_latents(generator, latents_from_seeds([5, 6], 16), psi=0.5, cutoff=3)
    assert torch.equal(found, torch.cat([seeds[:1], ws, seeds[1:]]))
    assert styles_of(generator, []).shape == (0, 8, 16)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/cat.npz", "cat"),
        ("out/cat/projected_w.npz", "cat"),
        ("projected_w.npz", "projected_w"),
        ("../projected_w.npz", "projected_w"),
    ],
)
def test_a_projection_has_the_name_of_its_folder(path, expected):
    assert name_of(Path(path)) == expected


def test_a_write_that_fails_keeps_the_old_file(generator, ws, tmp_path, monkeypatch):
    write_latents(tmp_path / "a.npz", ws)
    monkeypatch.setattr(saved.np, "savez", lambda *a, **b: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_latents(tmp_path / "a.npz", ws + 1)
    assert torch.equal(read_latents(tmp_path / "a.npz", generator).ws, ws)
