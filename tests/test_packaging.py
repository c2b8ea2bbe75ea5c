"""What pip installs: every package by its name there, and nothing that imports by another."""

import ast
import sys
from pathlib import Path

import pytest

import d2f.__main__
from d2f.__main__ import COMMANDS, main

if sys.version_info < (3, 11):
    pytest.skip("the standard library reads no TOML here", allow_module_level=True)
import tomllib

ROOT = Path(__file__).parents[1]
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def folders(top: str) -> set[str]:
    """Packages under a folder of the checkout, by their dotted names."""
    found = (ROOT / top).rglob("__init__.py")
    return {".".join(path.parent.relative_to(ROOT).parts) for path in found}


def test_every_package_is_installed_under_its_name() -> None:
    page = {name.replace("app", "d2f_race", 1) for name in folders("app")}
    assert set(SETUP["packages"]) == folders("d2f") | page | {"d2f.assets"}
    assert {name.split(".")[0] for name in SETUP["packages"]} == {"d2f", "d2f_race"}


@pytest.mark.parametrize("path", sorted((ROOT / "app").rglob("*.py")), ids=lambda path: path.name)
def test_the_page_calls_itself_by_no_name(path: Path) -> None:
    """Installed it has another one than in a checkout."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    absolute = [n.module for n in nodes if isinstance(n, ast.ImportFrom) and not n.level]
    absolute += [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names]
    assert not {str(name).split(".")[0] for name in absolute} & {"app", "d2f_race"}


@pytest.mark.parametrize("argv", [["--help"], ["-h"]])
def test_help_names_every_command(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(COMMANDS)


def test_an_unknown_command_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fly"]) == 2
    there = ", ".join(COMMANDS)
    assert capsys.readouterr().err == f"d2f: no command 'fly'; there are {there}\n"
    assert there.startswith("race, generate, bench, ")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_program(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as status:
        main([command, "--help"])
    assert status.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")


def test_the_page_of_a_checkout_is_the_folder_app() -> None:
    assert d2f.__main__.page() == "app.__main__"
