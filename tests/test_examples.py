"""Every public name of the library says what it does, with an example that runs."""

import doctest
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = (
    "authors", "bands", "checkpoints", "comparison", "conversion", "diagnosis", "evaluation",
    "explanation", "gmr", "inspection", "layers", "listening", "models", "report", "resnet",
    "symmetry", "transposed", "unet",
)  # fmt: skip
# Read and written by the app's own training runs; their examples are its commands.
OF_THE_APP = {"checkpoints", "evaluation"}


def public(module: ModuleType) -> dict[str, object]:
    """Classes and functions that a module defines, and what its classes define."""
    found = {}
    for name, value in vars(module).items():
        is_own = getattr(value, "__module__", None) == module.__name__
        if name.startswith("_") or not is_own or not (inspect.isclass(value) or callable(value)):
            continue
        found[name] = value
        for member, of in vars(value).items() if inspect.isclass(value) else ():
            if not member.startswith("_") and (inspect.isfunction(of) or isinstance(of, property)):
                found[f"{name}.{member}"] = of
    return found


def documented(name: str) -> list[tuple[str, str]]:
    module = importlib.import_module(f"sre.{name}")
    return [
        (f"{name}.{what}", inspect.getdoc(value) or "") for what, value in public(module).items()
    ]


@pytest.mark.parametrize("name", LIBRARY)
def test_every_public_name_has_a_docstring(name):
    # nn.Module documents forward, and the class above it what goes in and comes out.
    missing = [
        what for what, text in documented(name) if not text and not what.endswith(".forward")
    ]
    assert missing == []


@pytest.mark.parametrize("name", sorted(set(LIBRARY) - OF_THE_APP))
def test_every_class_and_function_has_an_example(name):
    own = {what: text for what, text in documented(name) if what.count(".") == 1}
    assert [what for what, text in own.items() if ">>>" not in text] == []


@pytest.mark.parametrize("name", LIBRARY)
def test_the_examples_run(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"sre.{name}")
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    result = doctest.testmod(module, optionflags=flags, verbose=False)
    assert result.failed == 0, "see what was printed"
    assert result.attempted > 0 or name in OF_THE_APP


@pytest.mark.slow
def test_the_pages_of_the_docstrings_are_built(tmp_path):
    line = next(x for x in (ROOT / "Makefile").read_text().splitlines() if "-m pdoc" in x)
    assert "docs/template" in line
    done = subprocess.run(
        [
            sys.executable, "-m", "pdoc", "--docformat", "markdown",
            "--template-directory", "docs/template", "-o", str(tmp_path), "sre",
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    for name in LIBRARY:
        assert (tmp_path / "sre" / f"{name}.html").stat().st_size > 1000
