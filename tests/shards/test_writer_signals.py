"""Writing shards while somebody ends it: no worker is left behind, and finished shards stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

PROGRAM = """
    import sys
    sys.path.insert(0, sys.argv[1])
    from pathlib import Path
    from tiny_shards import dawdle, make_items
    from shards.writer import slice_items, write_slices

    if __name__ == "__main__":
        slices = slice_items(make_items(Path("pictures"), [1] * 300), records=5, size=1 << 30)
        show = lambda done: print(done, flush=True)
        write_slices(Path(), "val", slices, dawdle, workers=2, on_progress=show)
"""


def start_program(folder: Path) -> subprocess.Popen[str]:
    """Start a run of a minute with two workers, as a process group; returns after its first shard."""
    program = folder / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, str(program), str(Path(__file__).parent)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "5"
    return process


def wait_for_all(process: subprocess.Popen[str]) -> str:
    """What was said on standard error, once the last worker has ended (they all hold the pipes open)."""
    try:
        return process.communicate(timeout=15)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def test_ctrl_c_stops_all_workers_at_once_and_keeps_finished_shards(tmp_path: Path) -> None:
    process = start_program(tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    messages = wait_for_all(process)
    assert messages.rstrip().endswith("KeyboardInterrupt")
    assert "SpawnProcess" not in messages
    left = sorted(file.name for file in (tmp_path / "val").iterdir())
    tars = [name for name in left if name.endswith(".tar")]
    assert 1 <= len(tars) <= 3
    assert left == sorted([*tars, *(f"{name}.json" for name in tars)])


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    process = start_program(tmp_path)
    process.kill()
    wait_for_all(process)
    assert not (tmp_path / "val/index.json").exists()
