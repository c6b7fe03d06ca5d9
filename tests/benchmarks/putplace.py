"""A file to a loopback PutPlace sink, beside what it cannot do without: its SHA-256, and `curl` to the same route.

    python tests/benchmarks/putplace.py [MIB] [ROUNDS] [DIRECTORY]

In turn within one run, since machines are noisy: what counts is the ratio of ours to `openssl dgst -sha256` plus
`curl -T`. The sink hashes chunks, as a server must. Peak memory is that of the process.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from throughput import timed

SINK = Path(__file__).with_name("sink.py")
PUT = [sys.executable, "-m", "ppcli", "put", "big.bin", "-q", "--jobs", "20", "--to"]


def main() -> None:
    size = (int(sys.argv[1]) if len(sys.argv) > 1 else 4096) << 20
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    root = Path(tempfile.mkdtemp(dir=sys.argv[3] if len(sys.argv) > 3 else None))
    sink = subprocess.Popen([sys.executable, SINK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert sink.stdout is not None
    url = sink.stdout.readline().strip()
    curl = ["curl", "-sS", "-o", os.devnull, "-T", "big.bin", f"{url}/api/uploads/one/chunk/0"]
    try:
        with (root / "big.bin").open("wb") as file:
            for _ in range(size >> 20):
                file.write(os.urandom(1 << 20))
        ratios, peak = [], 0.0
        for _ in range(rounds):
            shutil.rmtree(root / "data", ignore_errors=True)
            digest, _ = timed(["openssl", "dgst", "-sha256", "big.bin"], root)
            sent, _ = timed(curl, root)
            ours, memory = timed([*PUT, url], root)
            ratios.append(ours / (digest + sent))
            peak = max(peak, memory)
            sys.stdout.write(
                f"sha256 {digest:6.2f} s   curl {sent:6.2f} s   ours {ours:6.2f} s, {ratios[-1]:.2f} of both\n"
            )
        sys.stdout.write(f"median {statistics.median(ratios):.2f}, peak {peak:.0f} MiB\n")
    finally:
        sink.communicate()
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
