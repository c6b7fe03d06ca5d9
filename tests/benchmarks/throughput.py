"""1 GiB to `pads:` and `file:` beside `cp` and `sync` of the same file on the same disk, and the time to start.

    python tests/benchmarks/throughput.py [DIRECTORY] [ROUNDS]

In turn within one run, since machines are noisy: what counts are the ratios. Peak memory is that of the process.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZE = 1 << 30
PUT = [sys.executable, "-m", "ppcli", "put", "big.bin", "-q", "--jobs", "20"]
CHECKOUT = str(Path(__file__).parents[2])


def timed(command: list[str], root: Path) -> tuple[float, float]:
    """Seconds, and peak memory in MiB."""
    env = {
        **os.environ,
        "PYTHONDONTWRITEBYTECODE": "",  # an installed program is compiled already
        "PYTHONPYCACHEPREFIX": str(root / "compiled"),
        "PYTHONPATH": CHECKOUT,
        "PPCLI_DATA_DIR": str(root / "data"),
        "PPCLI_CONFIG_DIR": str(root / "c"),
    }
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=root, env=env, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def clean(root: Path) -> None:
    for name in ("data", "c", "store"):
        shutil.rmtree(root / name, ignore_errors=True)
    (root / "copy.bin").unlink(missing_ok=True)
    (root / "store").mkdir()
    os.sync()


def main() -> None:
    root = Path(tempfile.mkdtemp(dir=sys.argv[1] if len(sys.argv) > 1 else None))
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    commands = {
        "cp + sync": ["sh", "-c", "cp big.bin copy.bin && sync copy.bin"],
        "pads:": [*PUT, "--to", "pads:"],
        "file:": [*PUT, "--to", "./store"],
    }
    try:
        with (root / "big.bin").open("wb") as file:
            for _ in range(SIZE >> 20):
                file.write(os.urandom(1 << 20))
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        peak = dict.fromkeys(commands, 0.0)
        for command in commands.values():  # once for the compiler, and for memory that the system has to find first
            clean(root)
            timed(command, root)
        for _ in range(rounds):
            for name, command in commands.items():
                clean(root)
                took, memory = timed(command, root)
                seconds[name].append(took)
                peak[name] = max(peak[name], memory)
        for name in commands:
            ratios = [a / b for a, b in zip(seconds[name], seconds["cp + sync"], strict=True)]
            sys.stdout.write(
                f"{name:10} median {statistics.median(seconds[name]):5.2f} s, {statistics.median(ratios):.2f} of cp"
                f" and sync ({min(ratios):.2f} to {max(ratios):.2f}), peak {peak[name]:.0f} MiB\n"
            )
        start(root, rounds * 3)
    finally:
        shutil.rmtree(root)


def start(root: Path, rounds: int) -> None:
    ours, click = [], []
    for _ in range(rounds):
        click.append(timed([sys.executable, "-c", "import click"], root)[0])
        ours.append(timed([sys.executable, "-m", "ppcli", "--version"], root)[0])
    ratio = statistics.median(ours) / statistics.median(click)
    sys.stdout.write(
        f"--version  median {statistics.median(ours) * 1e3:.0f} ms, {ratio:.2f} of python -c 'import click'\n"
    )


if __name__ == "__main__":
    main()
