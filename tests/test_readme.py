"""The README does what it says: front matter, commands, Python blocks, tables, options."""

import importlib
import itertools
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from gradio_client import Client

from bench.readme_tables import with_tables
from bench.start import PATIENCE_S, running_app
from sre.__main__ import make_parser
from sre.data.table import find_dataset
from sre.models import MODELS

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = sorted(
    {line for kind, body in BLOCKS if kind in {"bash", "bat"} for line in body.splitlines()}
)
PYTHON = [body for kind, body in BLOCKS if kind == "python"]
PATIENT = {"verbose": False, "httpx_kwargs": {"timeout": PATIENCE_S}}
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


@pytest.fixture(scope="module")
def front_matter():
    opening = re.match(r"---\n(.*?)\n---\n", TEXT, re.DOTALL)
    assert opening, "the README opens with the front matter of a Space"
    return yaml.safe_load(opening[1])


def test_front_matter_is_one_that_spaces_accept(front_matter):
    assert front_matter["sdk"] == "gradio"
    assert front_matter["python_version"] == "3.12"
    assert len(front_matter["short_description"]) <= 60
    assert {front_matter["colorFrom"], front_matter["colorTo"]} <= COLOURS
    assert (ROOT / front_matter["app_file"]).is_file()
    assert front_matter["license"] == "mit"
    assert set(front_matter) <= {
        "title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version",
        "app_file", "short_description", "license", "tags", "models", "datasets", "thumbnail",
        "pinned", "suggested_hardware", "startup_duration_timeout", "preload_from_hub",
    }  # fmt: skip


def test_front_matter_names_a_gradio_that_the_requirements_admit(front_matter):
    least, most = re.search(
        r"^gradio>=([\d.]+),<(\d+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE
    ).groups()
    version = [int(part) for part in front_matter["sdk_version"].split(".")]
    assert [int(part) for part in least.split(".")] <= version < [int(most)]


def test_tables_are_those_that_the_results_make():
    assert with_tables(TEXT) == TEXT, "README.md is outdated; run make readme"


def test_a_place_for_a_table_cannot_get_lost():
    with pytest.raises(ValueError, match=r"has no place <!-- \w+ -->"):
        with_tables(TEXT.replace("<!-- checkpoints -->", ""))


def test_every_block_has_a_kind_that_is_checked_here():
    assert TEXT.count("\n```") == 2 * len(BLOCKS)
    assert {kind for kind, _ in BLOCKS} <= {"bash", "bat", "python"}


BENCHES = {
    f"bench.{name}"
    for name in (
        "accuracy", "evaluate", "gpu", "gpu_training", "levers", "reasons", "recipe", "volumes",
    )
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_one_that_works(command, capsys):
    words = shlex.split(command.replace("\\", "/"))
    if words[0] in {"py", "python3", ".venv/bin/python", ".venv/Scripts/python"}:
        words[0] = "python"
    match words:
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        case ["python", "-m", "venv", folder]:
            assert f"/{folder}/" in (ROOT / ".gitignore").read_text().splitlines()
        case ["python", "-m", "pip", "install", "-r", name]:
            assert (ROOT / name).is_file()
        case ["python", "app.py", *flags]:
            for flag in flags:
                assert not flag.startswith("--") or flag in app_help()
        case ["accelerate", "launch", *flags, "-m", "sre", "train", _, _, "--device", _]:
            make_parser().parse_args(words[words.index("train") :])
            assert flags == ["--multi_gpu", "--num_processes", "2"]  # as tests/test_processes.py
        case ["python", "-m", module, *flags] if module in BENCHES:
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
            name = module.removeprefix("bench.")
            with pytest.raises(SystemExit):
                importlib.import_module(module).main(["--help"])
            known = capsys.readouterr().out
            for flag, value in itertools.pairwise([*flags, ""]):
                assert not flag.startswith("--") or flag in known
                if flag == "--width":
                    assert (ROOT / "bench" / "results" / f"{name}-w{value}.json").is_file()
                if flag == "--files":
                    assert (ROOT / value).is_file()
        case ["python", "-m", "sre", "sweep", name, *_]:
            make_parser().parse_args(words[3:])
            assert (ROOT / name).is_file()
        case ["python", "-m", "sre", "check", model, *_]:
            make_parser().parse_args(words[3:])
            assert model in MODELS or (ROOT / model).is_file()
        case ["python", "-m", "sre", *arguments]:
            parsed = make_parser().parse_args(arguments)
            assert "dataset" not in parsed or find_dataset(parsed.dataset)
        case _:
            pytest.fail(f"no check for {command!r}; add one")


def test_table_of_options_has_every_option_of_the_app():
    options = set(re.findall(r"--[a-z-]+", app_help())) - {"--help"}
    assert options == set(re.findall(r"^\| `(--[a-z-]+)` \|", TEXT, re.MULTILINE))


@cache
def app_help() -> str:
    """Ask the program itself what it takes."""
    done = subprocess.run(
        [sys.executable, "app.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """An app that has answered once: while it still loads, it may answer late."""
    with running_app(tmp_path_factory.mktemp("app")) as running:
        Client(running.address, **PATIENT).predict("cells", 17, api_name="/orbit")
        yield running.address


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_python_block_runs(number, request, capsys, monkeypatch, tmp_path):
    code = PYTHON[number]
    monkeypatch.chdir(tmp_path)  # some write files
    if "http://127.0.0.1:7860" in code:
        code = code.replace("http://127.0.0.1:7860", request.getfixturevalue("address"))
    exec(compile(code, f"README.md, Python block {number}", "exec"), {})
    assert capsys.readouterr().out


def test_orbit_answers_as_documented(address):
    """Every key that the README's table names is in the answer, and the other way round."""
    bundle = Client(address, **PATIENT).predict("cells", 17, api_name="/orbit")
    rows = dict(re.findall(r"^\| (`.*?) \| (.*) \|$", TEXT.partition("## The `/orbit`")[2], re.M))
    keys = {key for row in rows if "of a model" not in row for key in re.findall(r"`(\w+)`", row)}
    assert keys == set(bundle) - {"version", "key", "side", "stages"}
    for model in bundle["models"]:
        assert set(re.findall(r"`(\w+)`", rows["`models`"])) <= set(model)
        for stage in model["stages"]:
            assert set(re.findall(r"`(\w+)`", rows["`stages` of a model"])) <= set(stage)
