"""Flags, the machine's description, a table on the screen and JSON on disk."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]  # the folder `benchmarks`
OUT = HERE.parent / "out" / "benchmarks"  # what an interrupted benchmark needs to go on
DATASETS = Path(os.environ.get("MGRAL_DATASETS", HERE.parent.parent / "shared" / "datasets"))
SHARED = ("quick", "device", "out")  # flags of every benchmark
PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "ray", "pycocotools", "hotcoco")

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Options:
    """quick: the same figures within a minute or two on two cores; device: "cpu" or "cuda"; own:
    values of the benchmark's own flags.
    """

    quick: bool
    device: str
    own: Mapping[str, Any] = field(default_factory=dict)


def main(
    name: str,
    title: str,
    measure: Callable[[Options], Figures],
    arguments: Sequence[str] | None = None,
    own: argparse.ArgumentParser | None = None,
) -> None:
    """Parse the flags, run `measure`, print its figures and write them to `--out`.

    name   the benchmark's module: `python -m benchmarks.NAME`
    title  what it measures, for `--help` and the head of the table
    own    more flags, without `--help`
    """
    parents = [own] if own else []
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=title, parents=parents
    )
    parser.add_argument("--quick", action="store_true", help="same figures, smaller sizes")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=HERE / "results" / f"{name}.json")
    flags = parser.parse_args(arguments)
    others = {key: value for key, value in vars(flags).items() if key not in SHARED}
    figures = measure(Options(flags.quick, flags.device, others))
    quick, device = " --quick" * flags.quick, " --device cuda" * (flags.device == "cuda")
    command = f"python -m benchmarks.{name}{quick}{device}{_typed(others)}"
    result = {
        "command": command,
        "machine": machine(flags.device),
        "versions": versions(),
        "figures": {key: float(value) for key, value in figures.items()},
    }
    flags.out.parent.mkdir(parents=True, exist_ok=True)
    flags.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(table(title, command, figures))
    print(f"written to {flags.out}")


def _typed(flags: Mapping[str, Any]) -> str:
    """The flags that were given, as on a command line."""
    parts: list[str] = []
    for name, value in flags.items():
        if value is not None and value is not False:
            values = value if isinstance(value, list) else [] if value is True else [value]
            parts += [f"--{name}", *map(str, values)]
    return "".join(f" {part}" for part in parts)


def dataset(name: str) -> Path:
    """The folder of a shared dataset; ends the program with a message if it is not there."""
    folder = DATASETS / name
    if not (folder / "train.json").is_file():
        sys.exit(
            f"{folder} holds no train.json: put the dataset {name!r} there, "
            "or set MGRAL_DATASETS to the folder that holds it"
        )
    return folder


def kept_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines, if it is there. A line that an interruption cut off is
    left out.
    """
    for line in file.read_text("utf-8").splitlines() if file.is_file() else ():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def limit_threads(count: int) -> None:
    """Let torch use `count` threads, or as many as there are cores if these are fewer."""
    import torch

    torch.set_num_threads(min(count, os.cpu_count() or 1))


def machine(device: str) -> dict[str, str | int | float]:
    """Processor, cores this process may use, memory in GiB, load, and the GPU if one is used."""
    about: dict[str, str | int | float] = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        about["memory_gib"] = round(total / 2**30, 1)
    if hasattr(os, "getloadavg"):
        about["load_1_minute"] = round(os.getloadavg()[0], 2)
    if device == "cuda":
        import torch

        about["gpu"] = torch.cuda.get_device_name()
    return about


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def versions() -> dict[str, str]:
    """Of Python and of the installed packages that may change a figure."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


def table(title: str, command: str, figures: Figures) -> str:
    """The figures as lines of text."""
    width = max(len(key) for key in figures)
    rows = [f"  {key:<{width}}  {value:>12.4f}" for key, value in figures.items()]
    return "\n".join([title, command, *rows])
