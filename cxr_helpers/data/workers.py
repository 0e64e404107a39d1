"""Call a function on many files in worker processes; a crash costs the file it crashed on alone.

From cxr-helpers 0.2.0 (MIT license).
Needs: nothing beyond Python.
"""

import gc
import multiprocessing
import os
import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

CHUNK = 16  # files that a worker takes at once


class WorkerError(ValueError):
    """The workers could not be started, or cannot import what they shall call."""


def call_on_files(
    call: Callable[[Path], Any],
    paths: list[Path],
    workers: int,
    *,
    crashed: Callable[[Path], Any],
) -> Iterator[Any]:
    """Call a function on each file, and give the results in the order of the files.

    Args:
        call: of a module where there are several workers, for these import it.
        paths: the files.
        workers: processes; with 1 the calls are made here.
        crashed: gives the result for a file on which a worker crashed.

    Raises:
        WorkerError: the workers could not be started, or cannot import the function.

    >>> list(call_on_files(len, [b"a", b"bcd"], 1, crashed=repr))
    [1, 3]
    """
    if workers <= 1:
        yield from map(call, paths)
        return
    pickled = _pickled(call)
    chunks = deque(paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK))
    running: deque = deque()
    pool = _pool(workers)
    try:
        _check_workers(pool, pickled)
        while chunks or running:
            try:
                while chunks and len(running) < 4 * workers:
                    running.append((chunks[0], pool.submit(_call_chunk, chunks[0], pickled)))
                    chunks.popleft()
                results = running[0][1].result()
            except BrokenProcessPool:
                pool.shutdown()
                chunks.extendleft(chunk for chunk, _ in reversed(running))
                running.clear()
                yield from _guarded(chunks.popleft(), pickled, crashed)
                pool = _pool(workers)
                continue
            running.popleft()
            yield from results
    except OSError as error:
        raise WorkerError(
            f"{workers} worker processes could not be started ({error.strerror or error}); use "
            "fewer, or workers=1"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _guarded(paths: list[Path], pickled: bytes, crashed: Callable[[Path], Any]) -> Iterator[Any]:
    """Call on each file in a process of its own."""
    for path in paths:
        with _pool(1) as pool:
            try:
                (result,) = pool.submit(_call_chunk, [path], pickled).result()
            except BrokenProcessPool:
                result = crashed(path)
        yield result


def _pickled(call: Callable) -> bytes:
    try:
        return pickle.dumps(call)
    except Exception as error:  # of what the reader holds, so of any kind
        raise WorkerError(
            f"the reader cannot be sent to worker processes ({error}); {_AS_MODULE}"
        ) from error


_AS_MODULE = "save it as a function of a module and import it, or use workers=1"


def _check_workers(pool: ProcessPoolExecutor, pickled: bytes) -> None:
    """Raise at once where the workers could not read any file."""
    try:
        why = pool.submit(_why_not_imported, pickled).result()
    except BrokenProcessPool as error:
        raise WorkerError(
            "the worker processes ended before they read a file; above they may say why. A script "
            'must call pack_images below `if __name__ == "__main__":`. Or use workers=1'
        ) from error
    if why:
        raise WorkerError(f"the worker processes cannot import the reader ({why}); {_AS_MODULE}")


def _why_not_imported(pickled: bytes) -> str:
    try:
        pickle.loads(pickled)
    except Exception as error:  # of the reader's module, so of any kind
        return f"{type(error).__name__}: {error}"
    return ""


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, initializer=_end_with_parent)


def _end_with_parent() -> None:
    """Make this worker end when its parent was killed, which it would not notice otherwise."""
    gc.freeze()  # a collection would touch, and so copy, all that is shared with the parent

    def wait() -> None:  # for the parent's end
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _call_chunk(paths: list[Path], pickled: bytes) -> list:
    call = pickle.loads(pickled)
    return [call(path) for path in paths]
