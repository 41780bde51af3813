"""`python -m bigzoo doctor`: versions, devices, why a GPU isn't used, speed, memory."""

from __future__ import annotations

import argparse
import json
from typing import Any

from bigzoo.cost._doctor import doctor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(arguments: argparse.Namespace, build: Any) -> int:
    """Print the diagnosis; 1 if a problem was found, as the exit status."""
    found = doctor()
    print(json.dumps(found.to_dict(), indent=2) if arguments.json else found)
    return 0 if found.ok else 1
