"""Checks, without a Mac, that the wheels for Apple silicon have what this code needs.

For each supported Python: everything in pyproject.toml resolves to wheels for macOS on arm64, and
the wheels of mlx have every name that the code uses, in their stubs or sources and, for
`mlx.core`, in the compiled library. The wheels are unpacked into `.darwin` and kept there.

The wheel of mlx-metal for the first macOS with JACCL must know the variables that are set for it.

What is not covered: nothing is executed; that a name exists says nothing about its behaviour.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import griffe

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".darwin"
MACOS = "14.0"  # the oldest that mlx has wheels for
CODE = ("benchmarks", "client", "daemon", "scripts", "shared", "tests")
# Of lm-eval, without a wheel: Python alone, which any Mac can build.
SOURCES = ("--no-binary", "sqlitedict", "--no-binary", "word2number")
ALL = ("-r", "pyproject.toml", "--all-extras")
METAL = ("lib/libmlx.dylib", "lib/mlx.metallib")
JACCL_MACOS = "26.2"
JACCL = ("MLX_RANK", "MLX_IBV_DEVICES", "MLX_JACCL_COORDINATOR")
# Computed by the module's `__getattr__`: absent from stubs and library.
COMPUTED = {"mlx.core.random.state"}


def pythons() -> list[str]:
    """Return the Python versions that pyproject.toml lists as supported, such as `3.12`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = (classifier.rpartition(":: ")[2] for classifier in project["classifiers"])
    return [name for name in names if name.startswith("3.")]


def install(python: str, folder: str, macos: str, *wanted: str) -> None:
    """Resolve what is `wanted` as pip would on a Mac, from wheels alone.

    Raises CalledProcessError where a wheel is missing; uv's own message, which is printed, names
    it.
    """
    # Unlike pip, uv evaluates markers such as sys_platform == 'darwin' for the given platform.
    command = [str(Path(sys.executable).parent / "uv"), "pip", "install", "--quiet", "--no-config"]
    command += ["--cache-dir", str(FOLDER / "cache"), "--target", str(FOLDER / folder)]
    command += ["--python-version", python, "--python-platform", "aarch64-apple-darwin"]
    command += ["--only-binary", ":all:", *SOURCES, *wanted]
    environment = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": macos}
    subprocess.run(command, check=True, cwd=ROOT, env=environment)


def used_names(source: str) -> Iterator[str]:
    """Yield every dotted name of mlx in a module's source, such as `mlx.core.fast.rms_norm`."""
    tree = ast.parse(source)
    bound: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            bound |= {a.asname: a.name for a in node.names if a.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            bound |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    ours = {alias: name for alias, name in bound.items() if name.split(".")[0] == "mlx"}
    yield from ours.values()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            root, _, rest = ast.unparse(node).partition(".")
            if root in ours and all(part.isidentifier() for part in rest.split(".")):
                yield f"{ours[root]}.{rest}"


def missing(name: str, mlx: griffe.Module, library: bytes) -> str:
    """Return where a dotted name is missing; "" where the wheel has it."""
    if name in COMPUTED:
        return ""
    module, path = mlx, "mlx"
    for part in name.split(".")[1:]:
        path = f"{path}.{part}"
        if part not in module.members and part not in module.overloads:
            return f"{path} is in no stub"
        found = module.members.get(part)
        if not isinstance(found, griffe.Module):
            break  # mypy checks attributes of functions and classes
        module = found
    if path.startswith("mlx.core.") and not named_in(library, path.rpartition(".")[2]):
        return f"{path} is not in the compiled library"
    return ""


def named_in(library: bytes, name: str) -> bool:
    """Whether the library binds a name: nanobind keeps the name or its given signature."""
    return any(text % name.encode() in library for text in (b"\0%b\0", b"\0def %b("))


def check(python: str, names: set[str]) -> list[str]:
    """Return what the unpacked wheels for one Python lack."""
    folder = FOLDER / python / "mlx"
    mlx = griffe.load("mlx", search_paths=[folder.parent], allow_inspection=False)
    assert isinstance(mlx, griffe.Module)
    (library,) = folder.glob("core.*-darwin.so")
    compiled = library.read_bytes()
    problems = [problem for name in sorted(names) if (problem := missing(name, mlx, compiled))]
    return problems + [f"{part} is missing" for part in METAL if not (folder / part).is_file()]


def jaccl_lacks(python: str) -> list[str]:
    """Return the variables that MLX's JACCL does not know. Raises CalledProcessError as `install`,
    and OSError where the wheel has none.
    """
    install(python, "jaccl", JACCL_MACOS, "--no-deps", "mlx-metal")
    library = (FOLDER / "jaccl" / "mlx" / "lib" / "libjaccl.dylib").read_bytes()
    return [name for name in JACCL if name.encode() not in library]


def main() -> int:
    """Exit 1 where a wheel or a name is missing, naming it."""
    files = [file for folder in CODE for file in (ROOT / folder).rglob("*.py")]
    names = {name for file in files for name in used_names(file.read_text("utf-8"))}
    failed = False
    for python in pythons():
        try:
            install(python, python, MACOS, *ALL, "--group", "dev", "--dry-run")
            install(python, python, MACOS, *ALL)
        except subprocess.CalledProcessError:
            print(f"Python {python}: some dependency has no wheel for macOS {MACOS} on arm64")
            return 1
        problems = check(python, names)
        failed |= bool(problems)
        (version,) = (FOLDER / python).glob("mlx-[0-9]*.dist-info")
        packages = len(list((FOLDER / python).glob("*.dist-info")))
        print(
            f"Python {python}: {packages} packages have a wheel; {version.stem} lacks "
            f"{len(problems)} of {len(names)} names"
        )
        for problem in problems:
            print(f"  {problem}")
    lacking = jaccl_lacks(pythons()[-1])
    print(f"JACCL for macOS {JACCL_MACOS} lacks {len(lacking)} of {len(JACCL)} variables", *lacking)
    return int(failed or bool(lacking))


if __name__ == "__main__":
    sys.exit(main())
