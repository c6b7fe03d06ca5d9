"""The shape: imports only go down, and the pipeline and the targets do not know each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "ppcli"

# Higher may import lower, never the other way round; modules of one layer may import each other downwards only.
LAYERS = [
    ["cli", "__main__"],
    ["app"],
    ["server"],
    ["pipeline"],
    ["collect"],
    ["targets"],
    ["pads", "groupsync"],
    ["transport"],
    ["hashing"],
    ["jobs", "config", "digests", "credentials", "logins"],
    ["jobfiles"],
    ["source", "retry", "names", "lock"],
    ["pieces", "checksums", "bodies"],
    ["summary", "journal"],
    ["folding", "compaction"],
    ["manifest"],
    ["steps", "planner", "halt", "disk", "units", "origin"],
    ["target", "events", "requests", "records"],
    ["model", "errors", "garbage", "calls"],
    ["values"],
    [""],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
PURE = [
    "target",
    "planner",
    "manifest",
    "folding",
    "compaction",
    "steps",
    "summary",
    "model",
    "events",
    "errors",
    "records",
    "names",
    "units",
]
PURE += ["origin", "values"]
TOUCHES_THE_WORLD = {"os", "socket", "subprocess", "threading", "time", "sqlite3", "httpx", "ppcli.disk", "tempfile"}


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def part(module: str) -> str:
    """`ppcli.targets.pads` -> `targets`."""
    return module.removeprefix("ppcli").lstrip(".").split(".")[0]


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_part(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py").replace("__init__", "")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    here = own_part(path)
    assert here in RANK, f"{here} has no layer yet"
    for name in imported(path):
        if name.split(".")[0] == "ppcli":
            there = part(name) if part(name) in RANK else ""
            assert there == here or RANK[there] >= RANK[here], f"{here} imports {name}, which is above it"


def test_the_pipeline_names_no_target_and_no_target_names_the_pipeline() -> None:
    concrete = {p.stem for p in (ROOT / "targets").glob("*.py")} - {"__init__"}
    for path in (ROOT / "pipeline").glob("*.py"):
        for name in imported(path):
            assert not name.startswith(("ppcli.targets", "ppcli.pads")), f"{path.name} imports {name}"
        words = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not concrete & words, f"{path.name} names {concrete & words}"
    for folder in ("targets", "pads"):
        for path in (ROOT / folder).glob("*.py"):
            assert not any("ppcli.pipeline" in name for name in imported(path)), path


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_touch_neither_disk_nor_network(name: str) -> None:
    for module in imported(ROOT / f"{name}.py"):
        for banned in TOUCHES_THE_WORLD:
            assert module != banned and not module.startswith(banned + "."), f"{name} imports {module}"


def test_only_the_command_line_prints_and_exits() -> None:
    for path in modules():
        if own_part(path) in ("cli", "__main__"):
            continue
        calls = {
            node.func.id
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not calls & {"print", "input", "exit", "quit"}, path
        assert "sys.exit" not in path.read_text(), path


def test_files_stay_readable() -> None:
    long = {str(p.relative_to(ROOT)): n for p in modules() if (n := len(p.read_text().splitlines())) > 320}
    assert not long


MAY_SERVE = ["config", "disk", "errors", "events", "groupsync", "lock", "logins", "model", "names", "origin", "units"]
MAY_SERVE += ["pads"]  # a pad's header alone
WEB = {"fastapi", "starlette", "uvicorn", "pydantic", "uvloop", "httptools", "python_multipart"}


def test_the_server_stands_on_the_base_alone_and_only_the_command_line_knows_it() -> None:
    for path in modules():
        here = own_part(path)
        for name in imported(path):
            if here == "server" and name.startswith("ppcli."):
                assert part(name) in ["server", "__version__", *MAY_SERVE], f"{path.name} imports {name}"
                assert part(name) != "pads" or name.startswith("ppcli.pads.header"), f"{path.name} imports {name}"
            if here not in ("server", "cli"):
                assert not name.startswith("ppcli.server"), f"{path} imports {name}"
            if here not in ("server", "cli"):
                assert name.split(".")[0] not in WEB, f"{path} imports {name}"


def test_the_domain_of_the_server_knows_no_web_framework() -> None:
    """So that `serve --new-token` works without the extra, and another protocol may come in front of it."""
    web = {"app", "bodies", "bounds", "fields", "forms", "gate", "models", "models_storage", "pad_models", "problems"}
    web |= {"protocol", "run", "streaming"}
    for path in (ROOT / "server").glob("*.py"):
        if path.stem not in web and not path.stem.startswith("routes_"):
            for name in imported(path):
                assert name.split(".")[0] not in WEB, f"{path.name} imports {name}"
                assert not (name.startswith("ppcli.server.") and name.split(".")[2] in web), f"{path.name}: {name}"
