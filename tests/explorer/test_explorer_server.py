import io
import itertools
import json
import socket

import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from stylegan.errors import ConfigError
from stylegan.explorer import actions, server
from stylegan.explorer.server import Explorer, guarded, listen
from stylegan.explorer.state import Base, PictureState
from stylegan.images import from_pil
from stylegan.workflows.explore import explore

LOCAL = "http://127.0.0.1:8765"
SOCKET = "ws://127.0.0.1:8765/socket"


@pytest.fixture
def client(session):
    with TestClient(application(session), base_url=LOCAL) as client:
        yield client


def application(session, host="127.0.0.1", token=None):
    return guarded(Explorer(session), host=host, port=8765, token=token)


def ask(socket, action, number=1, **parameters):
    socket.send_text(json.dumps({"id": number, "action": action, "parameters": parameters}))
    return answer(socket)


def answer(socket):
    data = socket.receive_bytes()
    length = int.from_bytes(data[:4], "little")
    return json.loads(data[4 : 4 + length]), data[4 + length :]


def decoded(data):
    with Image.open(io.BytesIO(data)) as image:
        return from_pil(image)


def test_the_page_and_its_files_are_served_and_nothing_else(client):
    page = client.get("/")
    assert "static/main.js" in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert client.get("/static/main.js").headers["content-type"].startswith("text/javascript")
    for name in ("nothing.js", "..%2Fserver.py", "%2Fetc%2Fpasswd"):
        assert client.get(f"/static/{name}").status_code == 404


def test_still_pictures_are_exact_and_moving_ones_jpeg(client, session):
    expected = session.picture(PictureState(base=Base(seed=4))).pixels
    with client.websocket_connect(SOCKET) as page:
        reply, image = ask(page, "render", state={"base": {"seed": 4}})
        assert (reply["id"], reply["format"]) == (1, "png")
        assert torch.equal(decoded(image), expected)
        reply, image = ask(page, "render", state={"base": {"seed": 4}}, moving=True)
        assert image[:3] == b"\xff\xd8\xff"


def test_two_pages_have_their_own_states(client, session):
    with client.websocket_connect(SOCKET) as one, client.websocket_connect(SOCKET) as two:
        for page, seed in [(one, 1), (two, 2), (one, 1)]:
            _, image = ask(page, "render", state={"base": {"seed": seed}})
            expected = session.picture(PictureState(base=Base(seed=seed))).pixels
            assert torch.equal(decoded(image), expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", "is not JSON"),
        ("[" * 5000, "is not JSON"),
        ("[]", "message must be an object"),
        ("{}", "action must be a text"),
        ('{"action": "explode"}', "there is no action 'explode'"),
        ('{"action": "render", "parameters": 3}', "parameters must be an object"),
        ('{"action": "render", "parameters": {"state": {"psi": 1e999}}}', "psi must be a number"),
        ('{"action": "remove_favourite", "parameters": {"favourite": "../x"}}', "an identifier"),
    ],
)
def test_garbage_on_the_socket_gets_one_line_and_the_page_stays_alive(client, text, message):
    with client.websocket_connect(SOCKET) as page:
        page.send_text(text)
        reply, _ = answer(page)
        assert message in reply["error"]
        assert "\n" not in reply["error"]
        page.send_bytes(b"\0\1")
        assert "JSON" in answer(page)[0]["error"]
        assert ask(page, "describe")[0]["height"] == 16


def test_a_crash_of_one_request_is_one_line_on_the_page(client, monkeypatch, caplog):
    def crash(session, fields):
        raise RuntimeError("secret\npath")

    monkeypatch.setitem(actions.ACTIONS, "describe", crash)
    with client.websocket_connect(SOCKET) as page:
        reply, _ = ask(page, "describe")
        assert reply["error"] == "an unexpected error: RuntimeError; the terminal shows more"
        assert "secret" in caplog.text
        assert ask(page, "render")[1]


def test_a_flood_of_requests_is_answered_with_the_newest_picture(client, session):
    with client.websocket_connect(SOCKET) as page:
        for number in range(1, 201):
            state = {"base": {"seed": number}}
            message = {"id": number, "action": "render", "parameters": {"state": state}}
            page.send_text(json.dumps(message))
        replies = [answer(page) for _ in range(200)]
    drawn = {reply["id"]: image for reply, image in replies if not reply.get("superseded")}
    assert torch.equal(
        decoded(drawn[200]), session.picture(PictureState(base=Base(seed=200))).pixels
    )


def test_long_work_reports_each_step_and_stops(client, monkeypatch):
    closed = []

    def count(session, fields, is_stopped):
        try:
            for step in itertools.takewhile(lambda _: not is_stopped(), range(10**9)):
                yield actions.Reply(data={"step": step})
        finally:
            closed.append(True)

    monkeypatch.setitem(actions.JOBS, "count", count)
    with client.websocket_connect(SOCKET) as page:
        assert ask(page, "count")[0] == {"step": 0, "id": 1}
        page.send_text(json.dumps({"id": 2, "action": "render"}))
        page.send_text(json.dumps({"id": 3, "action": "count"}))
        found = [answer(page)[0] for _ in range(1)]
        while not {2, 3} <= {reply["id"] for reply in found}:
            found.append(answer(page)[0])
        (refused,) = [reply for reply in found if reply["id"] == 3]
        assert "stop it first" in refused["error"]
        page.send_text(json.dumps({"action": "stop"}))
        while not answer(page)[0].get("done"):
            pass
    assert closed == [True]


def test_pages_beyond_the_limit_are_refused(client, monkeypatch):
    monkeypatch.setattr(server, "MAX_PAGES", 1)
    with client.websocket_connect(SOCKET) as page:
        with (
            pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)),
            client.websocket_connect(SOCKET),
        ):
            pass
        assert ask(page, "describe")[0]["height"] == 16


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:9000"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": "192.168.0.7"}, 403),
        ({"host": "[::1"}, 403),
        ({"origin": LOCAL}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),
        ({"origin": "null"}, 403),
    ],
    ids=str,
)
def test_host_and_origin_are_checked_on_routes_and_sockets(client, headers, status):
    for path in ("/", "/static/main.js", "/picture.png"):
        assert client.get(path, headers=headers).status_code == status
    if status == 403:
        with (
            pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)),
            client.websocket_connect(SOCKET, headers=headers),
        ):
            pass


def test_without_the_token_nothing_is_answered(session):
    app = application(session, host="0.0.0.0", token="correct horse")
    base = "http://192.168.0.7:8765"
    with TestClient(app, base_url=base) as client:
        for path in ("/", "/?token=wrong", "/static/main.js", "/picture.png", "/latents.npz"):
            assert client.get(path).status_code == 403
        assert client.post("/upload", content=b"x").status_code == 403
        with (
            pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)),
            client.websocket_connect(base.replace("http", "ws") + "/socket"),
        ):
            pass
        assert client.get("/?token=correct%20horse").status_code == 200  # after a redirect
        assert client.get("/static/main.js").status_code == 200  # with the cookie
        with client.websocket_connect(base.replace("http", "ws") + "/socket") as page:
            assert ask(page, "describe")[0]["height"] == 16
        assert client.get("/", headers={"host": "evil.example"}).status_code == 403


def test_downloads_can_be_uploaded_again(client, session):
    state = json.dumps({"base": {"seed": 4}, "psi": 0.5})
    png = client.get("/picture.png", params={"state": state})
    assert png.headers["content-disposition"] == 'attachment; filename="picture.png"'
    npz = client.get("/latents.npz", params={"state": state})
    for content in (png.content, npz.content):
        received = client.post("/upload", content=content).json()
        again = client.get("/picture.png", params={"state": json.dumps(received["state"])})
        assert torch.equal(decoded(again.content), decoded(png.content))
    refused = client.get("/picture.png", params={"state": '{"psi": "x"}'})
    assert (refused.status_code, list(refused.json())) == (400, ["error"])


def test_favourites_come_with_their_thumbnails(client, session):
    with client.websocket_connect(SOCKET) as page:
        name = ask(page, "favourite", state={"base": {"seed": 4}})[0]["saved"]
        (entry,) = ask(page, "list_favourites")[0]["favourites"]
        assert (entry["id"], entry["state"]["base"]["seed"]) == (name, 4)
        thumbnail = client.get(f"/favourite/{name}.png").content
        assert decoded(thumbnail).shape == (3, 16, 16)
        ask(page, "remove_favourite", favourite=name)
        assert ask(page, "list_favourites")[0]["favourites"] == []
    assert client.get(f"/favourite/{name}.png").status_code == 400
    assert client.get("/favourite/..%2F..%2Fx.png").status_code in (400, 404)


def test_uploads_are_limited_and_refused_in_one_line(client, monkeypatch):
    monkeypatch.setattr(server, "MAX_UPLOAD_BYTES", 1000)
    assert "at most" in client.post("/upload", content=b"x" * 1001).json()["error"]

    def chunks():
        for _ in range(100):
            yield b"x" * 100

    assert "at most" in client.post("/upload", content=chunks()).json()["error"]
    assert client.post("/upload", content=b"<svg/>").json()["error"].startswith("not an image")


def test_a_port_in_use_and_wrong_options_are_reported(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match="choose another --port"):
            listen("127.0.0.1", port)
    for options, message in [
        ({"port": 70000}, "port must be"),
        ({"token": "short"}, "at least 8 letters"),
        ({}, "no network was given"),
    ]:
        with pytest.raises(ConfigError, match=message):
            explore(browser=False, **options)


def test_another_host_gets_a_token_in_its_link(monkeypatch, session):
    links = []
    monkeypatch.setattr(server, "serve", lambda *_, **__: None)
    for host in ("127.0.0.1", "0.0.0.0"):
        explore(
            session.generator,
            host=host,
            port=0,
            browser=False,
            on_result=lambda page: links.append(page.link),
        )
    assert links[0].startswith("http://127.0.0.1:")
    assert "token" not in links[0]
    assert len(links[1].partition("?token=")[2]) >= 20


def test_a_video_is_exported_and_downloaded_under_its_random_name(client):
    timeline = {"keys": [{}, {"base": {"seed": 1}}], "seconds": 0.2, "fps": 10, "loop": True}
    with client.websocket_connect(SOCKET) as page:
        _, image = ask(page, "frame", timeline=timeline, index=1)
        assert image[:3] == b"\xff\xd8\xff"
        replies = [ask(page, "video", timeline=timeline, format="gif")[0]]
        while not replies[-1].get("done"):
            replies.append(answer(page)[0])
    assert [reply["step"] for reply in replies[:4]] == [1, 2, 3, 4]
    content = client.get(f"/export/{replies[4]['file']}").content
    with Image.open(io.BytesIO(content)) as video:
        assert (video.format, video.n_frames) == ("GIF", 4)
    assert client.get("/export/other.gif").status_code == 400


def test_points_are_dragged_in_steps_until_they_arrive_or_it_is_stopped(client, session):
    options = {"handles": [[4, 4]], "targets": [[9, 4]], "mask": "1" * 64**2, "num_steps": 3}
    with client.websocket_connect(SOCKET) as page:
        replies = [ask(page, "drag", **options)]
        while not replies[-1][0].get("done"):
            replies.append(answer(page))
        assert [reply.get("step") for reply, _ in replies] == [1, 2, 3, None, None]
        assert replies[0][1][:3] == b"\xff\xd8\xff"
        state = replies[3][0]["state"]
        dragged = ask(page, "render", state=state)[1]
        assert dragged != ask(page, "render", state={})[1]
        for wrong, message in [
            ({"mask": "12"}, "4096 digits"),
            ({"handles": [[1]]}, "pairs of numbers"),
            ({"targets": []}, "a target for each handle"),
            ({"handles": [[16, 4]]}, "outside the image"),
        ]:
            assert message in ask(page, "drag", **(options | wrong))[0]["error"]
            assert answer(page)[0]["done"]
