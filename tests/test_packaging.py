"""What is in the distributions, and what their metadata says."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from importlib.metadata import version
from pathlib import Path

import pytest

import bigzoo

ROOT = Path(__file__).resolve().parents[1]
BUILD = """
import pathlib, sys
from setuptools import build_meta
target = pathlib.Path(sys.argv[1])
target.mkdir()
build_meta.build_wheel(str(target))
build_meta.build_sdist(str(target))
"""


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """Wheel and source archive, built from a copy: a build writes into the folder it builds."""
    if int(version("setuptools").partition(".")[0]) < 77:
        pytest.skip("needs setuptools 77")
    folder = tmp_path_factory.mktemp("packaging")
    source = folder / "source"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "bigzoo", source / "bigzoo", ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-c", BUILD, str(folder / "dist")]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    return wheel, sdist


def sources() -> set[str]:
    files = (ROOT / "bigzoo").rglob("*.py")
    data = {"bigzoo/py.typed", "bigzoo/deploy/page.html"}
    return {str(path.relative_to(ROOT)) for path in files} | data


def test_wheel_has_the_package_with_its_type_marker_and_nothing_else(distributions):
    names = set(zipfile.ZipFile(distributions[0]).namelist())
    info = f"bigzoo-{bigzoo.__version__}.dist-info/"
    assert {name for name in names if not name.startswith(info)} == sources()
    assert f"{info}licenses/LICENSE" in names


def test_sdist_can_be_built_from(distributions):
    with tarfile.open(distributions[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert sources() <= names
    assert {"pyproject.toml", "setup.py", "README.md", "LICENSE"} <= names


def test_metadata(distributions):
    archive = zipfile.ZipFile(distributions[0])
    path = f"bigzoo-{bigzoo.__version__}.dist-info/METADATA"
    metadata = Parser().parsestr(archive.read(path).decode())
    assert metadata["Name"] == "bigzoo"
    assert metadata["Version"] == bigzoo.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra")) == {
        "docs",
        "energy",
        "jax",
        "litert",
        "onnx",
        "openvino",
        "serve",
        "test",
        "text",
        "torch",
        "weights",
    }
    required = metadata.get_all("Requires-Dist")
    core = {line.partition(">")[0] for line in required if "extra ==" not in line}
    assert core == {"tensorflow", "keras", "numpy", "h5py", "pillow", "matplotlib"}
    assert "keras>=3.12" in required
    assert metadata.get_payload().lstrip().startswith("# bigzoo")


def test_setup_py_is_thin():
    """All metadata are in pyproject.toml: two places would come to differ."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    (call,) = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert (call.args, call.keywords) == ([], [])


def test_licence_is_apache():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
