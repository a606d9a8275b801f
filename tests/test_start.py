"""Starting the app: its options, refusals in one sentence, a page without data or network."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import pytest

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 120  # far more than it takes: a slow machine must not fail a test


def app(*flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "app.py", *flags],
        cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False,
        timeout=PATIENCE_S,
    )  # fmt: skip


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def running(tmp_path: Path, *flags: str, **variables: str):
    """Run the app with empty folders and no way out; give the address and the seconds it took."""
    port = free_port()
    (tmp_path / "data").mkdir()
    folders = ["--data-dir", str(tmp_path / "data"), "--cache-dir", str(tmp_path / "cache")]
    nowhere = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy")}
    variables |= nowhere | {"no_proxy": "127.0.0.1,localhost", "HOME": str(tmp_path)}
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "app.py", "--port", str(port), *folders, *flags],
        cwd=ROOT, env=os.environ | variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}/"
        while time.monotonic() < start + PATIENCE_S:
            assert process.poll() is None, process.stdout.read()
            if answers(address):
                break
        else:
            pytest.fail(f"no answer within {PATIENCE_S} s")
        yield address, time.monotonic() - start
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)


def answers(address: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=PATIENCE_S) as reply:
            return "<title>" in reply.read().decode()
    except URLError:
        time.sleep(0.05)
        return False


def test_help_documents_every_option():
    done = app("--help")
    assert done.returncode == 0
    for option in ("--data-dir", "--cache-dir", "--host", "--port", "--device", "SRE_DATA_DIR"):
        assert option in done.stdout


@pytest.mark.parametrize(
    "flags",
    [
        ["--port", "abc"],
        ["--port", "99999"],
        ["--port", "0"],
        ["--device", "toaster"],
        ["--device", "cuda:99"],
        ["--data-dir", "no/such/folder"],
        ["--data-dir", "README.md"],
        ["--cache-dir", "README.md"],
        ["--host", "no.such.host.invalid"],
        ["--sideways"],
    ],
    ids=" ".join,
)
def test_bad_value_gets_one_sentence(flags):
    done = app(*flags)
    assert done.returncode == 2
    assert_one_sentence(done.stderr, culprit=flags[-1])


def test_bad_variable_gets_one_sentence():
    done = app(SRE_DATA_DIR="no/such/folder")
    assert done.returncode == 2
    assert_one_sentence(done.stderr, "no/such/folder")


def test_port_that_is_taken_gets_one_sentence():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = app("--port", port)
    assert done.returncode == 2
    assert_one_sentence(done.stderr, port)


def assert_one_sentence(text: str, culprit: str) -> None:
    """After argparse's usage, if there is one, stands one line that names the culprit."""
    assert "Traceback" not in text
    lines = re.sub(r"\Ausage: .*\n(?:[ ]+.*\n)*", "", text).splitlines()
    assert len(lines) == 1, text
    assert culprit in lines[0]


def test_page_answers_without_data_or_network(tmp_path, record_property):
    with running(tmp_path) as (_, seconds):
        record_property("seconds_to_first_answer", round(seconds, 2))  # told, never judged


def test_page_listens_where_a_space_wants_it(tmp_path):
    """Spaces name the address in Gradio's own variable."""
    with running(tmp_path, GRADIO_SERVER_NAME="0.0.0.0") as (address, _):
        assert answers(address.replace("127.0.0.1", "127.0.0.2"))
