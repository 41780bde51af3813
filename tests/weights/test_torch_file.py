"""Reading PyTorch's files without PyTorch: both formats, damaged files, files that hold code."""

import importlib.util
import io
import pickle
import shutil
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from bigzoo.weights import open_checkpoint
from bigzoo.weights._torch_file import read_torch_file

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
EXPECTED = np.load(GOLDEN / "torch_files.npz")
FILES = [GOLDEN / "torch_zip.pth", GOLDEN / "torch_legacy.pth"]

both_formats = pytest.mark.parametrize("file", FILES, ids=["zip", "legacy"])


def differences(found: dict, expected) -> list[str]:
    """Names whose array isn't the expected one, bit for bit, in shape and dtype."""
    names = {*found, *expected}
    return sorted(
        name
        for name in names
        if name not in found
        or name not in expected
        or found[name].dtype != expected[name].dtype
        or found[name].shape != expected[name].shape
        or found[name].tobytes() != expected[name].tobytes()
    )


@both_formats
def test_every_kind_of_tensor_is_read(file):
    found = read_torch_file(file)
    assert list(found) == list(EXPECTED)
    assert differences(found, EXPECTED) == []
    assert all(array.flags.c_contiguous and array.flags.writeable for array in found.values())


def test_differences_are_seen():
    found = {name: EXPECTED[name] for name in EXPECTED}
    assert differences(found, EXPECTED) == []
    changed = {**found, "float32": found["float32"] + 1e-6, "more": np.zeros(2)}
    changed |= {"int8": found["int8"].astype("int16"), "part": found["part"].T}
    del changed["bool"]
    assert differences(changed, EXPECTED) == ["bool", "float32", "int8", "more", "part"]


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch isn't installed")
@pytest.mark.parametrize("zipped", [True, False])
def test_equals_torch_load(zipped, tmp_path, run_python):
    """In a process of its own: PyTorch and TensorFlow don't always go together in one."""
    file = tmp_path / "model.pth"
    run_python(f"""
import numpy as np, torch
torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Conv2d(3, 5, 3), torch.nn.BatchNorm2d(5), torch.nn.LSTM(4, 3), torch.nn.Linear(6, 2)
)
checkpoint = {{"epoch": 3, "state_dict": model.state_dict(), "optimizer": {{"lr": 0.1}}}}
torch.save(checkpoint, {str(file)!r}, _use_new_zipfile_serialization={zipped})
state = torch.load({str(file)!r}, weights_only=True)["state_dict"]
np.savez({str(tmp_path / "state.npz")!r}, **{{k: v.numpy() for k, v in state.items()}})
""")
    expected = np.load(tmp_path / "state.npz")
    assert len(expected.files) == 13
    assert differences(read_torch_file(file), expected) == []


@both_formats
def test_opens_as_a_checkpoint(file):
    checkpoint = open_checkpoint(file)
    assert checkpoint.tensors["transposed"] == (6, 4)
    np.testing.assert_array_equal(checkpoint.read("part"), EXPECTED["part"])


# --- damaged files ---------------------------------------------------------------------------


@both_formats
@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, "all but one byte"])
def test_truncated_file(file, share, tmp_path):
    data = file.read_bytes()
    keep = len(data) - 1 if isinstance(share, str) else int(share * len(data))
    cut = tmp_path / "cut.pth"
    cut.write_bytes(data[:keep])
    text = r"'.*cut\.pth' (is damaged or no PyTorch file|can't be read as a PyTorch file)"
    with pytest.raises(ValueError, match=text):
        read_torch_file(cut)


@both_formats
def test_a_changed_byte_gives_an_error_or_other_numbers(file, tmp_path):
    """Never another kind of exception, wherever the byte is."""
    data = bytearray(file.read_bytes())
    rng = np.random.default_rng(0)
    changed = tmp_path / "changed.pth"
    errors = 0
    for place in rng.integers(0, len(data), 300):
        damaged = data.copy()
        damaged[place] ^= int(rng.integers(1, 256))
        changed.write_bytes(damaged)
        try:
            read_torch_file(changed)
        except ValueError:
            errors += 1
    assert errors > 30


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "begins with nothing: the file is empty"),
        (b"<html>not found</html>", "begins with b'<htm', neither a zip archive nor a pickle"),
        (b"version https://git-lfs.github.com/spec/v1\n", "begins with b'vers'"),
        (pickle.dumps({"a": 1}), "it is a pickle, but torch.save didn't write it"),
        (b"PK\x03\x04 and nothing else", "is damaged or no PyTorch file .21 bytes"),
    ],
)
def test_other_files(data, text, tmp_path):
    file = tmp_path / "model.pth"
    file.write_bytes(data)
    with pytest.raises(ValueError, match=text):
        read_torch_file(file)


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file '.*lost\.pth'"):
        read_torch_file(tmp_path / "lost.pth")


# --- files that hold something else, or code --------------------------------------------------


class Code:
    """Pickled as a call of any function: what a hostile file would do."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def write_zip(file: Path, data: bytes, compression=zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/data/0", b"\0" * 8)
    return file


def tensor_pickle(offset=0, shape=(2,), strides=(1,), length=2) -> bytes:
    """A state dict of one float32 tensor in the storage "0", as torch.save writes it."""

    class Pickler(pickle._Pickler):  # the one in Python: it can write names that don't exist
        def persistent_id(self, value):
            if isinstance(value, Storage):
                return "storage", Name("torch", "FloatStorage"), "0", "cpu", length
            return None

        def save(self, value, save_persistent_id=True):
            if isinstance(value, Name):
                self.write(f"c{value.module}\n{value.name}\n".encode())
                return None
            return super().save(value, save_persistent_id)

    class Tensor:
        def __reduce_ex__(self, protocol):
            arguments = Storage(), offset, shape, strides, False, OrderedDict()
            return Name("torch._utils", "_rebuild_tensor_v2"), arguments

    stream = io.BytesIO()
    Pickler(stream, 2).dump({"w": Tensor()})
    return stream.getvalue()


class Storage:
    pass


class Name:
    def __init__(self, module, name):
        self.module, self.name = module, name

    def __call__(self):
        """pickle wants something that can be called."""


def test_hand_made_file_is_read(tmp_path):
    """Otherwise the next tests could fail for another reason than theirs."""
    found = read_torch_file(write_zip(tmp_path / "m.pth", tensor_pickle()))
    np.testing.assert_array_equal(found["w"], np.zeros(2, "float32"))


@pytest.mark.parametrize(
    "view",
    [
        {"shape": (3,)},
        {"offset": 1},
        {"offset": -1},
        {"shape": (2,), "strides": (2,)},
        {"shape": (-2,)},
        {"shape": (2, 1)},
        {"shape": (10**6, 10**6), "strides": (0, 0)},
        {"length": 3},
        {"length": 10**12},
    ],
)
def test_view_beyond_the_storage(view, tmp_path):
    file = write_zip(tmp_path / "m.pth", tensor_pickle(**view))
    with pytest.raises(ValueError, match=r"reaches beyond its storage|8 bytes for 1?0*3? ?"):
        read_torch_file(file)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (Code(print, "code was run"), r"refers to (__builtin__|builtins)\.print.*foreign code"),
        (Code(eval, "1 + 1"), r"refers to (__builtin__|builtins)\.eval"),
        (Code(shutil.rmtree, "/no/such"), r"refers to shutil\.rmtree"),
        ({"w": np.zeros(2)}, r"refers to numpy"),
        (["a", "list"], "it holds a list, not a state dict"),
        ({"epoch": 3}, "'epoch' is no tensor"),
        ({}, "it is empty"),
        ({"state_dict": {}}, "it is empty"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_foreign_content(content, text, protocol, tmp_path, capsys):
    file = write_zip(tmp_path / "m.pth", pickle.dumps(content, protocol=protocol))
    with pytest.raises(ValueError, match=text):
        read_torch_file(file)
    assert "code was run" not in capsys.readouterr().out


def test_code_in_the_old_format(tmp_path, capsys):
    file = tmp_path / "m.pth"
    file.write_bytes(pickle.dumps(Code(print, "code was run"), protocol=2))
    with pytest.raises(ValueError, match="foreign code"):
        read_torch_file(file)
    assert capsys.readouterr().out == ""


def test_compressed_archive_is_refused(tmp_path):
    """A few bytes could unpack to more than the memory."""
    file = write_zip(tmp_path / "m.pth", tensor_pickle(), zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="its parts are compressed"):
        read_torch_file(file)


def test_archive_without_a_pickle(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.pth", "w") as archive:
        archive.writestr("other/file.txt", "text")
    with pytest.raises(ValueError, match="the archive has no data"):
        read_torch_file(tmp_path / "m.pth")
