"""How a training step grows with conditions, cells and batch size, and the memory it takes."""

import jax
import jax.numpy as jnp
from report import interleaved, markdown, seconds
from steps import LOSS, RATE, Problem, make_problem, own_steps

from scgap import _train

D = 50


def tables(*, quick: bool, rivals: bool) -> list[str]:
    del rivals
    base = {"n_cells": 10_000, "n_conditions": 10, "batch_size": 512}
    few = (1, 10) if quick else (1, 10, 100, 1_000)
    cells = (10_000,) if quick else (10_000, 100_000, 1_000_000)
    batches = (128, 512) if quick else (128, 256, 512, 1_024, 2_048, 4_096)
    return [
        markdown("Conditions", rows([{**base, "n_cells": 100_000, "n_conditions": n} for n in few])),
        markdown("Cells", rows([{**base, "n_cells": n} for n in cells])),
        markdown("Batch size", rows([{**base, "batch_size": n} for n in batches]), NOTE),
    ]


def rows(cases: list[dict[str, int]]) -> list[dict]:
    """All cases' clocks interleaved, so that their ratios hold on a busy machine."""
    problems = [make_problem(d=D, **case) for case in cases]
    clocks = {str(i): lambda p=p: seconds(lambda: own_steps(p, 20)) / 20 for i, p in enumerate(problems)}
    interleaved(clocks, 1)  # compiles
    measured = interleaved(clocks, 3).values()
    return [
        {**case, "ms a step": 1e3 * time, "cells on the device, MB": problem.populations.cells.nbytes / 1e6}
        | {"beside them, MB": beside(problem) / 1e6}
        for case, problem, time in zip(cases, problems, measured, strict=True)
    ]


def beside(problem: Problem) -> int:
    """Bytes that the compiled loop takes besides the cells: weights, optimiser and temporaries."""
    n = problem.conditions.presence.shape[0]
    terms = jnp.zeros(n)
    state, populations, conditions, setup = problem.state, problem.populations, problem.conditions, problem.setup
    loop = _train._advance.lower(
        state, jax.random.key(0), populations, conditions, n, terms, LOSS, RATE, 10_000, 20, setup=setup
    )
    memory = loop.compile().memory_analysis()
    return memory.temp_size_in_bytes + memory.argument_size_in_bytes - populations.cells.nbytes


NOTE = (
    f"{D} features, one condition a step, the map and epsilon of the steps above. Batches of more than "
    f"{_train.GHOST_BATCH:,} cells are\nsplit into ghost batches. Memory is what the compiler reserves."
)
