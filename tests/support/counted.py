"""Runs a daemon, and writes into a file, once a second, how many of its tasks have not ended.

python -m tests.support.counted FILE MODULE [OPTION ...]
"""

import asyncio
import gc
import runpy
import sys
import threading
import time
from pathlib import Path


def _count(file: Path) -> None:
    while True:
        tasks = [found for found in gc.get_objects() if type(found) is asyncio.Task]
        file.write_text(str(sum(not task.done() for task in tasks)))
        del tasks
        time.sleep(1.0)


if __name__ == "__main__":
    threading.Thread(target=_count, args=[Path(sys.argv[1])], daemon=True).start()
    del sys.argv[:2]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
