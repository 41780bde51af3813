"""`cost_case`: one test for each model of `cases.py`."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest


def _cases() -> ModuleType:
    """`cases.py` by its path: with --import-mode=importlib the tests are no package."""
    name = "bigzoo_cost_cases"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("cases.py"))
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def pytest_generate_tests(metafunc):
    """A test that takes `cost_case` runs once for each of `CASES`."""
    if "cost_case" in metafunc.fixturenames:
        cases = _cases().CASES
        metafunc.parametrize("cost_case", cases, ids=[case.name for case in cases])


@dataclass
class World:
    """A computer that isn't there: what `bigzoo.cost._probe` finds on it."""

    files: dict[str, str] = field(default_factory=dict)
    programs: dict[str, tuple[int, str]] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    requirements: dict[str, tuple[str, ...]] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)

    def read_text(self, path):
        return self.files.get(path, "")

    def exists(self, path):
        return path in self.files

    def files_in(self, folder):
        inside = [path[len(folder) + 1 :] for path in self.files if path.startswith(f"{folder}/")]
        return tuple(sorted({name.partition("/")[0] for name in inside}))

    def program(self, name):
        return f"/usr/bin/{name}" if name in self.programs else None

    def run(self, command, timeout=10.0):
        """By the whole command line, or by the name of the program alone."""
        whole, name = " ".join(command), command[0].rpartition("/")[2]
        return self.programs.get(whole, self.programs.get(name, (127, "not found")))

    def version(self, distribution):
        return self.packages.get(distribution)

    def requires(self, distribution):
        return self.requirements.get(distribution, ())

    def variable(self, name):
        return self.variables.get(name)


@pytest.fixture
def world(monkeypatch):
    """An empty `World` in the place of this computer; fill its dicts."""
    from bigzoo.cost import _probe

    made = World()
    for name in ("read_text", "exists", "files_in", "program", "run", "version", "variable"):
        monkeypatch.setattr(_probe, name, getattr(made, name))
    monkeypatch.setattr(_probe, "requirements", made.requires)
    return made
