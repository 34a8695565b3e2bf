import io
import json
import time
from dataclasses import replace

import pytest
import torch
from PIL import Image

import stylegan
from stylegan.errors import ConfigError, DataError
from stylegan.explorer.pictures import (
    encode,
    latents_in,
    moving_format,
    png_with_latents,
    thumbnail,
)
from stylegan.explorer.state import (
    Base,
    Edit,
    Mix,
    Noise,
    PictureState,
    Timeline,
    Walk,
    read_state,
    state_json,
)
from stylegan.explorer.uploads import receive_file
from stylegan.images import from_pil, read
from stylegan.latent.saved import read_latents

MIXED = PictureState(
    base=Base(seed=3),
    walk=Walk(x=0.5, y=-0.25),
    psi=0.7,
    mixes=(Mix(base=Base(seed=8), amounts=(0.0, 1.0, 0.5)),),
    edits=(Edit(directions="pca", index=1, strength=2.0, layers=(0, 2)),),
)


def pixels(session, **changes):
    return session.picture(PictureState(**changes)).pixels


@pytest.mark.parametrize("family", ["stylegan2", "stylegan", "progan", "conditional", "alpha"])
def test_the_picture_of_a_seed_is_that_of_generate_images(make_session, family):
    session = make_session(family)
    psi = 1.0 if family == "progan" else 0.6
    options = {"class_index": 2} if family == "conditional" else {}
    expected = stylegan.generate.images(session.generator, [5], psi=psi, **options)[0]
    assert torch.equal(pixels(session, base=Base(seed=5), psi=psi, **options), expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"base": Base(seed=2)},
        {"walk": Walk(x=0.1)},
        {"walk": Walk(space="z", y=0.5)},
        {"psi": 0.5},
        {"noise": Noise(mode="none")},
        {"noise": Noise(mode="random", seed=1)},
        {"noise": Noise(strength=2.0)},
        {"mixes": (Mix(base=Base(seed=8), amounts=(0, 1)),)},
        {"edits": (Edit(directions="factorize", index=0, strength=3.0),)},
    ],
    ids=str,
)
def test_each_control_changes_the_picture_and_only_its_own(session, changes):
    first = {"base": Base(seed=1)}
    before = pixels(session, **first)
    changed = pixels(session, **(first | changes))
    assert not torch.equal(changed, before)
    assert torch.equal(pixels(session, **(first | changes)), changed)
    assert torch.equal(pixels(session, **first), before)


def test_walks_that_stand_still_and_amounts_of_zero_change_nothing(session):
    before = pixels(session)
    idle = PictureState(
        walk=Walk(space="z", plane=9),
        mixes=(Mix(base=Base(seed=8), amounts=(0.0, 0.0)),),
        edits=(Edit(directions="pca", index=0, strength=0.0),),
    )
    assert torch.equal(session.picture(idle).pixels, before)


def test_a_mix_of_all_layers_is_the_other_picture(session):
    mix = Mix(base=Base(seed=8), amounts=(1.0,) * session.generator.num_ws)
    assert torch.equal(pixels(session, mixes=(mix,)), pixels(session, base=Base(seed=8)))


def test_psi_zero_gives_the_same_picture_for_all_seeds(session):
    assert torch.equal(pixels(session, psi=0.0), pixels(session, psi=0.0, base=Base(seed=4)))


def test_the_level_of_detail_of_a_growing_network_can_be_changed(make_session):
    session = make_session("stylegan")
    assert pixels(session, lod=1.0).shape == (3, 8, 8)
    assert pixels(session).shape == (3, 16, 16)
    with pytest.raises(ConfigError, match="lod must be at most 2"):
        pixels(session, lod=3.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_index": 0}, "class must be below 0"),
        ({"cutoff": 60}, "cutoff must be at most 6"),
        ({"lod": 1.0}, "lod must be at most 0"),
        ({"base": Base(saved="0" * 16)}, "no saved latents"),
        ({"edits": (Edit(directions="pca", index=99, strength=1.0),)}, "has 12 directions"),
        ({"edits": (Edit(directions="x", index=0, strength=1.0),)}, "no directions 'x'"),
        ({"mixes": (Mix(base=Base(), amounts=(0.0,) * 60),)}, "at most 6 amounts"),
    ],
    ids=str,
)
def test_what_the_network_lacks_is_refused(session, changes, message):
    with pytest.raises(ConfigError, match=message):
        pixels(session, **changes)


def test_a_network_without_styles_cannot_be_factorized_and_has_no_mean(make_session):
    session = make_session("progan")
    with pytest.raises(ConfigError, match="cannot be factorized"):
        session.directions("factorize")
    with pytest.raises(ConfigError, match="psi must be 1"):
        pixels(session, psi=0.5)


def test_a_slow_network_gets_smaller_previews(session, monkeypatch):
    assert not session.picture(PictureState(), allows_preview=True).is_preview  # fast, as measured
    session._full_seconds = 0.2
    preview = session.picture(PictureState(), allows_preview=True)
    assert preview.is_preview
    assert preview.pixels.shape == (3, 8, 8)
    full = session.picture(PictureState())
    assert full.pixels.shape == (3, 16, 16)
    assert not full.is_preview


def test_directions_are_those_of_the_command(session, tmp_path):
    found = stylegan.directions.find(session.generator, method="pca", count=12).directions
    assert torch.equal(session.directions("pca").vectors, found.vectors)


def test_the_ends_of_a_slider_are_pictures_of_its_strongest_edits(session):
    moved = replace(MIXED.edits[0], strength=1.0)
    ends = session.ends(replace(MIXED, edits=(moved,)), "pca", 1, strength=2.0)
    assert ends.shape == (3, 16, 32)
    assert torch.equal(ends[:, :, 16:], session.picture(MIXED).pixels)
    lower = replace(MIXED, edits=(replace(moved, strength=-2.0),))
    assert torch.equal(ends[:, :, :16], session.picture(lower).pixels)


def test_a_direction_between_groups_leads_from_one_to_the_other(session):
    names = [session.baked(PictureState(base=Base(seed=seed)))[1].base.saved for seed in range(4)]
    between = session.direction_between(names[:2], names[2:], name="mine")
    ws = [session.latents(PictureState(base=Base(seed=seed))).ws[0, 0] for seed in range(4)]
    expected = (ws[2] + ws[3] - ws[0] - ws[1]) / 2
    vector = session.directions(between).vectors[0]
    torch.testing.assert_close(vector, expected / expected.norm(), atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigError, match="at least one picture"):
        session.direction_between([], names, name="mine")


@pytest.mark.parametrize(
    "noise", [Noise(), Noise(mode="none"), Noise(mode="random", seed=3), Noise(strength=0.5)]
)
def test_baked_latents_show_the_same_picture_also_in_another_session(make_session, noise):
    state = replace(MIXED, noise=noise)
    expected = make_session().picture(state).pixels
    _, shown = make_session().baked(state)
    assert shown.psi == 1
    assert torch.equal(make_session().picture(shown).pixels, expected)


def test_favourites_are_kept_on_disk_as_latents_of_other_commands(make_session):
    session = make_session()
    _, shown = session.baked(MIXED)
    name = shown.base.saved
    session.gallery.add(name, session.thumbnail(MIXED), state_json(MIXED))
    other = make_session()
    assert [(each.id, each.state) for each in other.gallery.favourites()] == [
        (name, json.loads(json.dumps(state_json(MIXED))))
    ]
    path = session.gallery.path(name, ".npz")
    saved = read_latents(path, session.generator)
    assert torch.equal(saved.ws, session.latents(MIXED).ws)
    generated = stylegan.generate.images(session.generator, path)[0]
    assert torch.equal(generated, session.picture(MIXED).pixels)
    other.gallery.remove(name)
    assert session.gallery.favourites() == []
    assert torch.equal(session.picture(shown).pixels, generated)  # links to it still work


def test_a_png_with_latents_restores_the_picture(make_session):
    state = replace(MIXED, noise=Noise(mode="random", seed=3))
    session = make_session()
    picture = session.picture(state).pixels
    latents, shown = session.baked(state)
    png = png_with_latents(picture, latents, state_json(shown))
    with Image.open(io.BytesIO(png)) as image:
        assert torch.equal(from_pil(image), picture)
        assert latents_in(image, session.generator) is not None
    fresh = make_session(folder="other")
    received = receive_file(fresh, png)
    assert received["kind"] == "latents"
    assert torch.equal(fresh.picture(read_state(received["state"])).pixels, picture)


def test_files_of_latents_and_directions_are_received(make_session, tmp_path):
    session = make_session()
    images = stylegan.directions.apply(
        session.generator,
        stylegan.directions.find(session.generator, out=tmp_path / "d.safetensors").directions,
        [1],
        {"factorize-0": 1.0},
        out=tmp_path,
    )
    received = receive_file(session, (tmp_path / "seed0001.npz").read_bytes())
    assert torch.equal(session.picture(read_state(received["state"])).pixels, images[0])
    received = receive_file(session, (tmp_path / "d.safetensors").read_bytes())
    assert session.directions(received["directions"]).names[0] == "factorize-0"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (b"PK\x03\x04 but no zip", "cannot be read"),
        (b"\x93NUMPY\x01\x00", "cannot be read"),
        (b"\x40\0\0\0\0\0\0\0" + b'{"__metadata__":{}}', "holds no directions"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "damaged|not an image"),
    ],
    ids=["empty", "svg", "zip", "npy", "safetensors", "png"],
)
def test_files_that_are_damaged_are_refused_in_one_line(session, content, message):
    with pytest.raises((DataError, ConfigError), match=message) as error:
        receive_file(session, content)
    assert "/tmp" not in str(error.value)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(session):
    buffer = io.BytesIO()
    Image.new("1", (8000, 8000)).save(buffer, format="png")
    start = time.perf_counter()
    with pytest.raises(DataError, match="40 million"):
        receive_file(session, buffer.getvalue())
    assert time.perf_counter() - start < 0.5


def test_thumbnails_are_means_of_pixels():
    image = torch.arange(0, 64, dtype=torch.uint8).view(1, 8, 8)
    assert torch.equal(thumbnail(image, 8), image)
    assert thumbnail(image, 4).shape == (1, 4, 4)
    assert thumbnail(image, 4)[0, 0, 0] == round((0 + 1 + 8 + 9) / 4)


KEYS = (PictureState(base=Base(seed=1)), PictureState(base=Base(seed=2), psi=0.5), MIXED)


def test_the_keys_of_a_timeline_are_frames_and_the_path_is_that_of_the_video(session):
    timeline = Timeline(keys=KEYS, frames_per_key=3)
    assert timeline.num_frames == 9
    for index, key in enumerate(KEYS):
        assert torch.equal(session.frame(timeline, 3 * index), session.picture(key).pixels)
    open_end = replace(timeline, is_loop=False)
    assert open_end.num_frames == 7
    assert torch.equal(session.frame(open_end, 6), session.picture(MIXED).pixels)
    with pytest.raises(ConfigError, match="has 7 frames"):
        session.frame(open_end, 7)


def test_a_timeline_is_written_as_frames_and_in_steps(session, tmp_path):
    timeline = Timeline(keys=KEYS, frames_per_key=2, easing="in-out")
    assert list(session.video(timeline, tmp_path / "frames", fps=10)) == [1, 2, 3, 4, 5, 6]
    frames = sorted((tmp_path / "frames").iterdir())
    assert len(frames) == 6
    assert torch.equal(read(frames[3]), session.frame(timeline, 3))
    assert list(session.video(timeline, tmp_path / "a.gif", fps=10))[-1] == 6
    with Image.open(tmp_path / "a.gif") as video:
        assert video.n_frames == 6


def test_transparent_pictures_keep_their_alpha_also_while_they_move(make_session):
    picture = make_session("alpha").picture(PictureState()).pixels
    form = moving_format(picture)
    with Image.open(io.BytesIO(encode(picture, form))) as image:
        assert (form, image.format, image.mode) == ("webp", "WEBP", "RGBA")
