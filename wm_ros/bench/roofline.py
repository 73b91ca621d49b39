"""
The shortest time that counted work can take, after the roofline model (Williams et al. 2009).

On this machine against its measured ceilings, on others against the peaks that their makers
publish. The latter are bounds and no forecasts: nothing reaches all of its ceilings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wm_ros.bench.counting import Work

#: Graphs by the stage of the report that runs them.
GRAPH_OF_STAGE = {'encode': 'encode', 'fold': 'fold', 'dynamics': 'rollout'}


@dataclass(frozen=True)
class Peak:
    """A published or derived rate, in billions a second, and where it stands or how it follows."""

    rate: float
    source: str


@dataclass(frozen=True)
class Platform:
    """Peaks of a platform: dense operations in INT8 and FP16, and bytes to and from memory."""

    name: str
    int8: Peak
    float16: Peak
    memory: Peak


DLA = ("NVIDIA's [Deep Learning Accelerator SW]"
       '(https://github.com/NVIDIA/Deep-Learning-Accelerator-SW)')
ORIN_SHEET = ("NVIDIA's [Jetson AGX Orin data sheet DS-10662-001 v1.8]"
              '(https://static.generation-robots.com/media/Jetson-AGX-Orin-Data-Sheet.pdf)')
NX_SHEET = ("NVIDIA's [Jetson Orin NX data sheet DS-10712-001 v1.0]"
            '(https://files.waveshare.com/wiki/common/Jetson_Orin_NX_DS-10712-001_v1.0.pdf)')
NX_BRIEF = ("NVIDIA's [Jetson Orin NX series](https://github.com/icub-tech-iit/cad-libraries/"
            'files/13056089/JETSON-ORIN-NX-DATASHEET.pdf)')
NX_QUERY = ('[CUDA device query of one]'
            '(https://gist.github.com/atinfinity/8cede915acda05d0ff427c09604735dd)')
NX_MODES = ("NVIDIA's [nvpmodel_p3767_0000_super.conf](https://github.com/LineageOS/"
            'android_device_nvidia_concord/blob/lineage-23.0/nvpmodel/'
            'nvpmodel_p3767_0000_super.conf)')
ORIN_PAGE = ("NVIDIA's [Jetson Orin](https://www.nvidia.com/en-us/autonomous-machines/"
             'embedded-systems/jetson-orin/)')
THOR_BLOG = ("NVIDIA's [Introducing NVIDIA Jetson Thor](https://developer.nvidia.com/blog/"
             'introducing-nvidia-jetson-thor-the-ultimate-platform-for-physical-ai/), as quoted '
             'in [huggingface.js #1710](https://github.com/huggingface/huggingface.js/pull/1710)')
HALF = ('not confirmed, no FP16 peak of the tensor cores found: half of INT8, after 16 HMMA to 32 '
        'IMMA a tensor core in a [summary of the Jetson AGX Orin technical brief]'
        '(http://mzph.cn/web/30785.shtml)')
ASSUMED_INT8 = 'assumed, of no product: taken as dense'
ASSUMED_HALF = 'assumed: a quarter of INT8'

#: Makers give TOPS with structured sparsity, which this model has not; dense is half. Of Orin the
#: GPU alone counts, not its DLAs: the 100, 157 and 275 TOPS of its modules are both, and sparse.
PLATFORMS = (
    Platform('Jetson Orin NX 16 GB, MAXN',
             Peak(30e3, f'derived: 100 sparse TOPS in all ({NX_BRIEF}) less 40 of the DLAs, as '
                        f'many as AGX Orin at 15 W ({DLA}), halved; 8 of 16 SMs at 918 MHz '
                        f'({NX_QUERY}) against AGX Orin at 1.3 GHz give the same'),
             Peak(15e3, HALF),
             Peak(102.4, f'128-bit LPDDR5 at 3200 MHz, rounded to 102 in {NX_SHEET}, as quoted')),
    Platform('Jetson Orin NX 16 GB, Super at 40 W',
             Peak(38.4e3, f'derived: the 30 at 1173 instead of 918 MHz ({NX_MODES}); the 157 '
                          f'sparse TOPS of {ORIN_PAGE}, as quoted, must count the DLAs'),
             Peak(19.2e3, HALF),
             Peak(102.4, f'no cap on the memory clock in that mode ({NX_MODES})')),
    Platform('Jetson AGX Orin 64 GB',
             Peak(85e3, f'half of the 170 sparse TOPS of the GPU at 1.3 GHz in {ORIN_SHEET}, as '
                        f'quoted; 171 of 275 with the DLAs at MAXN, 41 of 131 at 30 W in {DLA}'),
             Peak(42.5e3, HALF),
             Peak(204.8, f'{ORIN_SHEET}, as quoted')),
    Platform('Jetson Thor T5000',
             Peak(517e3, f'half of 1035 sparse INT8; 517 for dense FP8 ({THOR_BLOG})'),
             Peak(258.5e3, f'half of 517 sparse FP16 ({THOR_BLOG})'),
             Peak(273.0, f'{THOR_BLOG}')),
    Platform('a chip of 100 TOPS', Peak(100e3, ASSUMED_INT8), Peak(25e3, ASSUMED_HALF),
             Peak(100.0, 'assumed: 128-bit LPDDR5, as Orin NX')),
    Platform('a chip of 500 TOPS', Peak(500e3, ASSUMED_INT8), Peak(125e3, ASSUMED_HALF),
             Peak(250.0, 'assumed: 256-bit LPDDR5X, a little under Thor')),
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
    compute = (work.operations['int8'] / platform.int8.rate
               + work.operations['float'] / platform.float16.rate)
    moved = max(work.least_bytes, work.moved['int8'] + 2 * work.moved['float'])
    return (max(compute, work.least_bytes / platform.memory.rate) / 1e9,
            max(compute, moved / platform.memory.rate) / 1e9)


def shares(works: Mapping[str, Work], precision: Mapping[str, str],
           ceilings: Mapping[str, float], stages_ms: Mapping[str, float],
           together: Sequence[str] = ()) -> dict[str, float]:
    """
    Return what part of the ceilings each stage with a graph reaches: least time / measured.

    Stages that run beside each other, `together`, have one figure in common.
    """
    least = {stage: 1e3 * seconds_here(works[graph], precision[graph], ceilings)
             for stage, graph in GRAPH_OF_STAGE.items()}
    found = {stage: least[stage] / stages_ms[stage] for stage in least}
    of_all = [stage for stage in together if stage in least]
    for stage in of_all:
        found[stage] = sum(least[one] for one in of_all) / sum(stages_ms[one] for one in together)
    return {stage: round(value, 3) for stage, value in found.items()}
