"""The server: right answers, refusals with a reason, limits, and a real process."""

from __future__ import annotations

import asyncio
import gc
import http.client
import io
import json
import socket
import threading
import time

import keras
import numpy as np
import pytest
from PIL import Image

import bigzoo as bz

pytest.importorskip("starlette", reason="needs bigzoo[serve]")
pytest.importorskip("python_multipart", reason="needs bigzoo[serve]")

from bigzoo.deploy._serve_limits import Gate, Limits, Refused


def classifier(units=2, size=(16, 24), activation="softmax", channels=3):
    image = keras.Input((*size, channels), name="photo")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(4, 3, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(units, activation)(x), name="tiny")


def picture(size=(40, 30), seed=0, format="PNG", mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, format)
    return file.getvalue()


def form(*parts, boundary="xyz"):
    """(name, file name or None, content) each, as multipart/form-data."""
    body = b""
    for name, file, content in parts:
        extra = "" if file is None else f'; filename="{file}"'
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode()


FORM = "multipart/form-data; boundary=xyz"


@pytest.fixture(scope="module")
def pets():
    model = classifier()
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=array.shape) for array in model.get_weights()]
    weights[2] = np.abs(weights[2])  # some place speaks for each class, so that both have a map
    model.set_weights(weights)
    return model


@pytest.fixture(scope="module")
def served(pets):
    return bz.deploy.app(pets, ["cat", "dog"], max_bytes=200_000, max_pixels=10_000)


@pytest.fixture(scope="module")
def numbers():
    """A model of several inputs and outputs, and its application."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    size = keras.Input((2,), name="size")
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(10, 4)(ids))
    x = keras.layers.Concatenate()([x, size])
    outputs = {"sum": keras.layers.Dense(1)(x), "kind": keras.layers.Dense(3, "softmax")(x)}
    model = keras.Model({"ids": ids, "size": size}, outputs)
    return model, bz.deploy.app(model)


# --- right answers ---------------------------------------------------------------------------


def test_an_image_as_body_and_in_a_form_gives_what_predict_images_gives(
    asgi, served, pets, tmp_path
):
    content = picture()
    (tmp_path / "a.png").write_bytes(content)
    row = bz.predict_images(pets, tmp_path / "a.png", ["cat", "dog"])[0]
    for kind, body in [
        ("image/png", content),
        ("application/octet-stream", content),
        ("image/jpeg", content),  # what it is counts, not what it's called
        (FORM, form(("file", "a.png", content))),
        (FORM, form(("note", None, b"hello"), ("photo", "../../etc/passwd", content))),
    ]:
        answer = asgi(served, "POST", "/predict", body, kind)
        assert answer.status == 200, answer.body
        found = answer.json()
        assert found["label"] == row.label
        assert found["probability"] == pytest.approx(row.probability, abs=1e-5)
        assert found["probabilities"] == pytest.approx(row.probabilities, abs=1e-5)
        assert found["top"][0]["label"] == row.label


def test_top(asgi, served):
    for query, count in (("", 2), ("top=1", 1), ("top=100", 2)):
        answer = asgi(served, "POST", "/predict", picture(), "image/png", query)
        assert len(answer.json()["top"]) == count
    answer = asgi(served, "POST", "/predict", picture(), "image/png", "top=0")
    assert (answer.status, "top is no whole number" in answer.json()["error"]) == (422, True)


@pytest.mark.parametrize(("units", "activation"), [(1, "sigmoid"), (3, "sigmoid"), (3, None)])
def test_other_kinds_of_classifiers(asgi, units, activation):
    model = classifier(units, activation=activation)
    app = bz.deploy.app(model)
    found = asgi(app, "POST", "/predict", picture(), "image/png").json()
    assert len(found["probabilities"]) == max(units, 2)
    assert asgi(app, "POST", "/grad_cam", picture(), "image/png").status == 200


def test_json_for_an_image_model(asgi, served, pets):
    x = np.random.default_rng(0).uniform(0, 255, (2, 16, 24, 3)).astype("float32")
    body = json.dumps({"inputs": x.tolist()}).encode()
    answer = asgi(served, "POST", "/predict", body, "application/json; charset=utf-8")
    np.testing.assert_allclose(answer.json()["outputs"], pets.predict(x, verbose=0), atol=1e-5)


def test_json_for_several_inputs_and_outputs(asgi, numbers):
    model, app = numbers
    inputs = {"ids": [[1, 2, 3], [4, 5, 6]], "size": [[1.5, 2], [0, -1]]}
    answer = asgi(
        app, "POST", "/predict", json.dumps({"inputs": inputs}).encode(), "application/json"
    )
    assert answer.status == 200, answer.body
    arrays = {"ids": np.asarray(inputs["ids"], "int32"), "size": np.asarray(inputs["size"], "f4")}
    expected = model(arrays, training=False)
    for name, values in answer.json()["outputs"].items():
        np.testing.assert_allclose(
            values, keras.ops.convert_to_numpy(expected[name]), rtol=1e-4, atol=1e-5
        )


def test_health(asgi, served, numbers):
    found = asgi(served, "GET", "/health").json()
    assert found["status"] == "ok"
    assert found["model"] == "tiny"
    assert found["classes"] == ["cat", "dog"]
    assert found["image"] == {"height": 16, "width": 24, "channels": 3}
    assert found["grad_cam"] is True
    assert found["max_bytes"] == 200_000
    other = asgi(numbers[1], "GET", "/health").json()
    assert other["image"] is None
    assert {one["name"] for one in other["inputs"]} == {"ids", "size"}


def test_grad_cam_is_a_picture_of_the_proportions_of_the_photo(asgi, served, pets):
    content = picture((60, 30))
    answers = [
        asgi(served, "POST", "/grad_cam", content, "image/png", query).body
        for query in ("", "class_index=0", "class_index=1")
    ]
    assert all(Image.open(io.BytesIO(png)).size == (60, 30) for png in answers)
    assert answers[1] != answers[2]
    assert answers[0] in answers[1:]


def test_grad_cam_takes_nothing_from_the_requests_beside_it(asgi, served):
    """On JAX, `model.predict` empties the weights meanwhile."""
    paths = ["/grad_cam", "/predict", "/predict"] * 10
    requests = [
        {"method": "POST", "path": path, "body": picture(), "kind": "image/png"} for path in paths
    ]
    assert [answer.status for answer in asgi.all(served, requests)] == [200] * 30


def test_an_application_may_be_started_again(asgi, pets):
    app = bz.deploy.app(pets)

    async def live():
        events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        said = []

        async def receive():
            return events.pop(0)

        async def send(event):
            said.append(event["type"])

        await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
        return said

    for _ in range(2):
        assert asyncio.run(live()) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert asgi(app, "POST", "/predict", picture(), "image/png").status == 200


def _nodes():
    gc.collect()
    return sum(type(thing).__name__ == "Node" for thing in gc.get_objects())


def test_grad_cam_leaves_nothing_behind(asgi, served, pets):
    before = _nodes()
    for seed in range(3):
        assert asgi(served, "POST", "/grad_cam", picture(seed=seed), "image/png").status == 200
    assert _nodes() == before
    # The count sees it where a model is cut for each picture.
    bz.plot.grad_cam(pets, np.zeros((16, 24, 3), "float32"))
    assert _nodes() > before


def test_grad_cam_is_refused_with_the_reason_where_there_is_none(asgi, numbers):
    image = keras.Input((8, 8, 3))
    flat = keras.Model(image, keras.layers.Dense(2, "softmax")(keras.layers.Flatten()(image)))
    for app, reason in [
        (bz.deploy.app(flat), "expected a model that has a layer with output"),
        (numbers[1], "no classifier of images"),
    ]:
        answer = asgi(app, "POST", "/grad_cam", picture(), "image/png")
        assert answer.status == 409
        assert reason in answer.json()["error"]


def test_the_crop_is_that_of_training(asgi, pets, tmp_path):
    (tmp_path / "a.png").write_bytes(picture((90, 20)))
    app = bz.deploy.app(pets, ["cat", "dog"], crop_to_aspect_ratio=True)
    row = bz.predict_images(pets, tmp_path / "a.png", ["cat", "dog"], crop_to_aspect_ratio=True)[0]
    found = asgi(app, "POST", "/predict", picture((90, 20)), "image/png").json()
    assert found["probabilities"] == pytest.approx(row.probabilities, abs=1e-5)
    png = asgi(app, "POST", "/grad_cam", picture((90, 20)), "image/png").body
    assert Image.open(io.BytesIO(png)).size == (640, 427)


@pytest.mark.tensorflow
def test_a_file_of_another_format(asgi, served, pets, tmp_path):
    from bigzoo.deploy._convert import convert

    named = classifier()
    named.set_weights(pets.get_weights())
    named.class_names = ("cat", "dog")
    convert(named, tmp_path / "pets.tflite", "litert")
    app = bz.deploy.app(tmp_path / "pets.tflite")
    request = {"method": "POST", "path": "/predict", "body": picture(), "kind": "image/png"}
    expected = asgi(served, **request).json()
    for answer in asgi.all(app, [request] * 20):
        assert answer.json()["label"] == expected["label"]
        assert answer.json()["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-4)
    about = asgi(app, "GET", "/health").json()
    assert (about["model"], about["grad_cam"]) == ("pets.tflite", False)
    answer = asgi(app, "POST", "/grad_cam", picture(), "image/png")
    assert answer.status == 409
    assert "serve the .keras file" in answer.json()["error"]


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "kind", "status", "reason"),
    [
        ("GET", "/predict", b"", None, 405, "the method GET is not for this path"),
        ("DELETE", "/", b"", None, 405, "the method DELETE"),
        ("GET", "/nothing", b"", None, 404, "known: /, /health"),
        ("GET", "/../../etc/passwd", b"", None, 404, "no such path"),
        ("POST", "/predict/", b"", None, 404, "no such path"),
        ("POST", "/predict", b"hello", "text/plain", 415, "the Content-Type is 'text/plain'"),
        ("POST", "/predict", b"hello", None, 415, "there is no Content-Type"),
        ("POST", "/predict", b"", "image/png", 422, "the file is empty"),
        ("POST", "/predict", b"%PDF-1.7 ...", "image/png", 422, "no image inside"),
        ("POST", "/predict", picture()[:500], "image/png", 422, "can't be read"),
        ("POST", "/predict", picture((200, 100)), "image/png", 413, "200 x 100 pixels; at most 10"),
        ("POST", "/predict", bytes(200_001), "image/png", 413, "at most 200,000 bytes"),
        ("POST", "/predict", [bytes(150_000)] * 2, "image/png", 413, "at most 200,000 bytes"),
        ("POST", "/predict", b"", "multipart/form-data", 400, "no boundary"),
        ("POST", "/predict", b"", FORM, 400, "the form"),
        ("POST", "/predict", b"hello", FORM, 400, "the form can't be read"),
        ("POST", "/predict", form(("file", "a", picture()))[:-9], FORM, 400, "cut off"),
        ("POST", "/predict", form(("note", None, b"a")), FORM, 422, "the form has 0 files"),
        ("POST", "/predict", form(*[("file", "a", b"a")] * 2), FORM, 422, "has 2 files"),
        ("POST", "/predict", form(*[("n", None, b"")] * 20), FORM, 400, "more than 16 parts"),
        ("POST", "/predict", form(("f", ";" * 100_000, b"a")), FORM, 400, "form"),
        ("POST", "/predict", form(), FORM + ";a" * 1000, 400, "no boundary"),
        ("POST", "/grad_cam", b"{}", "application/json", 415, "send an image"),
    ],
)
def test_bad_requests(asgi, served, method, path, body, kind, status, reason):
    answer = asgi(served, method, path, body, kind)
    assert answer.status == status, answer.body
    assert reason in answer.json()["error"]
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ("", 400, "no valid JSON"),
        ("{", 400, "no valid JSON (at character 1)"),
        ("[1, 2]", 422, "no inputs"),
        ('{"x": 1}', 422, "no inputs"),
        ('{"inputs": [[1, 2]], "y": 1}', 422, "'y' beside the inputs"),
        ('{"inputs": 3}', 422, "has the shape ()"),
        ('{"inputs": "abc"}', 422, "something else than numbers"),
        ('{"inputs": [[1, "2"]]}', 422, "something else than numbers"),
        ('{"inputs": [[1, null]]}', 422, "something else than numbers"),
        ('{"inputs": [[1, 2], [3]]}', 422, "rows of different lengths"),
        ('{"inputs": [[1, [2]]]}', 422, "rows that differ"),
        ('{"inputs": [[[1, 2]]]}', 422, "nested too deeply"),
        ('{"inputs": []}', 422, "has the shape (0)"),
        ('{"inputs": [[]]}', 422, "has the shape (1, 0); the model takes (samples, 2)"),
        ('{"inputs": [[1, 2, 3]]}', 422, "has the shape (1, 3); the model takes (samples, 2)"),
        ('{"inputs": [1, 2]}', 422, "has the shape (2); the model takes (samples, 2)"),
        ('{"inputs": [[NaN, 1]]}', 400, "NaN is no number"),
        ('{"inputs": [[-Infinity, 1]]}', 400, "-Infinity is no number"),
        ('{"inputs": [[1e400, 1]]}', 422, "too large for float32"),
        ('{"inputs": [[1e39, 1]]}', 422, "too large for float32"),
        ('{"inputs": [[' + "9" * 400 + ", 1]]}", 422, "too large"),
        ('{"inputs": [[' + "9" * 9000 + ", 1]]}", 400, "no valid JSON"),
        ("[" * 200_000, 400, "nested too deeply"),
        ('{"inputs": ' + "[" * 70 + "1" + "]" * 70 + "}", 422, "nested too deeply"),
        (json.dumps({"inputs": [[1, 2]] * 2000}), 413, "2,000 samples are too many"),
        ('{"inputs": [[3e38, 3e38]]}', 422, "NaN or infinite"),
        (b"\xff\xfe\x00", 400, "no valid JSON"),
    ],
)
def test_bad_json(asgi, body, status, reason):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])
    app = bz.deploy.app(model)
    body = body if isinstance(body, bytes) else body.encode()
    answer = asgi(app, "POST", "/predict", body, "application/json")
    assert answer.status == status, answer.body
    assert reason in answer.json()["error"]


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"ids": [[1]]}, "as an object: 'ids', 'size'"),
        ([[1], [2]], "as an object: 'ids', 'size'"),
        ({"ids": [[1]], "size": [[1, 2]], "more": 1}, "as an object"),
        ({"ids": [[1]], "size": [[1, 2], [3, 4]]}, "different numbers of samples"),
        ({"ids": [[1.5]], "size": [[1, 2]]}, "'ids' has fractions"),
        ({"ids": [[2**40]], "size": [[1, 2]]}, "beyond -2147483648 to 2147483647"),
        ({"ids": [[0] * 5000], "size": [[1, 2]]}, "too long; at most 4,096"),
    ],
)
def test_bad_json_for_several_inputs(asgi, numbers, inputs, reason):
    body = json.dumps({"inputs": inputs}).encode()
    answer = asgi(numbers[1], "POST", "/predict", body, "application/json")
    assert answer.status in (413, 422)
    assert reason in answer.json()["error"]


@pytest.mark.tensorflow
def test_what_the_model_fails_on_is_the_senders_fault_and_says_nothing_of_the_server(asgi, numbers):
    body = json.dumps({"inputs": {"ids": [[99]], "size": [[1, 2]]}}).encode()  # of 10 ids
    answer = asgi(numbers[1], "POST", "/predict", body, "application/json")
    assert answer.status == 422
    assert answer.json() == {"error": "the model can't compute this: are all numbers in its range?"}


def test_images_for_a_model_that_takes_none(asgi, numbers):
    answer = asgi(numbers[1], "POST", "/predict", picture(), "image/png")
    assert answer.status == 415
    assert "this model takes JSON, no images" in answer.json()["error"]


@pytest.mark.parametrize(
    ("hosts", "host", "status"),
    [
        (("localhost", "127.0.0.1", "::1"), "localhost", 200),
        (("localhost", "127.0.0.1", "::1"), "LOCALHOST:80", 200),
        (("localhost", "127.0.0.1", "::1"), "127.0.0.1:8000", 200),
        (("localhost", "127.0.0.1", "::1"), "[::1]:8000", 200),
        (("localhost", "127.0.0.1", "::1"), "evil.example", 400),
        (("localhost", "127.0.0.1", "::1"), "localhost.evil.example", 400),
        (("localhost", "127.0.0.1", "::1"), "localhost:80@evil.example", 400),
        (("localhost", "127.0.0.1", "::1"), "192.168.0.7", 400),
        (("localhost", "127.0.0.1", "::1"), "[::1", 400),
        (("localhost", "127.0.0.1", "::1"), "", 400),
        (("localhost", "127.0.0.1", "::1"), None, 400),
        (("zoo.example",), "zoo.example", 200),
        (("zoo.example",), "localhost", 400),
        (("0.0.0.0",), "192.168.0.7:8000", 200),
        (("0.0.0.0",), "evil.example", 400),
        (None, "evil.example", 200),
    ],
)
def test_the_host_header_must_name_the_server(asgi, numbers, hosts, host, status):
    from bigzoo.deploy._serve_guard import Guard

    app = Guard(numbers[1].app, hosts)
    answer = asgi(app, "GET", "/health", host=host)
    assert answer.status == status
    assert status == 200 or "Host header" in answer.json()["error"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 200),
        ([("origin", "http://localhost:8000")], 200),
        ([("origin", "https://localhost:8000")], 200),  # behind a server that encrypts
        ([("sec-fetch-site", "same-origin")], 200),
        ([("origin", "http://localhost:9000")], 403),
        ([("origin", "http://evil.example")], 403),
        ([("origin", "null")], 403),
        ([("origin", "")], 403),
        ([("sec-fetch-site", "cross-site")], 403),
        ([("sec-fetch-site", "same-site")], 403),
        ([("origin", "http://localhost:8000"), ("origin", "http://evil.example")], 400),
        ([("host", "localhost:8000")], 400),
    ],
)
def test_pages_of_others_are_refused(asgi, served, headers, status):
    answer = asgi(served, "POST", "/predict", picture(), "image/png", headers=headers)
    assert answer.status == status


def test_every_answer_has_the_headers_that_browsers_heed(asgi, served):
    for request in (("GET", "/"), ("GET", "/health"), ("GET", "/x"), ("POST", "/predict")):
        headers = asgi(served, *request).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "server" not in headers
    assert asgi(served, "GET", "/x", host="evil").headers["x-content-type-options"] == "nosniff"


def test_an_error_of_our_own_is_500_without_a_trace(asgi, served, monkeypatch):
    def broken(*_):
        raise KeyError("/secret/path")

    async def logged(scope, receive, send):
        with pytest.raises(KeyError):  # for the log of the ASGI server
            await served(scope, receive, send)

    monkeypatch.setattr("bigzoo.deploy._serve.read_upload", broken)
    answer = asgi(logged, "POST", "/predict", picture(), "image/png")
    assert answer.status == 500
    assert answer.json() == {"error": "the server has failed; its log says why"}


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"class_names": ["cat"]}, ValueError, "has 1 names; expected 2 names"),
        ({"class_names": "cat"}, TypeError, "expected a list of names"),
        ({"max_bytes": 0}, ValueError, "`max_bytes` is 0; expected an integer at least 1"),
        ({"max_pixels": "a"}, TypeError, "`max_pixels` is 'a'"),
        ({"threads": 0}, ValueError, "`threads` is 0"),
        ({"allowed_hosts": "localhost"}, TypeError, "expected a list of host names"),
        ({"allowed_hosts": []}, ValueError, "expected host names"),
        ({"image_size": (9, 9)}, ValueError, r"expected \(16, 24\), which the model takes"),
    ],
)
def test_bad_arguments(pets, options, error, text):
    with pytest.raises(error, match=text):
        bz.deploy.app(pets, **options)


def test_bad_models(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        bz.deploy.app(tmp_path / "no.keras")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        bz.deploy.app(tmp_path / "no.onnx")
    with pytest.raises(TypeError, match="`model` is 3"):
        bz.deploy.app(3)
    with pytest.raises(ValueError, match="has no weights yet"):
        bz.deploy.app(keras.Sequential([keras.layers.Dense(2)]))
    model = classifier()
    model.layers[-1].set_weights([np.full((4, 2), np.nan), np.zeros(2)])
    with pytest.raises(ValueError, match="NaN or infinite values"):
        bz.deploy.app(model)


# --- many at a time --------------------------------------------------------------------------


def test_two_hundred_requests_in_flight_and_each_gets_its_own_answer(asgi, served, pets, tmp_path):
    contents = [picture(seed=seed) for seed in range(10)]
    expected = [
        asgi(served, "POST", "/predict", content, "image/png").json() for content in contents
    ]
    requests = [
        {"method": "POST", "path": "/predict", "body": contents[i % 10], "kind": "image/png"}
        for i in range(200)
    ]
    answers = asgi.all(served, requests)
    assert [answer.status for answer in answers] == [200] * 200
    for i, answer in enumerate(answers):
        got = answer.json()["probabilities"]
        assert got == pytest.approx(expected[i % 10]["probabilities"], abs=1e-5)


def test_more_than_the_limit_get_503_and_can_come_again(asgi, pets):
    app = bz.deploy.app(pets, max_requests=3)
    request = {"method": "POST", "path": "/predict", "body": picture(), "kind": "image/png"}
    answers = asgi.all(app, [request] * 5)
    assert sorted(answer.status for answer in answers) == [200, 200, 200, 503, 503]
    late = next(answer for answer in answers if answer.status == 503)
    assert late.headers["retry-after"] == "2"
    assert asgi(app, **request).status == 200


def test_the_memory_for_bodies_is_bounded_and_all_get_their_turn():
    gate = Gate(Limits(held_bytes=10))
    most, done = 0, []

    async def use(i, size):
        nonlocal most
        async with gate.enter(size):
            most = max(most, gate.held)
            await asyncio.sleep(0)
            done.append(i)

    async def all_of_them():
        tasks = [asyncio.create_task(use(i, 1 + i % 5)) for i in range(50)]
        await asyncio.sleep(0)
        tasks[45].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await use(99, 1000)  # larger than all of it: alone

    asyncio.run(all_of_them())
    assert sorted(done) == [i for i in range(50) if i != 45] + [99]
    assert done[:45] == sorted(done[:45])
    assert most == 1000
    assert (gate.held, gate.inside, len(gate.waiting)) == (0, 0, 0)


def test_a_body_that_doesnt_arrive_is_given_up():
    from bigzoo.deploy._serve_body import read_body

    class Request:
        headers = {}  # noqa: RUF012

        async def stream(self):
            yield b"a"
            await asyncio.sleep(60)

    with pytest.raises(Refused, match=r"didn't arrive within 0\.05 seconds") as caught:
        asyncio.run(read_body(Request(), Limits(seconds=0.05)))
    assert caught.value.status == 408


# --- a real process --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pets_file(pets, tmp_path_factory):
    pytest.importorskip("uvicorn", reason="needs bigzoo[serve]")
    return bz.save(pets, tmp_path_factory.mktemp("served") / "pets.keras", ["cat", "dog"])


def post(port, body, kind="image/png", path="/predict"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", path, body, {"Content-Type": kind})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_connections_that_say_nothing_are_closed(pets):
    """And those that begin a second request and never end it; one that is answered late is not."""
    uvicorn = pytest.importorskip("uvicorn", reason="needs bigzoo[serve]")
    from bigzoo.deploy._serve_protocol import patient_protocol

    async def slow(scope, receive, send):
        if scope["path"] == "/slow":
            await asyncio.sleep(0.9)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(slow, http=patient_protocol(0.3), lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        whole = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for sent, answers in [
            (b"", 0),
            (b"GET / HTTP/1.1\r\nHost: loc", 0),
            (whole + b"GET / HT", 1),
            (whole + whole.replace(b"/ ", b"/slow ", 1), 2),
        ]:
            with socket.create_connection(listener.getsockname(), timeout=10) as connection:
                connection.sendall(sent)
                got = b""
                while chunk := connection.recv(65536):
                    got += chunk
            assert got.count(b"200 OK") == answers
    finally:
        server.should_exit = True
        thread.join(20)


def test_the_command(serving, pets_file, tmp_path, capsys):
    arguments = (str(pets_file), "--port", "0", "--max-bytes", "50000")
    with serving(*arguments, cwd=tmp_path) as (process, address, port):
        assert address == f"http://127.0.0.1:{port}/"
        statuses = []

        def ask():
            statuses.append(post(port, picture())[0])

        threads = [threading.Thread(target=ask) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert statuses == [200] * 40
        # The reason arrives though the body isn't taken.
        status, body = post(port, bytes(3_000_000))
        assert (status, json.loads(body)["error"][:21]) == (413, "the body is too large")
        _garbage(port)
        assert post(port, picture(), path="/grad_cam")[0] == 200
        _port_in_use(pets_file, port, capsys)
        process.terminate()
        assert process.wait(20) is not None
    assert "Traceback" not in (tmp_path / "server.log").read_text()


def _garbage(port):
    """What is no HTTP at all: refused or closed, and the server lives."""
    rng = np.random.default_rng(0)
    blobs = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6"
        b"\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        *(rng.integers(0, 256, 2000, np.uint8).tobytes() for _ in range(10)),
    ]
    for blob in blobs:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(blob)
            connection.shutdown(socket.SHUT_WR)
            got = b""
            try:
                while chunk := connection.recv(65536):
                    got += chunk
            except ConnectionResetError:
                pass
        assert not got or got.split()[1][:1] in (b"2", b"4"), got[:200]
    # One that stops in the middle of a body.
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
            b"Content-Length: 40000\r\n\r\nabc"
        )
    time.sleep(0.05)


def _port_in_use(pets_file, port, capsys):
    from bigzoo.__main__ import main

    assert main(["serve", str(pets_file), "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert f"Can't listen on 127.0.0.1, port {port}: Address already in use" in said


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["x.keras", "--port", "70000"], "`--port` is 70000; expected an integer at least 0"),
        (["x.keras", "--port", "a"], "invalid int value"),
        (["x.keras", "--port", "0", "--host", "no such host"], "is no address of this computer"),
        (["x.keras", "--port", "0", "--host", ""], "`--host` is empty"),
        (["x.keras", "--port", "0"], "There is no file 'x.keras'"),
        (["x.keras", "--port", "0", "--image-size", "12"], "expected height,width: 128,128"),
        ([], "the following arguments are required: model"),
    ],
)
def test_bad_commands(capsys, tmp_path, monkeypatch, arguments, text):
    from bigzoo.__main__ import main

    pytest.importorskip("uvicorn", reason="needs bigzoo[serve]")
    monkeypatch.chdir(tmp_path)
    assert main(["serve", *arguments]) == 2
    assert text in capsys.readouterr().err


def test_another_host_is_served_with_a_warning(capsys, monkeypatch, pets_file):
    uvicorn = pytest.importorskip("uvicorn", reason="needs bigzoo[serve]")
    from bigzoo.__main__ import main

    hosts = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: hosts.append(self.config.app))
    assert main(["serve", str(pets_file), "--port", "0", "--host", "0.0.0.0"]) == 0
    assert "it has no authentication" in capsys.readouterr().err
    assert "0.0.0.0" in hosts[0].hosts
    assert main(["serve", str(pets_file), "--port", "0"]) == 0
    got = capsys.readouterr()
    assert "authentication" not in got.err
    assert "Serving" in got.out
