"""One measured process: its report, its time and its memory."""

import contextlib
import json
import os
import pathlib
import subprocess
import threading
import time

TICKS = os.sysconf("SC_CLK_TCK")
EVERY = 0.01


def measure(command: list, threads: int) -> dict:
    """Runs a program that prints "ready", then its report, and returns the report with `cpu_seconds` and `peak_mb` of
    what came after "ready".

    The peak counts anonymous memory, which the system cannot drop: libraries and the memory-mapped cache are left out
    on all sides, and so is our cache, which here is in memory (the programs map it from a file).
    """
    process = start(command, threads)
    ready = process.stdout.readline()
    if not ready.startswith('{"ready"'):
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{ready}{process.stdout.read()}")
    before = cpu_seconds(process.pid)
    with watched(process) as peak:
        output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{' '.join(map(str, command))} ended with status {status}")
    report = json.loads(output)
    report["cpu_seconds"] = usage.ru_utime + usage.ru_stime - before
    report["peak_mb"] = (peak[0] - json.loads(ready)["cached"]) / 2**20
    return report


def whole(command: list, threads: int) -> tuple[str, float, float]:
    """Runs a program, and returns what it prints, its seconds, and its peak of anonymous memory in MB."""
    began = time.monotonic()
    process = start(command, threads)
    with watched(process) as peak:
        output = process.stdout.read()
    if process.wait() != 0:
        raise SystemExit(f"{' '.join(map(str, command))} ended with status {process.returncode}")
    return output, time.monotonic() - began, peak[0] / 2**20


def start(command: list, threads: int) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True, env=environment)


@contextlib.contextmanager
def watched(process: subprocess.Popen):
    """The peak of anonymous memory in bytes, as the one entry of a list."""
    peak, done = [0], threading.Event()
    watch = threading.Thread(target=watch_memory, args=(process.pid, peak, done))
    watch.start()
    try:
        yield peak
    finally:
        done.set()
        watch.join()


def watch_memory(pid: int, peak: list, done: threading.Event) -> None:
    status = pathlib.Path(f"/proc/{pid}/status")
    while not done.is_set():
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        except OSError:
            return
        if "RssAnon" in fields:
            peak[0] = max(peak[0], int(fields["RssAnon"].split()[0]) * 1024)
        time.sleep(EVERY)


def cpu_seconds(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
