"""putplace-assist's own uploader, driven for a test: `python assist_driver.py WHAT FILE...`, WHAT is upload or delete.

It is the uploader of its daemon (component 3) with its own database and its own login, minus the loop that waits for
work. Prints one line of JSON: what it said of every file, and how much is left in its queues. Its settings, and where
its home is, come from the environment.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from putplace_assist.database import db
from putplace_assist.uploader_v3 import UploaderV3, encrypt_password


async def upload(uploader: Any, files: list[Path]) -> list[bool]:
    """All at once, as its worker does with what it takes from the queue."""
    for path in files:
        await db.enqueue_for_upload(str(path), hashlib.sha256(path.read_bytes()).hexdigest())
    entries = await db.dequeue_for_upload(limit=len(files))
    return list(await asyncio.gather(*(uploader._process_upload(entry) for entry in entries)))


async def delete(uploader: Any, files: list[Path]) -> list[bool]:
    """One after the other, as its worker does."""
    for path in files:
        await db.enqueue_for_deletion(str(path), hashlib.sha256(path.read_bytes()).hexdigest())
    return [await uploader._process_deletion(entry) for entry in await db.dequeue_for_deletion(limit=len(files))]


async def main(what: str, files: list[Path]) -> None:
    await db.connect()
    try:
        email, password = os.environ["ASSIST_EMAIL"], encrypt_password(os.environ["ASSIST_PASSWORD"])
        if not await db.get_default_server():
            await db.add_server("target", os.environ["ASSIST_SERVER"], email, password, True)
        said = await (upload if what == "upload" else delete)(UploaderV3(), files)
        counts = await db.get_queue_counts()
        sys.stdout.write(json.dumps({"said": said, "queued": counts}) + "\n")
    finally:
        await db.disconnect()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], [Path(name) for name in sys.argv[2:]]))
