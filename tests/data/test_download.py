import hashlib
import io
import socket
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from bigzoo.data import PET_NAMES, Augment, Batches, cats_vs_dogs, drawn_pets
from bigzoo.data import _download as download

SIZE = (32, 32)
WAYS_OUT = r"bigzoo.data.drawn_pets\(\), or bigzoo.data.images\(folder\)"


def archive(top="cats_and_dogs_filtered", parts=("train", "validation"), evil=False):
    """A small archive with the folders of the real one."""
    data = io.BytesIO()
    x, y = drawn_pets(24, image_size=(48, 48))
    with zipfile.ZipFile(data, "w") as file:
        file.writestr(f"{top}/vectorize.py", "# the real one has such a file too")
        if evil:
            file.writestr("../../../../evil.txt", "climbed out")
        for i, (image, label) in enumerate(zip(x, y, strict=True)):
            part = "train" if i < 16 else "validation"
            if part in parts:
                jpeg = io.BytesIO()
                Image.fromarray(image).save(jpeg, "JPEG")
                name = f"{top}/{part}/{('cats', 'dogs')[label]}/{PET_NAMES[label]}.{i}.jpg"
                file.writestr(name, jpeg.getvalue())
    return data.getvalue()


@pytest.fixture(scope="module")
def good():
    return archive()


class Server:
    """Serves `body` on 127.0.0.1, in the way that `mode` says, and counts the requests."""

    def __init__(self):
        self.body, self.mode, self.requests = b"", "good", 0
        self.release = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                outer.requests += 1
                outer.answer(self)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.handle_error = lambda *_: None  # a client that hangs up is expected here
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/pets.zip"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, handler):
        if self.mode == "silent":
            self.release.wait(60)
            return
        if self.mode == "404":
            handler.send_error(404)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(self.body)))
        handler.end_headers()
        sent = self.body[: len(self.body) // 2] if self.mode in ("cut", "stalls") else self.body
        handler.wfile.write(sent)
        if self.mode == "stalls":
            handler.wfile.flush()
            self.release.wait(60)

    def close(self):
        self.release.set()
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(good):
    server = Server()
    server.body = good
    yield server
    server.close()


def sha(data):
    return hashlib.sha256(data).hexdigest()


def fetch(server, cache, **settings):
    settings = {"file_hash": sha(server.body), "origin": server.url, **settings}
    return cats_vs_dogs(image_size=SIZE, cache_dir=cache, augment=False, timeout=2, **settings)


def assert_empty(cache):
    left = [str(path.relative_to(cache)) for path in cache.rglob("*")]
    assert left == []


def test_own_parts_names_and_labels(server, tmp_path, good):
    train, val = fetch(server, tmp_path)
    assert isinstance(train, Batches) and (train.num_samples, val.num_samples) == (16, 8)
    assert train.class_names == val.class_names == ("cat", "dog")
    assert train.report.train == {"cat": 8, "dog": 8} and train.report.val == {"cat": 4, "dog": 4}
    assert train.shuffle and not val.shuffle and val.x.dtype == np.uint8
    drawn, label = drawn_pets(24, image_size=(48, 48))
    small = [np.asarray(Image.fromarray(image).resize(SIZE), int) for image in drawn]
    for part in (train, val):
        for image, y in zip(part.x, part.y, strict=True):
            nearest = np.argmin([np.abs(image - other).mean() for other in small])
            assert label[nearest] == y


def test_downloads_once_and_keeps_nothing_but_the_photos(server, tmp_path):
    fetch(server, tmp_path)
    asked = server.requests
    first = sorted(tmp_path.rglob("*"))
    assert [path.name for path in (tmp_path / "datasets").iterdir()] == [
        "bigzoo_cats_vs_dogs_" + sha(server.url.encode())[:8]
    ]
    server.mode = "404"
    train, _ = fetch(server, tmp_path)
    assert server.requests == asked and train.num_samples == 16
    assert sorted(tmp_path.rglob("*")) == first


def test_a_damaged_copy_is_fetched_again(server, tmp_path):
    fetch(server, tmp_path)
    for path in tmp_path.rglob("validation/cats/*.jpg"):
        path.unlink()
    assert fetch(server, tmp_path)[1].num_samples == 8


def test_augments_training_only(server, tmp_path):
    train, val = cats_vs_dogs(
        image_size=SIZE, cache_dir=tmp_path, origin=server.url, file_hash=None, batch_size=5
    )
    assert isinstance(train.augment, Augment) and val.augment is None and train.batch_size == 5


def test_file_address(tmp_path, good):
    (tmp_path / "copy.zip").write_bytes(good)
    train, _ = cats_vs_dogs(
        image_size=SIZE,
        cache_dir=tmp_path / "new",
        origin=(tmp_path / "copy.zip").as_uri(),
        file_hash=sha(good),
    )
    assert train.num_samples == 16


@pytest.mark.parametrize(
    ("mode", "body", "settings", "error", "match"),
    [
        ("good", None, {"file_hash": "0" * 64}, ValueError, "its SHA-256 is not 000"),
        ("cut", None, {}, ConnectionError, "can't be fetched"),
        ("cut", None, {"file_hash": None}, ConnectionError, "can't be fetched"),
        ("404", None, {}, ConnectionError, "HTTP 404"),
        ("good", b"<html>Log in</html>", {"file_hash": None}, ValueError, "0 photos in"),
        ("good", b"", {"file_hash": None}, ValueError, "0 photos in"),
        ("good", "other", {}, ValueError, "0 photos in cats_and_dogs_filtered/train/cats"),
        ("good", "half", {}, ValueError, "0 photos in cats_and_dogs_filtered/validation/cats"),
    ],
)
def test_wrong_answers_leave_nothing(server, tmp_path, mode, body, settings, error, match):
    bodies = {"other": {"top": "birds"}, "half": {"parts": ("train",)}}
    server.mode = mode
    if body is not None:
        server.body = archive(**bodies[body]) if isinstance(body, str) else body
    with pytest.raises(error, match=f"{match}.*{WAYS_OUT}"):
        fetch(server, tmp_path, **settings)
    assert_empty(tmp_path)
    assert socket.getdefaulttimeout() is None


def test_a_zip_cut_off_inside_leaves_nothing(server, tmp_path, good):
    broken = bytearray(good)
    broken[200:260] = b"x" * 60  # inside the first photo: only its checksum tells
    server.body = bytes(broken)
    with pytest.raises((ConnectionError, ValueError), match=WAYS_OUT):
        fetch(server, tmp_path, file_hash=None)
    assert_empty(tmp_path)


@pytest.mark.filterwarnings("ignore:Skipping invalid path")  # Keras' own word on it
def test_nothing_climbs_out_of_the_archive(server, tmp_path):
    server.body = archive(evil=True)
    cache = tmp_path / "a" / "b" / "c" / "d"
    fetch(server, cache)
    assert not list(tmp_path.rglob("evil.txt"))


def test_a_silent_server_is_given_up_soon(server, tmp_path):
    server.mode = "silent"
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=f"can't be fetched.*{WAYS_OUT}"):
        cats_vs_dogs(cache_dir=tmp_path, origin=server.url, timeout=0.5)
    assert time.monotonic() - start < 5
    assert_empty(tmp_path)


def test_a_server_that_falls_silent_is_given_up(server, tmp_path):
    server.mode = "stalls"
    server.body = server.body * 20  # more than fits in the socket's buffers
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=f"can't be fetched.*{WAYS_OUT}"):
        cats_vs_dogs(cache_dir=tmp_path, origin=server.url, timeout=0.3)
    assert time.monotonic() - start < 10
    assert_empty(tmp_path)


@pytest.mark.parametrize(
    "origin", ["http://127.0.0.1:9/pets.zip", "https://no-such-host.invalid/pets.zip"]
)
def test_offline_fails_at_once(tmp_path, origin):
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=f"can't be fetched.*{WAYS_OUT}"):
        cats_vs_dogs(cache_dir=tmp_path / "new", origin=origin, timeout=2)
    assert time.monotonic() - start < 6
    assert_empty(tmp_path)


def test_a_name_that_is_looked_up_for_ever_is_given_up(tmp_path, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: release.wait(30))
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=r"no answer within 0\.3 s"):
        cats_vs_dogs(cache_dir=tmp_path, origin="http://slow.example/pets.zip", timeout=0.3)
    release.set()
    assert time.monotonic() - start < 5


def test_the_numbers_of_the_original_are_held(tmp_path, monkeypatch, server):
    monkeypatch.setattr(download, "URL", server.url)
    with pytest.raises(ValueError, match=r"has 8 photos in .*/train/cats; expected 1000"):
        fetch(server, tmp_path)
    assert_empty(tmp_path)


def test_keras_home_is_the_default_place(server, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    train, _ = cats_vs_dogs(image_size=SIZE, origin=server.url, file_hash=None)
    assert train.report.folder.startswith(str(tmp_path / "keras" / "datasets"))


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"image_size": 64}, TypeError, r"Write image_size=\(64, 64\)"),
        ({"batch_size": 0}, ValueError, "`batch_size` is 0"),
        ({"seed": 0.5}, TypeError, "`seed` is 0.5"),
        ({"augment": 1}, TypeError, "`augment` is 1"),
        ({"cache_dir": 3}, TypeError, "`cache_dir` is 3"),
        ({"cache_dir": __file__}, ValueError, "this is a file"),
        ({"origin": "ftp://x/y.zip"}, ValueError, "http://, https:// or file://"),
        ({"origin": None}, TypeError, "`origin` is None"),
        ({"file_hash": "abc"}, ValueError, "64 hexadecimal digits"),
        ({"file_hash": 1}, TypeError, "64 hexadecimal digits"),
        ({"timeout": 0}, ValueError, "`timeout` is 0"),
        ({"crop_to_aspect_ratio": None}, TypeError, "True or False"),
    ],
)
def test_bad_input(tmp_path, settings, error, match):
    with pytest.raises(error, match=match):
        cats_vs_dogs(**{"cache_dir": tmp_path, "origin": "http://127.0.0.1:9/x.zip", **settings})
    assert_empty(tmp_path)


@pytest.mark.network
def test_the_real_archive(tmp_path):
    train, val = cats_vs_dogs(image_size=SIZE, cache_dir=tmp_path)
    assert (train.num_samples, val.num_samples) == (2000, 1000)
