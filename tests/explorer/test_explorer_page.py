"""The page in a real browser: each control, links, undo, and that no request leaves."""

import contextlib
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import av
import pytest
import torch
import uvicorn

from stylegan.explorer.gallery import Gallery
from stylegan.explorer.server import Explorer, guarded, listen
from stylegan.explorer.session import Session
from stylegan.explorer.state import read_state
from stylegan.images import read
from stylegan.interop.load import load

CHROMIUM = Path("/usr/bin/chromium")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = [
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no browser {CHROMIUM}"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of the browser's pipes at exit
]


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def new_session(tiny_network, tmp_path_factory):
    """Return a function that makes a session; all have one gallery."""
    folder = tmp_path_factory.mktemp("explorer") / "gallery"

    def make():
        generator = load(tiny_network)
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):  # zero at first, so noise has no effect
                parameter.data.fill_(0.5)
        return Session(generator, Gallery(folder), name="tiny")

    return make


@pytest.fixture(scope="module")
def own_session(new_session):
    """The session of the tests. That of the server is used by the server's thread only."""
    return new_session()


@pytest.fixture(scope="module")
def link(new_session):
    """The link of a running server."""
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    app = guarded(Explorer(new_session()), host="127.0.0.1", port=port, token=None)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="error", ws="websockets-sansio", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture
def page(browser, link):
    """An open page; at its end there were no errors and no requests to elsewhere."""
    with opened(browser, link) as page:
        yield page


@contextlib.contextmanager
def opened(browser, link, **options):
    context = browser.new_context(**({"viewport": {"width": 1200, "height": 800}} | options))
    page = context.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: message.type == "error" and problems.append(message.text))
    own = link.partition("?")[0].partition("#")[0]
    page.on(
        "request",
        lambda request: request.url.startswith((own, "blob:")) or problems.append(request.url),
    )
    page.goto(link)
    await_picture(page)
    page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    yield page
    context.close()
    assert problems == []


def await_picture(page):
    page.wait_for_selector("#picture[aria-busy=false]", timeout=10_000)


def drawn(page):
    """Return the pixels of the canvas, uint8 [3, H, W]."""
    await_picture(page)
    size, values = page.evaluate(
        """() => {
            const canvas = document.getElementById("picture");
            const context = canvas.getContext("2d");
            const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
            return [canvas.width, [...data]];
        }"""
    )
    return torch.tensor(values, dtype=torch.uint8).view(size, size, 4).permute(2, 0, 1)[:3]


def state_of(page):
    return json.loads(page.evaluate("JSON.stringify(window.explorer.store.state)"))


def expected(session, page):
    """Return the picture that the session computes for the state of the page."""
    state = state_of(page)
    del state["timeline"]
    return session.picture(read_state(state)).pixels


def test_a_seed_is_drawn_exactly_and_a_link_reopens_it(page, browser, link, own_session):
    before = drawn(page)
    page.get_by_label("next seed").click()
    assert state_of(page)["base"]["seed"] == 1
    after = drawn(page)
    assert not torch.equal(after, before)
    assert torch.equal(after, expected(own_session, page))
    with opened(browser, page.url) as other:
        assert torch.equal(drawn(other), after)
    page.get_by_label("Undo (Ctrl+Z)").click()
    assert torch.equal(drawn(page), before)
    page.keyboard.press("Control+Shift+Z")
    assert torch.equal(drawn(page), after)


CONTROLS = {
    "psi": lambda page: page.get_by_label("Psi", exact=True).fill("0.5"),
    "cutoff": lambda page: (
        page.get_by_label("Psi, number").fill("0.3"),
        page.get_by_label("Psi, number").press("Enter"),
        page.get_by_label("Truncated layers", exact=True).fill("2"),
    ),
    "noise": lambda page: page.get_by_role("button", name="None").click(),
    "redraw": lambda page: page.get_by_role("button", name="Draw again").click(),
    "strength": lambda page: page.get_by_label("Strength", exact=True).fill("3"),
    "pad": lambda page: page.get_by_role("slider", name="Walk in a plane").press("ArrowRight"),
    "typed seed": lambda page: (
        page.get_by_label("Seed", exact=True).fill("77"),
        page.get_by_label("Seed", exact=True).press("Enter"),
    ),
    "random": lambda page: page.keyboard.press("r"),
    "mix": lambda page: page.get_by_role("button", name="Add a latent").click(),
    "mix of a layer": lambda page: (
        page.get_by_role("button", name="Add a latent").click(),
        page.get_by_label("latent 2, layer 0").fill("0.5"),
    ),
    "direction": lambda page: page.get_by_label("factorize-0", exact=True).fill("3"),
    "direction in a layer": lambda page: (
        page.get_by_label("layers of factorize-1", exact=True).select_option("layer 2"),
        page.get_by_label("factorize-1 3", exact=True).click(),
    ),
    "principal component": lambda page: (
        page.get_by_label("Set", exact=True).select_option("pca"),
        page.get_by_label("pca-0", exact=True).fill("-3"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("control", CONTROLS)
def test_each_control_changes_the_canvas_to_the_session_s_picture(page, control, own_session):
    page.keyboard.press("n")
    before = drawn(page)
    CONTROLS[control](page)
    await_change(page, before)
    assert torch.equal(drawn(page), expected(own_session, page))
    while page.get_by_label("Undo (Ctrl+Z)").is_enabled():
        page.get_by_label("Undo (Ctrl+Z)").click()
    assert state_of(page)["base"]["seed"] == 0


def await_change(page, before):
    for _ in range(50):
        if not torch.equal(drawn(page), before):
            return
        page.wait_for_timeout(50)
    raise AssertionError("the canvas has not changed")


@pytest.mark.slow
def test_the_ends_of_sliders_are_shown_as_thumbnails(page, own_session):
    ends = page.locator(".end.upper").nth(11)
    for _ in range(100):
        if "blob:" in (ends.get_attribute("style") or ""):
            break
        page.wait_for_timeout(50)
    assert "blob:" in ends.get_attribute("style")


@pytest.mark.slow
@pytest.mark.parametrize("target", ["#picture", ".pad"])
def test_dragging_walks_and_is_one_step_of_undo(page, target, own_session):
    before = drawn(page)
    box = page.locator(target).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(1, 20):
        page.mouse.move(x + 3 * step, y + step)
    page.mouse.up()
    await_change(page, before)
    assert torch.equal(drawn(page), expected(own_session, page))
    walk = state_of(page)["walk"]
    assert walk["x"] > walk["y"] > 0
    page.keyboard.press("Control+z")
    assert torch.equal(drawn(page), before)


@pytest.mark.slow
def test_many_events_end_with_the_last_state(page, own_session):
    page.evaluate(
        """async () => {
            const slider = document.querySelector("[data-control=Psi]");
            for (let step = 0; step < 500; step++) {
                slider.value = -1 + (3 * step) / 500;
                slider.dispatchEvent(new Event("input"));
                if (step % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
            }
            slider.dispatchEvent(new Event("change"));
        }"""
    )
    page.wait_for_timeout(300)
    assert state_of(page)["psi"] == pytest.approx(1.99)
    assert torch.equal(drawn(page), expected(own_session, page))
    assert page.locator("#message").is_hidden()


@pytest.mark.slow
def test_the_page_fits_a_phone_and_works_with_reduced_motion(browser, link):
    options = {"viewport": {"width": 360, "height": 740}, "reduced_motion": "reduce"}
    for scheme in ("dark", "light"):
        with opened(browser, link, color_scheme=scheme, **options) as page:
            assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.slow
def test_every_control_has_a_name_and_is_reached_by_tab(page):
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, [tabindex]")]
            .filter((each) => !each.getAttribute("aria-label") && !each.labels?.length)
            .filter((each) => !each.hidden && !each.textContent.trim())
            .map((each) => each.outerHTML)"""
    )
    assert unnamed == []
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.outerHTML"))
    assert any('data-control="Strength"' in each for each in reached)
    assert any('class="pad"' in each for each in reached)


@pytest.mark.slow
def test_errors_are_shown_in_one_line_and_the_page_goes_on(page, browser, link):
    page.evaluate("window.explorer.store.change({ base: { seed: 0, saved: '0'.repeat(16) } })")
    page.wait_for_selector("#message:not([hidden])")
    assert "no saved latents" in page.locator("#message").inner_text()
    page.keyboard.press("r")
    await_picture(page)
    assert page.locator("#message").is_hidden()


@pytest.mark.slow
def test_the_command_serves_the_page_until_it_is_interrupted(browser, tiny_network, tmp_path):
    words = ["explore", "--network", str(tiny_network), "--port", "0", "--no-browser"]
    words += ["--gallery", str(tmp_path), "--token", "correct-horse", "--host", "localhost"]
    process = subprocess.Popen(
        [sys.executable, "-m", "stylegan", *words], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        link = re.search(r"http://\S+", process.stdout.readline())[0]
        with opened(browser, link) as page:
            assert drawn(page).shape == (3, 32, 32)
            assert "token" not in page.url
    finally:
        process.terminate()
        process.communicate()


@pytest.mark.slow
def test_favourites_come_back_and_lead_to_a_direction(page, own_session):
    pictures = []
    for key in "nnn":
        page.keyboard.press(key)
        pictures.append(drawn(page))
        page.get_by_label("Keep this picture").click()
        page.locator(".thumbnail img").nth(len(pictures) - 1).wait_for()
    page.locator(".thumbnail > button").nth(0).click()
    assert torch.equal(drawn(page), pictures[0])
    page.get_by_label("group of a direction").nth(0).click()
    for _ in range(2):
        page.get_by_label("group of a direction").nth(1).click()
    page.get_by_role("button", name="make a direction").click()
    page.get_by_label("A-to-B", exact=True).fill("2")
    await_change(page, pictures[0])
    assert torch.equal(drawn(page), expected(own_session, page))
    page.get_by_label("remove", exact=True).nth(2).click()
    page.get_by_role("button", name="Put it back").click()
    page.locator(".thumbnail img").nth(2).wait_for()
    for favourite in own_session.gallery.favourites():
        own_session.gallery.remove(favourite.id)


@pytest.mark.slow
def test_a_saved_picture_is_restored_when_it_is_opened_or_dropped(page, tmp_path):
    page.keyboard.press("r")
    before = drawn(page)
    with page.expect_download() as download:
        page.keyboard.press("s")
    path = tmp_path / "saved.png"
    download.value.save_as(path)
    assert torch.equal(read(path), before)
    page.keyboard.press("n")
    await_change(page, before)
    page.set_input_files("#file", path)
    await_saved(page)
    assert torch.equal(drawn(page), before)
    page.keyboard.press("n")
    await_change(page, before)
    page.evaluate(
        """async (content) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(content)], "any name.txt"));
            dispatchEvent(new DragEvent("drop", { dataTransfer: data, cancelable: true }));
        }""",
        list(path.read_bytes()),
    )
    await_saved(page)
    assert torch.equal(drawn(page), before)


def await_saved(page):
    for _ in range(100):
        if state_of(page)["base"]["saved"]:
            return
        page.wait_for_timeout(50)
    raise AssertionError("no saved latents are shown")


@pytest.mark.slow
def test_keyframes_play_and_are_exported_as_a_video(page, tmp_path):
    for _ in range(2):
        page.keyboard.press("n")
        page.get_by_label("Add this picture to the timeline").click()
    page.get_by_label("Seconds per key, number").fill("0.4")
    page.get_by_label("Seconds per key, number").press("Enter")
    before = drawn(page)
    page.get_by_role("button", name="Play").click()
    await_change(page, before)
    page.get_by_role("button", name="Stop").click()
    await_picture(page)
    for suffix in ("gif", "mp4"):
        page.get_by_label("format").select_option(suffix)
        with page.expect_download() as download:
            page.get_by_role("button", name="Export").click()
        path = tmp_path / f"video.{suffix}"
        download.value.save_as(path)
        with av.open(path) as video:
            assert sum(1 for _ in video.decode(video=0)) == 20
    page.get_by_role("button", name="remove key 1").click()
    page.keyboard.press("Control+z")
    assert len(state_of(page)["timeline"]["keys"]) == 2


@pytest.mark.slow
def test_an_arrow_on_the_picture_drags_it_and_is_undone(page, own_session):
    before = drawn(page)
    page.get_by_role("button", name="Points", exact=True).click()
    box = page.locator("#picture").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.5)
    page.mouse.up()
    assert state_of(page)["walk"]["x"] == 0  # drawing does not walk
    assert page.get_by_label("handle 1, x").input_value() == "12"
    page.get_by_role("button", name="Drag", exact=True).click()
    page.wait_for_timeout(1000)
    page.get_by_role("button", name="Stop").click()
    await_saved(page)
    assert not torch.equal(drawn(page), before)
    assert torch.equal(drawn(page), expected(own_session, page))
    page.keyboard.press("Control+z")
    assert torch.equal(drawn(page), before)
