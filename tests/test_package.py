"""What `pip install .` brings is the library alone, and the library needs little."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
CORE = [path.stem for path in sorted((ROOT / "sre").glob("*.py")) if not path.stem.startswith("__")]
# Nothing that only the extras bring may be imported, as if it were not installed.
WITHOUT_EXTRAS = """
import sys
sys.modules.update(dict.fromkeys({blocked}))  # None: neither found nor imported
{code}
"""
BLOCKED = {
    "medmnist", "sklearn", "torchvision", "gradio", "pytorch_grad_cam", "PIL", "timm", "scipy",
    "ray", "accelerate",
}  # fmt: skip


def names(requirements: list[str]) -> set[str]:
    return {line for line in requirements if not line.startswith("sre-lab")}


def listed(file: str) -> set[str]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return {line.strip() for line in lines if line.strip() and line[0] not in "#-"}


def test_the_requirements_of_the_app_are_those_of_the_package_and_its_extras():
    wanted = names(PROJECT["dependencies"]) | names(EXTRAS["train"]) | names(EXTRAS["app"])
    assert listed("requirements.txt") == wanted


def test_the_dev_extra_is_part_of_what_the_tests_need():
    wanted = set().union(*(names(EXTRAS[extra]) for extra in ("dev", "sweep", "distributed")))
    assert wanted <= listed("requirements-dev.txt")


def without_extras(code: str) -> subprocess.CompletedProcess[str]:
    program = WITHOUT_EXTRAS.format(blocked=sorted(BLOCKED), code=code)
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_library_needs_none_of_the_extras():
    done = without_extras("\n".join(f"import sre.{name}" for name in CORE))
    assert done.returncode == 0, done.stderr


def test_checks_run_without_the_extras():
    done = without_extras(
        "from sre.__main__ import main\n"
        "raise SystemExit(main(['check', 'sre_resnet18', '--side', '24', '--angles', '30']))"
    )
    assert done.returncode == 0, done.stderr
    assert "stage4" in done.stdout


@pytest.mark.parametrize("command", [["train", "bloodmnist", "sre_resnet18"], ["download", "x"]])
def test_commands_that_need_an_extra_say_so(command):
    done = without_extras(f"from sre.__main__ import main\nraise SystemExit(main({command}))")
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*pip install 'sre-lab\[train\]'\n", done.stderr), done.stderr


def test_a_sweep_without_ray_says_so():
    done = without_extras(
        "import unittest.mock\n"
        "from sre.__main__ import main\n"
        "with unittest.mock.patch('sre.commands.sweep.read_sweep'):\n"
        "    raise SystemExit(main(['sweep', 'x.toml']))"
    )
    assert done.returncode == 2
    assert done.stderr == (
        "error: runs side by side need Ray, which is not installed; run pip install "
        "'sre-lab[sweep]', or give --no-ray for one run after the other\n"
    )


def test_the_types_are_shipped():
    assert (ROOT / "sre" / "py.typed").read_text() == ""
