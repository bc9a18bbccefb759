"""An image of 100 megapixels is predicted within 2 GB of memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests.support.paths import ROOT

SIZE = (11600, 8700)
LIMIT_MB = 2000
# The peak of the largest process: ru_maxrss is in kB on Linux, in bytes on macOS.
MEASURE = """
import resource, subprocess, sys
status = subprocess.run([sys.executable, "-m", "igvg_cli", *sys.argv[1:]]).returncode
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print("peak MB", peak // (1 << 20 if sys.platform == "darwin" else 1 << 10))
sys.exit(status)
"""


def test_a_photo_of_100_megapixels_that_lies_on_its_side_takes_less_than_2_gb(tmp_path: Path) -> None:
    image = Image.new("RGB", SIZE, (200, 200, 200))
    image.paste((220, 30, 30), (4000, 3000, 8000, 6000))
    turned = Image.Exif()
    turned[0x112] = 6
    image.save(tmp_path / "large.jpg", quality=60, exif=turned)
    del image
    words = ("predict", "--checkpoint", "shapes", "--image", tmp_path / "large.jpg", "--text", "the red square",
             "--save", "overlays,masks,cutouts", "--out", tmp_path / "out")  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, words)], capture_output=True, text=True, cwd=ROOT, timeout=240
    )
    assert result.returncode == 0, result.stderr
    peak = int(result.stdout.split("peak MB")[1])
    assert 100 < peak < LIMIT_MB
    prediction = json.loads((tmp_path / "out" / "predictions.jsonl").read_text())
    assert prediction["mask"]["size"] == [SIZE[0], SIZE[1]]
    with Image.open(tmp_path / "out" / "overlays" / "large-jpg-0.png") as overlay:
        assert overlay.width < overlay.height < 3000
    assert (tmp_path / "out" / "masks" / "large.jpg-0.png").is_file()
