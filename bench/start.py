"""How long after python app.py the page answers, and the networks do: python -m bench.start.

With empty folders and no network, as on a fresh machine. "Answers" is the first whole page;
"ready" is the first orbit of the built-in cells, heavy imports and all.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

from gradio_client import Client

from bench.harness import ROOT, circumstances, spread, write_results

PATIENCE_S = 120  # far more than it takes, also on a slow machine


@dataclass(frozen=True, slots=True)
class Running:
    """An app that has answered once."""

    address: str
    seconds_to_answer: float
    process: subprocess.Popen[str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write bench/results/start.json."""
    parser = argparse.ArgumentParser(prog="python -m bench.start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args(arguments).rounds
    answers_s, ready_s = [], []
    for _ in range(rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            with running_app(Path(folder)) as app:
                answers_s.append(app.seconds_to_answer)
                lab = Client(app.address, verbose=False, httpx_kwargs={"timeout": PATIENCE_S})
                lab.predict("cells", 0, api_name="/orbit")
                ready_s.append(time.perf_counter() - start)
        print(f"answers after {answers_s[-1]:.2f} s, first orbit after {ready_s[-1]:.2f} s")
    results = {"made_by": "python -m bench.start", **circumstances()}
    # The first round warms the disk's cache.
    results |= {"answers_s": spread(answers_s[1:]), "first_orbit_s": spread(ready_s[1:])}
    print(json.dumps(results))
    print(f"wrote {write_results('start', results)}")
    return 0


@contextmanager
def running_app(folder: Path, *flags: str, **variables: str) -> Iterator[Running]:
    """Run the app with empty folders, nothing of the caller's home, and no way to the network."""
    port = free_port()
    (folder / "data").mkdir()
    own = ["--data-dir", str(folder / "data"), "--cache-dir", str(folder / "cache")]
    shut = {
        "HOME": str(folder),
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
        "no_proxy": "127.0.0.1,localhost",
    }
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "app.py", "--port", str(port), *own, *flags],
        cwd=ROOT, env=os.environ | shut | variables, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}/"
        while not answers(address):
            if process.poll() is not None:
                raise RuntimeError(f"app.py ended at its start: {process.stdout.read()}")
            if time.monotonic() > start + PATIENCE_S:
                raise TimeoutError(f"no answer from app.py within {PATIENCE_S} s")
            time.sleep(0.02)
        yield Running(address, time.monotonic() - start, process)
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)


def answers(address: str) -> bool:
    """Tell whether the page is there, whole."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=PATIENCE_S) as reply:
            return "SRE Lab" in reply.read().decode()
    except URLError:
        return False


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
