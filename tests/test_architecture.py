"""Imports point down, as the floors below say; a new module fails until it is given one."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = [
    {"__init__", "devices", "errors", "home", "whole"}, {"symmetry", "listening"}, {"bands"},
    {"triton_bands", "spectra"}, {"layers"},
    {"transposed", "gmr", "pooling", "balancing", "averaging"},
    {"resnet", "projection", "obstacles", "invariance"},
    {"unet", "comparison", "diagnosis", "report"}, {"models", "data", "protocols"},
    {"checkpoints", "evaluation", "explanation", "conversion", "inspection", "authors"},
    {"settings", "statistics", "runstate", "poses", "processes"}, {"augmentation"}, {"training"},
    {"studies"}, {"commands"}, {"__main__"},
]  # fmt: skip
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
SRE = sorted(ROOT.glob("sre/**/*.py"))
PAGES = sorted(ROOT.glob("pages/**/*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    assert not any(isinstance(n, ast.ImportFrom) and n.level for n in nodes), "name it in full"
    plain = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    froms = [n for n in nodes if isinstance(n, ast.ImportFrom) and n.module]
    # `from sre import layers` imports sre.layers, as `from sre.layers import x` does.
    packages = {f"{n.module}.{a.name}" for n in froms if n.module == "sre" for a in n.names}
    return plain | packages | {n.module for n in froms if n.module != "sre"}


@pytest.mark.parametrize("path", SRE, ids=name_of)
def test_sre_imports_point_down(path):
    home = path.relative_to(ROOT / "sre").parts[0].removesuffix(".py")
    assert home in FLOOR, f"give sre.{home} a floor"
    for module in imported(path):
        top, _, rest = module.partition(".")
        assert top not in {"gradio", "pages", "app"}, module
        used = rest.split(".")[0]
        assert top != "sre" or used == home or FLOOR[used] < FLOOR[home], module


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_pages_know_only_studies_and_errors(path):
    for module in imported(path):
        top, _, rest = module.partition(".")
        assert top not in {"torch", "torchvision"}, module
        assert top != "sre" or rest.split(".")[0] in {"studies", "errors"}, module


@pytest.mark.parametrize(
    "path",
    [p for p in SRE if not {p.name, p.parent.name} & {"__main__.py", "commands"}],
    ids=name_of,
)
def test_only_the_command_line_reads_the_environment(path):
    names = {n.attr for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)}
    assert not names & {"environ", "getenv"}


@pytest.mark.parametrize("package", ["sre", "sre/commands", "sre/studies", "sre/data", "pages"])
def test_packages_are_empty(package):
    assert (ROOT / package / "__init__.py").read_text(encoding="utf-8") == ""
