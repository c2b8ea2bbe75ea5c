"""Who may know whom: held by walking imports; and every public thing explained and typed."""

import ast
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

import d2f

ROOT = Path(__file__).parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "d2f").rglob("*.py"))
}
# Programs, which are run and not imported, and what starts them. Only they touch the environment.
PROGRAMS = {
    "d2f.cli.program",
    "d2f.cli.generate",
    "d2f.generate",
    "d2f.models",
    "d2f.train.average",
    "d2f.train.distil",
    *(name for name in MODULES if name.endswith("__main__")),
}
ENGINE = [
    name
    for name in MODULES
    if name not in PROGRAMS and not set(name.split(".")[1:2]) & {"tasks", "train", "bench", "eval"}
]
VALUES = [
    "d2f.errors",
    "d2f.text",
    "d2f.shape",
    "d2f.config",
    "d2f.events",
    "d2f.policy",
    "d2f.catalogue.sizes",
    "d2f.catalogue.published",
    "d2f.catalogue.pairs",
]
TENSORS = {"torch", "transformers", "tokenizers", "safetensors", "numpy"}


def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports(module: str) -> set[str]:
    """Dotted names a module imports, inside functions too; of the package: its modules."""
    names: set[str] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"relative import in {module}"
            own = {f"{node.module}.{a.name}" for a in node.names} & MODULES.keys()
            # A package that hands out its own modules does not import itself.
            names |= own if len(own) == len(node.names) else own | {node.module}
    return names


def reachable(module: str) -> set[str]:
    """Everything a module imports, directly or through modules of the package."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        new = imports(todo.pop()) - seen
        seen |= new
        todo += [name for name in new if name in MODULES]
    return seen


def packages(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def test_the_walk_sees_the_package() -> None:
    assert {"d2f", "d2f.policy.pipelined", "d2f.decode", "d2f.decode.loop"} <= MODULES.keys()
    assert {"d2f.policy", "torch", "d2f.nn.sampling"} <= imports("d2f.decode.loop")
    assert "transformers" in reachable("d2f.decode.loop")


@pytest.mark.parametrize("module", MODULES)
def test_the_engine_knows_neither_the_app_nor_gradio(module: str) -> None:
    assert not packages(imports(module)) & {"app", "gradio"}


@pytest.mark.parametrize("module", VALUES)
def test_values_and_policy_know_no_tensors(module: str) -> None:
    assert not packages(reachable(module)) & TENSORS


# Each wing, and the wings and rooms it may know. What is not named may know all of the engine.
KNOWN: dict[str, set[str]] = {
    "errors": set(),
    "text": {"errors"},
    "shape": {"errors"},
    "run_options": set(),
    "config": {"errors"},
    "strict_json": {"errors"},
    "events": {"config", "strict_json", "errors"},
    "policy": {"config", "events", "strict_json", "errors"},
    "nn": {"shape", "config", "errors"},
    "model_files": {"strict_json", "errors"},
    "tokenizer": {"model_files", "strict_json", "text", "errors"},
    "model": {"shape", "nn", "tokenizer", "model_files", "strict_json", "text", "config", "errors"},
    "decode": {
        "shape",
        "model",
        "nn",
        "policy",
        "tokenizer",
        "model_files",
        "strict_json",
        "text",
        "events",
        "config",
        "errors",
    },
    "catalogue": {"places", "shape", "config", "errors"},
    "memory": {"places", "shape", "catalogue", "config", "errors"},
    "checkpoints": {
        "run_options",
        "places",
        "shape",
        "model",
        "nn",
        "tokenizer",
        "model_files",
        "strict_json",
        "text",
        "catalogue",
        "memory",
        "config",
        "errors",
    },
}


def wing(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("module", [name for name in MODULES if wing(name) in KNOWN])
def test_each_wing_knows_only_those_below(module: str) -> None:
    """So decoding knows no checkpoints, checkpoints no decoding; they meet at the model."""
    known = {wing(name) for name in reachable(module) if name in MODULES}
    assert known <= KNOWN[wing(module)] | {wing(module)}


def test_no_module_knows_itself_in_the_end() -> None:
    assert [name for name in MODULES if name in reachable(name)] == []


@pytest.mark.parametrize("module", MODULES)
def test_only_one_module_speaks_to_the_hub(module: str) -> None:
    assert "huggingface_hub" not in packages(imports(module)) or module == "d2f.checkpoints.hub"


@pytest.mark.parametrize("module", ENGINE)
def test_the_engine_knows_no_training_no_tasks_and_no_benchmark(module: str) -> None:
    known = {name for name in reachable(module) if name in MODULES}
    assert not {n for n in known if set(n.split(".")[1:2]) & {"tasks", "train", "bench", "eval"}}


@pytest.mark.parametrize("module", MODULES)
def test_only_programs_touch_the_environment(module: str) -> None:
    touches = [
        node.attr
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "putenv")
    ]
    assert not touches or module in PROGRAMS


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is_for(module: str) -> None:
    assert ast.get_docstring(tree(module))


@pytest.mark.parametrize("module", ENGINE)
def test_every_public_function_and_class_of_the_engine_is_explained(module: str) -> None:
    silent = [
        node.name
        for node in tree(module).body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


@pytest.mark.parametrize("module", MODULES)
def test_every_signature_is_typed(module: str) -> None:
    untyped = []
    for node in ast.walk(tree(module)):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        spec = node.args
        arguments = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, spec.vararg, spec.kwarg]
        untyped += [
            f"{node.name}({argument.arg})"
            for argument in arguments
            if argument is not None
            and argument.annotation is None
            and argument.arg not in ("self", "cls")
        ]
        if node.returns is None:
            untyped.append(f"{node.name}()")
    assert untyped == []


SOURCES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for folder in ("d2f", "app")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "tasks" not in path.relative_to(ROOT).parts  # stories and word lists
}
LENGTHS = {
    f"{name}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
    for name, text in SOURCES.items()
    for node in ast.walk(ast.parse(text))
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
}


def test_files_and_functions_are_short() -> None:
    assert {name for name, text in SOURCES.items() if len(text.splitlines()) > 400} == set()
    assert {name for name, lines in LENGTHS.items() if lines > 60} == set()
    assert median(LENGTHS.values()) <= 8


def test_the_public_names_are_exactly_what_the_package_imports() -> None:
    assert list(d2f.__all__) == sorted(d2f.__all__, key=lambda name: (not name.isupper(), name))
    for value in (getattr(d2f, name) for name in d2f.__all__):
        assert value.__doc__ or not callable(value)
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree("d2f"))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("d2f.")
        for alias in node.names
    }
    assert imported == set(d2f.__all__)


def test_the_values_and_the_policy_load_without_torch() -> None:
    code = f"import sys, {', '.join(VALUES)}; print(sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert "'d2f.policy.pipelined'" in loaded
    assert not {name for name in TENSORS if f"'{name}'" in loaded}


@pytest.mark.parametrize("folder", ["d2f", "app", "tests"])
def test_the_program_that_shares_its_name_with_a_function_is_imported_by_nothing(
    folder: str,
) -> None:
    """Importing the module ``d2f.generate`` would hide ``d2f.generate``, the function."""
    guilty = [
        path.name
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.ImportFrom) and node.module == "d2f.generate")
        or (isinstance(node, ast.Import) and "d2f.generate" in [a.name for a in node.names])
    ]
    assert guilty == []
