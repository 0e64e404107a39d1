"""A line that says what is running and for how long."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from typing import TextIO


class Ticker:
    """Show what is running and for how long: a moving line on a terminal, else two plain lines.

    Args:
        label: What is running.
        stream: Where to write; standard output by default.

    Attributes:
        detail: What it is busy with, shown on a terminal; may be set at any time.
    """

    def __init__(self, label: str, stream: TextIO | None = None) -> None:
        self.label = label
        self.detail = ""
        self.stream = stream or sys.stdout
        self.live = self.stream.isatty()
        self._done = threading.Event()
        self._start = 0.0

    @property
    def seconds(self) -> float:
        """Seconds since the block began."""
        return time.perf_counter() - self._start

    def __enter__(self) -> Ticker:
        """Write that it runs, and keep the time moving on a terminal."""
        self._start = time.perf_counter()
        if self.live:
            self._thread = threading.Thread(target=self._tick, daemon=True)
            self._thread.start()
        else:
            print(f"{self.label} ...", file=self.stream, flush=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write how long it took, and whether it ended or stopped."""
        self._done.set()
        if self.live:
            self._thread.join()
        start = "\r\x1b[K" if self.live else ""
        end = "done" if kind is None else "stopped"
        print(f"{start}{self.label} {end} in {self.seconds:.0f} s", file=self.stream, flush=True)

    def _tick(self) -> None:
        while not self._done.wait(0.5):
            width = max(20, shutil.get_terminal_size().columns - 1)
            line = f"{self.label} {self.seconds:4.0f} s {self.detail}"
            print("\r\x1b[K" + line[:width], end="", file=self.stream, flush=True)
