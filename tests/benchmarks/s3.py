"""One large file and many small ones to S3, beside curl, s5cmd and aws; the loopback sink takes them.

    python tests/benchmarks/s3.py [ROUNDS] [GIB] [FILES]

curl, s5cmd and aws are those on the PATH, or named by CURL, S5CMD and AWS; what is not there is left out. In turn in
one run, since machines are noisy: what counts are the ratios. CPU is that of the sender.
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

CHECKOUT = str(Path(__file__).parents[2])
SMALL = 4096
KEYS = {
    "AWS_ACCESS_KEY_ID": "x",
    "AWS_SECRET_ACCESS_KEY": "x",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def tool(name: str) -> str | None:
    return os.environ.get(name.upper()) or shutil.which(name)


def run(command: list[str], root: Path) -> tuple[float, float, float]:
    """Seconds, seconds of CPU, and peak memory in MiB."""
    shutil.rmtree(root / "data", ignore_errors=True)
    env = {
        **os.environ,
        **KEYS,
        "PYTHONPATH": CHECKOUT,
        "PPCLI_DATA_DIR": str(root / "data"),
        "PPCLI_CONFIG_DIR": str(root / "c"),
    }
    if command[0] == sys.executable:  # an installed program is compiled already
        env |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(root / "compiled")}
    start = time.perf_counter()
    with (root / "stderr").open("wb") as errors:
        process = subprocess.Popen(command, cwd=root, env=env, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, (command, (root / "stderr").read_text()[-2000:])
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def large(base: str) -> dict[str, list[str]]:
    commands = {
        "ppcli": [
            sys.executable,
            "-m",
            "ppcli",
            "put",
            "-q",
            "big.bin",
            "--to",
            f"s3://s3?endpoint={base}&region=us-east-1",
        ]
    }
    if curl := tool("curl"):
        commands["curl -T"] = [curl, "-sf", "-H", "Expect:", "-T", "big.bin", f"{base}/s3/big.bin"]
    if s5cmd := tool("s5cmd"):
        commands["s5cmd cp"] = [s5cmd, "--endpoint-url", base, "cp", "big.bin", "s3://s3/big.bin"]
    if aws := tool("aws"):
        commands["aws s3 cp"] = [aws, "--endpoint-url", base, "s3", "cp", "--quiet", "big.bin", "s3://s3/big.bin"]
    return commands


def small(base: str) -> dict[str, list[str]]:
    commands = {
        "ppcli": [
            sys.executable,
            "-m",
            "ppcli",
            "put",
            "-q",
            "-r",
            "small",
            "--to",
            f"s3://s3?endpoint={base}&region=us-east-1",
        ]
    }
    if s5cmd := tool("s5cmd"):
        commands["s5cmd cp"] = [s5cmd, "--endpoint-url", base, "cp", "small/", "s3://s3/"]
    if aws := tool("aws"):
        commands["aws s3 cp"] = [aws, "--endpoint-url", base, "s3", "cp", "--quiet", "--recursive", "small", "s3://s3/"]
    return commands


def report(title: str, commands: dict[str, list[str]], root: Path, rounds: int) -> None:
    seen: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
    run(commands["ppcli"], root)  # compiles it
    for _ in range(rounds):
        for name, command in commands.items():
            seen[name].append(run(command, root))
    sys.stdout.write(f"{title}\n")
    for name, runs in seen.items():
        wall = statistics.median(one[0] for one in runs)
        processor = statistics.median(one[1] for one in runs)
        ratio = statistics.median(ours[0] / one[0] for ours, one in zip(seen["ppcli"], runs, strict=True))
        busy = statistics.median(ours[1] / one[1] for ours, one in zip(seen["ppcli"], runs, strict=True))
        peak = max(one[2] for one in runs)
        sys.stdout.write(
            f"  {name:10} {wall:7.2f} s  CPU {processor:7.2f} s  peak {peak:5.0f} MiB"
            f"   ppcli takes {ratio:5.2f} of its time, {busy:5.2f} of its CPU\n"
        )
    sys.stdout.flush()


def main() -> None:
    rounds, gib, files = (int(word) for word in [*sys.argv[1:], *("3", "4", "5000")[len(sys.argv) - 1 :]])
    sink = subprocess.Popen([sys.executable, str(Path(__file__).with_name("sink.py"))], stdin=-1, stdout=-1, text=True)
    assert sink.stdin and sink.stdout
    base = sink.stdout.readline().strip()
    root = Path(tempfile.mkdtemp())
    try:
        with (root / "big.bin").open("wb") as file:
            for _ in range(gib << 10):
                file.write(os.urandom(1 << 20))
        (root / "small").mkdir()
        for number in range(files):
            (root / "small" / f"{number:06}").write_bytes(os.urandom(SMALL))
        os.sync()
        if gib:
            report(f"{gib} GiB, one file", large(base), root, rounds)
        if files:
            report(f"{files} files of {SMALL} bytes", small(base), root, rounds)
    finally:
        sink.stdin.close()
        sink.wait()
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
