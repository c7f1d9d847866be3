"""Clocks, tables, and the place in README.md where a script keeps what it last measured."""

import os
import statistics
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from platform import machine

import jax
import pandas as pd

README = Path(__file__).parent / "README.md"


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call, the device's work included."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def interleaved(runs: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Median of what each of several clocks reads, all read in every round, so that a busy minute hits all alike."""
    readings: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            readings[name].append(run())
    return {name: statistics.median(values) for name, values in readings.items()}


def platform() -> str:
    """``cpu`` or ``gpu``."""
    return jax.default_backend()


def device() -> str:
    """The device in words, such as "cpu, 2 cores, x86_64" or the name of a GPU."""
    kind = jax.devices()[0].device_kind
    return f"cpu, {os.cpu_count()} cores, {machine()}" if platform() == "cpu" else kind


def versions(*packages: str) -> str:
    return ", ".join(f"{package} {version(package)}" for package in packages)


def markdown(title: str, rows: Iterable[dict], note: str = "") -> str:
    """A table under its title."""
    table = pd.DataFrame(rows).fillna("-")
    lines = [table.columns, ["---"] * table.shape[1], *table.map(_cell).to_numpy()]
    body = "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
    return f"### {title}\n\n{body}\n" + (f"\n{note}\n" if note else "")


def store(name: str, tables: list[str], packages: str) -> None:
    """Print tables and put them between the marks of this name in README.md, in place of the last ones."""
    head = f"{device()}; {packages}; {time.strftime('%Y-%m-%d')}.\n"
    content = "\n".join([head, *tables])
    print(content, flush=True)
    opening, closing = f"<!-- {name} -->", f"<!-- end of {name} -->"
    text = README.read_text()
    if opening not in text:
        text += f"\n{opening}\n{closing}\n"
    before, rest = text.split(opening)
    README.write_text(before + opening + "\n" + content + closing + rest.split(closing)[1])


def _cell(value: object) -> str:
    if isinstance(value, float) and abs(value) < 1_000:
        return f"{value:.3g}"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)
