"""
The shortest time that counted work can take, after the roofline model (Williams et al. 2009).

On this machine against its measured ceilings, on others against the peaks that their makers
publish. The latter are bounds and no forecasts: nothing reaches all of its ceilings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wm_ros.bench.counting import Work

#: Graphs by the stage of the report that runs them.
GRAPH_OF_STAGE = {'encode': 'encode', 'fold': 'fold', 'dynamics': 'rollout'}


@dataclass(frozen=True)
class Platform:
    """
    Published peaks: dense operations a second and bytes a second, both in billions.

    `source` is where they stand, or how they follow from what stands there.
    """

    name: str
    int8: float
    float16: float
    memory: float
    source: str


#: TOPS are usually given with structured sparsity; dense is half, and FP16 half of INT8.
PLATFORMS = (
    Platform('Jetson Orin NX 16 GB', 30e3, 15e3, 102.4,
             'NVIDIA, Jetson AGX Orin Series Technical Brief v1.2: half the GPU of AGX Orin at '
             '918 MHz, its DLAs not counted'),
    Platform('Jetson AGX Orin 64 GB', 85e3, 42.5e3, 204.8,
             'the same brief: 170 sparse INT8 TOPS of the GPU, its DLAs not counted'),
    Platform('Jetson Thor T5000', 517e3, 258e3, 273.0,
             'NVIDIA, Jetson Thor data sheet: 2070 sparse FP4 TFLOPS, a quarter of it dense INT8'),
    Platform('a chip of 100 TOPS', 100e3, 25e3, 100.0,
             'assumed: dense INT8, a quarter of it in FP16, LPDDR5 at 100 GB/s'),
    Platform('a chip of 500 TOPS', 500e3, 125e3, 250.0,
             'assumed: dense INT8, a quarter of it in FP16, LPDDR5X at 250 GB/s'),
)


def seconds_here(work: Work, precision: str, ceilings: Mapping[str, float]) -> float:
    """
    Return the least time of one graph here, executed in `precision` ('i8', 'bf16+i8', ...).

    `ceilings` in giga-operations and gigabytes a second, by the precisions' names and 'memory'.
    """
    ran = precision.split('+')
    plain = next((name for name in ('f16', 'bf16') if name in ran and name in ceilings), 'f32')
    whole = 'i8' if 'i8' in ran and 'i8' in ceilings else plain
    compute = (work.operations['int8'] / ceilings[whole]
               + work.operations['float'] / ceilings[plain])
    return max(compute, work.least_bytes / ceilings['memory']) / 1e9


def seconds_on(work: Work, platform: Platform) -> tuple[float, float]:
    """
    Return the least time of one graph on a platform: all in caches, and nothing in them.

    In the first case weights, inputs and outputs move once; in the second also what every product
    and convolution reads and writes, INT8 in one byte and the rest in two.
    """
    compute = (work.operations['int8'] / platform.int8
               + work.operations['float'] / platform.float16)
    moved = max(work.least_bytes, work.moved['int8'] + 2 * work.moved['float'])
    return (max(compute, work.least_bytes / platform.memory) / 1e9,
            max(compute, moved / platform.memory) / 1e9)


def shares(works: Mapping[str, Work], precision: Mapping[str, str],
           ceilings: Mapping[str, float], stages_ms: Mapping[str, float]) -> dict[str, float]:
    """Return what part of the ceilings each stage with a graph reaches: least time / measured."""
    return {stage: round(1e3 * seconds_here(works[graph], precision[graph], ceilings)
                         / stages_ms[stage], 3)
            for stage, graph in GRAPH_OF_STAGE.items()}
