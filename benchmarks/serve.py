"""`python -m benchmarks.serve`: requests in flight against a real server, and what it takes.

Starts `python -m bigzoo serve` on a small CNN and keeps `--in-flight` connections busy until
`--requests` photos are answered; prints how many were lost, requests per second, and the times that
a request took. Client and server share this machine's cores, as they would not in use.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SIZE = 64


@dataclass
class Tally:
    """What came back."""

    seconds: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def make_model(folder: Path) -> Path:
    """An untrained CNN: what it answers is wrong, the work is the same."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.path.insert(0, str(ROOT))
    import bigzoo as bz

    model = bz.models.cnn((SIZE, SIZE, 3), num_classes=2)
    return bz.save(model, folder / "pets.keras", class_names=["cat", "dog"])


def make_photos(count: int) -> list[bytes]:
    """JPEG files of 480 x 360 drawn pixels."""
    import numpy as np
    from PIL import Image

    import bigzoo as bz

    drawn, _ = bz.data.drawn_pets(count // 2, image_size=(360, 480), seed=0)
    found = []
    for pixels in drawn:
        file = io.BytesIO()
        Image.fromarray(np.asarray(pixels).astype("uint8")).save(file, "JPEG", quality=90)
        found.append(file.getvalue())
    return found


async def ask(port: int, photo: bytes) -> dict[str, Any]:
    """One request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = (
            f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: image/jpeg\r\n"
            f"Content-Length: {len(photo)}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + photo)
        await writer.drain()
        answer = await reader.read()
    finally:
        writer.close()
    head_bytes, _, body = answer.partition(b"\r\n\r\n")
    status = int(head_bytes.split()[1])
    if status != 200:
        raise ValueError(f"status {status}: {body[:100]!r}")
    found: dict[str, Any] = json.loads(body)
    return found


async def load(port: int, photos: list[bytes], in_flight: int, requests: int) -> Tally:
    """`requests` requests, `in_flight` at a time; each answer is compared with a first one."""
    expected = [await ask(port, photo) for photo in photos]
    tally, left = Tally(), iter(range(requests))

    async def worker() -> None:
        for number in left:
            which = number % len(photos)
            start = time.perf_counter()
            try:
                found = await ask(port, photos[which])
            except (OSError, ValueError, IndexError) as error:
                tally.lost.append(f"{type(error).__name__}: {error}")
                continue
            tally.seconds.append(time.perf_counter() - start)
            if abs(found["probability"] - expected[which]["probability"]) > 1e-4:
                tally.lost.append(f"another photo's answer for {which}")

    await asyncio.gather(*(worker() for _ in range(in_flight)))
    return tally


def start(model: Path, folder: Path) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-m", "bigzoo", "serve", str(model), "--port", "0"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=folder, env=env, text=True)
    if process.stdout is None:
        raise RuntimeError("no output to read")
    line = process.stdout.readline()
    found = re.search(r":(\d+)/", line)
    if found is None:
        process.kill()
        raise SystemExit(f"the server didn't start: {line!r}")
    return process, int(found[1])


def resident_bytes(process: subprocess.Popen[str]) -> int | None:
    """Memory of the server; None where there is no /proc."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__)
    parser.add_argument("--in-flight", type=int, default=200, metavar="N", help="[200]")
    parser.add_argument("--requests", type=int, default=2000, metavar="N", help="[2000]")
    parser.add_argument("--output", type=Path, help="write the report as JSON")
    arguments = parser.parse_args()
    if min(arguments.in_flight, arguments.requests) < 1:
        parser.error("--in-flight and --requests are at least 1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_model(folder)
        photos = make_photos(8)
        process, port = start(model, folder)
        try:
            asyncio.run(load(port, photos, 4, 40))  # a warm-up
            before = resident_bytes(process)
            began = time.perf_counter()
            tally = asyncio.run(load(port, photos, arguments.in_flight, arguments.requests))
            elapsed = time.perf_counter() - began
            after = resident_bytes(process)
        finally:
            process.terminate()
            process.wait(30)
    return report(arguments, tally, elapsed, before, after)


def report(
    arguments: argparse.Namespace,
    tally: Tally,
    elapsed: float,
    before: int | None,
    after: int | None,
) -> int:
    times = sorted(tally.seconds) or [float("nan")]
    found = {
        "requests": arguments.requests,
        "in_flight": arguments.in_flight,
        "lost": len(tally.lost),
        "requests_per_second": len(tally.seconds) / elapsed,
        "p50_seconds": times[len(times) // 2],
        "p99_seconds": times[min(len(times) - 1, int(0.99 * len(times)))],
        "server_growth_bytes": None if before is None or after is None else after - before,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
    }
    print(f"{found['requests']} photos, {found['in_flight']} in flight: {found['lost']} lost")
    print(f"{found['requests_per_second']:.0f} requests/s")
    print(f"p50 {1e3 * found['p50_seconds']:.0f} ms, p99 {1e3 * found['p99_seconds']:.0f} ms")
    if found["server_growth_bytes"] is not None:
        print(f"the server grew by {found['server_growth_bytes'] / 1e6:.1f} MB")
    for text in sorted(set(tally.lost))[:5]:
        print(f"lost: {text}")
    print(f"{found['cores']} cores, load {found['load']}, Python {found['python']}")
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 1 if tally.lost else 0


if __name__ == "__main__":
    sys.exit(main())
