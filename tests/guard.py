"""Run a command for as long as standard input is open: `python guard.py COMMAND...`, which prints the command's pid.

A server that tests have started ends with them, also when they are killed: the pipe to this process closes then.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading


def main() -> None:
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=sys.stderr)
    sys.stdout.write(f"{child.pid}\n")
    sys.stdout.flush()
    threading.Thread(target=lambda: os._exit(child.wait() & 0xFF), daemon=True).start()
    sys.stdin.buffer.read()
    child.kill()
    child.wait()


if __name__ == "__main__":
    main()
