"""The page in a real browser: a photo is chosen, and label, bars and Grad-CAM appear.

The browser is driven over a pipe with its own DevTools protocol: nothing has to be installed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
from PIL import Image

import bigzoo as bz

pytest.importorskip("starlette", reason="needs bigzoo[serve]")
pytest.importorskip("python_multipart", reason="needs bigzoo[serve]")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--remote-debugging-pipe",
)
# The browser reads commands from descriptor 3 and writes to 4.
START = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 50) for number in sys.argv[1:3]]
for end, wanted in zip(ends, (3, 4)):
    os.dup2(end, wanted)
os.execv(sys.argv[3], sys.argv[3:])
"""
NAMES = ("<b>cat</b>", "dog & <img src=x onerror=document.title='hacked'>")


class Browser:
    """One tab. What the page logs as an error is in `faults`."""

    def __init__(self, program, folder, seconds=60):
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        self.log = (folder / "browser.log").open("wb")
        command = [sys.executable, "-c", START, str(theirs_in), str(theirs_out), program, *FLAGS]
        command += [f"--user-data-dir={folder / 'profile'}", "about:blank"]
        self.process = subprocess.Popen(
            command,
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=self.log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # its helpers end with it
            env={**os.environ, "HOME": str(folder)},
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.out = os.fdopen(ours_out, "wb", buffering=0)
        self.incoming = os.fdopen(ours_in, "rb", buffering=0)
        self.rest, self.number, self.session, self.faults = b"", 0, None, []
        self.guard = threading.Timer(seconds, self.kill)
        self.guard.start()
        target = self("Target.createTarget", url="about:blank")["targetId"]
        found = self("Target.attachToTarget", targetId=target, flatten=True)
        self.session = found["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self(f"{domain}.enable")

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self):
        self.guard.cancel()
        self.kill()
        self.process.wait()
        for file in (self.out, self.incoming, self.log):
            file.close()

    def __call__(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.out.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, (method, answer)
                return answer["result"]
            self._note(answer)

    def _next(self):
        while b"\0" not in self.rest:
            chunk = self.incoming.read(1 << 16)
            if not chunk:
                pytest.fail("the browser has ended")
            self.rest += chunk
        line, _, self.rest = self.rest.partition(b"\0")
        return json.loads(line)

    def _note(self, event):
        if event.get("method") == "Runtime.exceptionThrown":
            self.faults.append(json.dumps(event["params"]))
        elif event.get("method") == "Log.entryAdded":
            entry = event["params"]["entry"]
            if entry["level"] == "error":
                self.faults.append(f"{entry['text']} {entry.get('url', '')}")

    def run(self, code):
        """The value of an expression in the page; a promise is waited for."""
        found = self("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, condition, seconds=30):
        code = f"""new Promise((done) => {{
            const end = Date.now() + {1000 * seconds};
            const look = () => ({condition}) ? done(true)
                : Date.now() > end ? done(false) : setTimeout(look, 30);
            look();
        }})"""
        if not self.run(code):
            pytest.fail(f"{condition} didn't come; the page says {self.text()!r}; {self.faults}")

    def open(self, url):
        self.faults.clear()
        self("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && !document.getElementById('about')"
                  ".textContent.startsWith('Reading')")  # fmt: skip

    def choose(self, path):
        root = self("DOM.getDocument")["root"]["nodeId"]
        node = self("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        self("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def key(self, name, code, text=""):
        for kind in ("keyDown", "keyUp"):
            extra = {"text": text} if text and kind == "keyDown" else {}
            self("Input.dispatchKeyEvent", type=kind, key=name, windowsVirtualKeyCode=code, **extra)

    def width(self, pixels, height=900):
        self(
            "Emulation.setDeviceMetricsOverride",
            width=pixels,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def text(self):
        return self.run("document.body.innerText")

    def screenshot(self, path):
        data = self("Page.captureScreenshot", format="png", captureBeyondViewport=False)["data"]
        path.write_bytes(base64.b64decode(data))
        return Image.open(path)


@contextlib.contextmanager
def running(app):
    """A real server in a thread; its address."""
    uvicorn = pytest.importorskip("uvicorn", reason="needs bigzoo[serve]")
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, http="h11", ws="none", log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None or sys.platform == "win32":
        pytest.skip("no Chromium on the PATH")
    found = Browser(program, tmp_path_factory.mktemp("browser"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def address():
    keras.utils.set_random_seed(1)
    image = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(4, 3, activation="relu")(x)
    x = keras.layers.Dense(2, "softmax")(keras.layers.GlobalAveragePooling2D()(x))
    with running(bz.deploy.app(keras.Model(image, x), NAMES, max_bytes=300_000)) as found:
        yield found


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    x, _ = bz.data.drawn_pets(1, image_size=(180, 240), seed=3)
    name = "<i>my photo & <img src=x>.jpg"
    Image.fromarray(np.asarray(x[0]).astype("uint8")).save(folder / name)
    (folder / "no.jpg").write_bytes(b"this is no image")
    (folder / "large.jpg").write_bytes(bytes(400_000))
    return folder


def test_a_photo_gives_label_bars_and_grad_cam(browser, address, photos, tmp_path):
    browser.width(1000)
    browser.open(address)
    browser.choose(photos / "<i>my photo & <img src=x>.jpg")
    browser.wait("document.getElementById('overlay').naturalWidth > 0")
    text = browser.text()
    assert "<i>my photo & <img src=x>.jpg" in text  # as text, not as HTML
    assert all(name in text for name in NAMES)
    assert "Grad-CAM: bright places speak for " in text
    assert browser.run("document.getElementById('label').textContent") in NAMES
    assert browser.run("document.querySelectorAll('#bars li').length") == 2
    shares = browser.run(
        "[...document.querySelectorAll('.value')].map((one) => parseFloat(one.textContent))"
    )
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert shares == sorted(shares, reverse=True)
    sizes = browser.run(
        "['photo', 'overlay'].map((id) => document.getElementById(id))"
        ".map((one) => [one.naturalWidth, one.naturalHeight])"
    )
    assert sizes == [[240, 180], [240, 180]]
    assert browser.run("document.querySelectorAll('#result b *, #bars b, #bars img').length") == 0
    assert "hacked" not in browser.run("document.title")
    picture = browser.screenshot(tmp_path / "wide.png")
    assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 500
    assert browser.faults == []


def test_a_narrow_window_has_nothing_that_sticks_out(browser, address, photos, tmp_path):
    browser.width(400)
    browser.open(address)
    browser.choose(photos / "<i>my photo & <img src=x>.jpg")
    browser.wait("document.getElementById('overlay').naturalWidth > 0")
    assert browser.run("document.documentElement.scrollWidth") <= 400
    browser.screenshot(tmp_path / "narrow.png")
    browser.width(1000)


def test_with_the_keyboard_alone(browser, address, photos):
    browser.open(address)
    browser.key("Tab", 9)
    assert browser.run("document.activeElement.id") == "file"
    assert browser.run("getComputedStyle(document.getElementById('drop')).outlineStyle") == "solid"
    browser.choose(photos / "<i>my photo & <img src=x>.jpg")
    browser.wait("document.getElementById('overlay').naturalWidth > 0")
    for _ in range(2):
        browser.key("Tab", 9)
    other = browser.run("document.activeElement.querySelector('.name').textContent")
    assert browser.run("document.activeElement.getAttribute('aria-pressed')") == "false"
    browser.key("Enter", 13, "\r")
    browser.wait(f"document.getElementById('map-name').textContent.endsWith({json.dumps(other)})")
    assert browser.run("document.activeElement.getAttribute('aria-pressed')") == "true"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no.jpg", "The server refused this: the image can't be read: no image inside"),
        ("large.jpg", "The file is too large: at most 300000 bytes are accepted."),
    ],
)
def test_what_is_wrong_is_said_and_the_next_photo_works(browser, address, photos, name, reason):
    browser.open(address)
    browser.choose(photos / name)
    browser.wait("!document.getElementById('error').hidden")
    assert reason in browser.run("document.getElementById('error').textContent")
    assert browser.run("document.getElementById('result').hidden")
    browser.choose(photos / "<i>my photo & <img src=x>.jpg")
    browser.wait("document.getElementById('overlay').naturalWidth > 0")
    assert browser.run("document.getElementById('error').hidden")


def test_a_dropped_photo(browser, address, photos):
    browser.open(address)
    browser.run(
        """(async () => {
        const canvas = document.createElement('canvas');
        canvas.width = canvas.height = 50;
        canvas.getContext('2d').fillRect(0, 0, 20, 50);
        const blob = await new Promise((done) => canvas.toBlob(done));
        const data = new DataTransfer();
        data.items.add(new File([blob], 'dropped.png'));
        document.dispatchEvent(new DragEvent('drop', {dataTransfer: data, cancelable: true}));
        })()"""
    )
    browser.wait("document.getElementById('overlay').naturalWidth === 50")
    assert "dropped.png" in browser.text()


def test_a_model_of_numbers_shows_a_request_that_works(browser):
    first, second = keras.Input((3,), name="a"), keras.Input((None, 2), name="b")
    x = keras.layers.Concatenate()([first, keras.layers.GlobalMaxPooling1D()(second)])
    model = keras.Model([first, second], keras.layers.Dense(1)(x), name="numbers")
    with running(bz.deploy.app(model)) as address:
        browser.open(address)
        text = browser.run("document.getElementById('example').innerText")
        assert "curl http://127.0.0.1" in text
        assert browser.run("document.getElementById('drop').hidden")
        body = text[text.index("-d '") + 4 : text.rindex("'")]
        status = browser.run(
            "fetch('predict', {method: 'POST', headers: {'Content-Type': 'application/json'},"
            f" body: {json.dumps(body)}}}).then((answer) => answer.status)"
        )
        assert status == 200
        assert browser.faults == []


def test_the_page_of_another_server_gets_nothing(browser, address):
    other = "data:text/html,<p id='about'>other</p>"
    browser.open(other)
    code = (
        "fetch({}, {{method: 'POST', mode: 'no-cors', body: 'x'}})"
        ".then((answer) => answer.type + answer.status, (error) => 'refused')"
    )
    assert browser.run(code.format(json.dumps(address + "predict"))) in ("opaque0", "refused")


def test_the_policy_lets_no_other_script_run(browser, address):
    browser.open(address)
    browser.run(
        "(() => { const script = document.createElement('script');"
        " script.textContent = 'document.title = \"hacked\"'; document.body.append(script); })()"
    )
    assert browser.run("document.title") != "hacked"
    got = browser.run("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'blocked')")
    assert got == "blocked"
    assert any("Content Security Policy" in fault for fault in browser.faults)


def test_the_page_asks_for_nothing_from_elsewhere():
    from bigzoo.deploy._serve_page import read_page

    page = read_page()
    text = page.content.decode()
    assert "http://" not in text and "https://" not in text and "innerHTML" not in text
    assert "unsafe" not in page.policy
    assert page.policy.count("'sha256-") == 2
