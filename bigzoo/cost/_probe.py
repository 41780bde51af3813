"""The outside world: files, programs, packages, the environment. Tests put stand-ins here.

Nothing in this module fails: what isn't there is empty or None.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path


def read_text(path: str) -> str:
    """The text of a file, "" if it can't be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").rstrip("\x00")
    except OSError:
        return ""


def exists(path: str) -> bool:
    """Whether there is a file or device of this name."""
    try:
        return Path(path).exists()
    except OSError:
        return False


def files_in(folder: str) -> tuple[str, ...]:
    """Names of the files in a folder; empty if it can't be read."""
    try:
        return tuple(sorted(entry.name for entry in os.scandir(folder)))
    except OSError:
        return ()


def program(name: str) -> str | None:
    """Path of a program, None if it isn't there."""
    return shutil.which(name)


def run(command: Sequence[str], timeout: float = 10.0) -> tuple[int, str]:
    """(exit status, output and errors) of a program; status 127 if it can't be started."""
    try:
        done = subprocess.run(
            list(command), capture_output=True, text=True, timeout=timeout, check=False
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return 127, str(error)
    return done.returncode, done.stdout if done.returncode == 0 else done.stdout + done.stderr


def version(distribution: str) -> str | None:
    """Version of an installed package, without importing it; None if it isn't installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def requirements(distribution: str) -> tuple[str, ...]:
    """What an installed package asks for, as its metadata say; empty if it isn't installed."""
    try:
        return tuple(importlib.metadata.requires(distribution) or ())
    except importlib.metadata.PackageNotFoundError:
        return ()


def variable(name: str) -> str | None:
    """A variable of the environment."""
    return os.environ.get(name)
