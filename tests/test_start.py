"""Starting the app: its options, refusals in one sentence, a page without data or network."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest
from gradio_client import Client

from app import read_options
from bench.harness import ROOT
from bench.start import PATIENCE_S, answers, free_port, running_app


def app(*flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "app.py", *flags],
        cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False,
        timeout=PATIENCE_S,
    )  # fmt: skip


def test_help_documents_every_option():
    done = app("--help")
    assert done.returncode == 0
    for option in (
        "--data-dir",
        "--cache-dir",
        "--host",
        "--port",
        "--device",
        "--no-train",
        "SRE_DATA_DIR",
    ):
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
    assert_one_sentence(done.stderr, culprit="no/such/folder")


@pytest.mark.parametrize(
    ("flags", "variable", "trains"),
    [([], None, True), (["--no-train"], None, False), ([], "1", False), ([], "0", True)],
)
def test_training_can_be_switched_off(flags, variable, trains, monkeypatch, tmp_path):
    monkeypatch.delenv("SRE_NO_TRAIN", raising=False)
    if variable is not None:
        monkeypatch.setenv("SRE_NO_TRAIN", variable)
    options = read_options(["--port", str(free_port()), "--cache-dir", str(tmp_path), *flags])
    assert options.trains is trains


def test_port_that_is_taken_gets_one_sentence():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = app("--port", port)
    assert done.returncode == 2
    assert_one_sentence(done.stderr, culprit=port)


def assert_one_sentence(text: str, *, culprit: str) -> None:
    """After argparse's usage, if there is one, stands one line that names the culprit."""
    assert "Traceback" not in text
    lines = re.sub(r"\Ausage: .*\n(?:[ ]+.*\n)*", "", text).splitlines()
    assert len(lines) == 1, text
    assert culprit in lines[0]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux answers on all of 127.0.0.0/8")
def test_page_answers_without_data_or_network_where_a_space_wants_it(tmp_path):
    """Spaces name the address in Gradio's own variable."""
    with running_app(tmp_path, GRADIO_SERVER_NAME="0.0.0.0") as running:
        assert answers(running.address.replace("127.0.0.1", "127.0.0.2"))


def test_page_is_for_this_machine_alone_unless_told(tmp_path):
    with running_app(tmp_path) as running:
        assert not answers(running.address.replace("127.0.0.1", "127.0.0.2"))


@pytest.mark.parametrize("imported", ["httpx", "gradio.components", "pages.lab"])
def test_ctrl_c_ends_quietly_while_the_page_opens(imported, tmp_path):
    command = [sys.executable, "-X", "importtime", "app.py"]
    options = ["--cache-dir", str(tmp_path), "--port", str(free_port())]
    with subprocess.Popen(
        [*command, *options], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as opening:
        patience = threading.Timer(PATIENCE_S, opening.kill)
        patience.start()
        assert any(line.endswith(f" {imported}\n") for line in opening.stderr)
        patience.cancel()
        opening.send_signal(signal.SIGINT)
        said, complaints = opening.communicate(timeout=PATIENCE_S)
    assert opening.returncode == 0
    assert said == ""
    assert "Traceback" not in complaints


def test_ctrl_c_ends_without_a_word_too_many_while_networks_answer(tmp_path):
    with running_app(tmp_path) as running:
        client = Client(running.address, verbose=False)
        # Whichever step it is at: loading PyTorch, turning the image, or done.
        client.submit("cells", 3, api_name="/orbit")
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(PATIENCE_S) == 0
        said = running.process.stdout.read()
    assert "Traceback" not in said
    assert "terminate" not in said
