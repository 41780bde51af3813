"""Make the pictures of README and docs: `python docs/make_pictures.py`.

Runs the examples as they stand and keeps their plots, reduced to at most 200 kB each.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).resolve().parent
EXAMPLES = DOCS.parent / "examples"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="short trainings")
    small = ["--small"] if parser.parse_args().small else []
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        for script in ("linear_regression.py", "cat_dog.py"):
            command = [sys.executable, str(EXAMPLES / script), "--output", str(out), *small]
            subprocess.run(command, check=True)
        keep(out / "linear_regression.png", "fit_line.png")
        for plot in ("history", "confusion", "predictions"):
            keep(out / f"{plot}.png", f"{plot}.png")
        draw_cost(out / "cost.png")
    draw_pets()


def keep(plot: Path, name: str) -> None:
    """At most 1,200 pixels wide, in 256 colours."""
    from PIL import Image

    with Image.open(plot) as picture:
        picture = picture.convert("RGB")
        picture.thumbnail((1200, 1200))
        picture.quantize(256).save(DOCS / "images" / name, optimize=True)


def draw_cost(plot: Path) -> None:
    """Where the tutorials' network costs, and its roofline."""
    import bigzoo as bz

    model = bz.models.cnn((224, 224, 3), num_classes=2, variant="plain")
    report = bz.cost.analyze(model, batch_size=32, dtype="mixed_bfloat16")
    bz.plot.cost(report, on=bz.cost.hardware.get("a100-80")).savefig(plot)
    keep(plot, "cost.png")


def draw_pets() -> None:
    """One cat and one dog, to try `cat_dog.py --classify` on."""
    from PIL import Image

    import bigzoo as bz

    x, y = bz.data.drawn_pets(2, image_size=(128, 128), seed=5)
    for picture, label in zip(x, y, strict=True):
        Image.fromarray(picture).save(DOCS / "images" / f"{bz.data.PET_NAMES[label]}.png")


if __name__ == "__main__":
    main()
