"""
What attention costs: `python -m wm_ros.model.attention_cost`.

The first table is one attention layer from 256 to 4,096 tokens: ours, dense attention of the same
width in torch's fused form, and the Longformer layer of `transformers` with the same window and as
many global tokens (if it is installed: `pip install transformers==4.57.3`; it has no output
projection, the other two have one). The second is what
the temporal bottleneck spares: everything from 16 cached maps to the rolled-out states, for a
student, for the same with dense layers over all 4,096 tokens as many as sparse ones, and for a
teacher's preset.

Times are the best of some rounds in turn; on one thread (`--threads 1`) they are of the processor,
so that what else runs disturbs them little.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from wm_ros.model.config import PRESETS, ModelConfig
from wm_ros.model.dynamics import SparseAttention
from wm_ros.model.teacher import build_model
from wm_ros.types import FEATURE_GRID

TOKENS = (256, 512, 1024, 2048, 4096)


class DenseAttention(nn.Module):
    """Attention of every token over every other, as wide as `SparseAttention`."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        read = F.scaled_dot_product_attention(q, k, v)
        return self.out(read.transpose(1, 2).flatten(2))


def longformer(dim: int, heads: int, window: int, anchors: int) -> Callable | None:
    """Return the Longformer layer as a function of x (B, L, dim), None if it is not installed."""
    try:
        from transformers import LongformerConfig
        from transformers.models.longformer.modeling_longformer import LongformerSelfAttention
    except ImportError:
        return None
    layer = LongformerSelfAttention(
        LongformerConfig(hidden_size=dim, num_attention_heads=heads, attention_window=[window],
                         attention_probs_dropout_prob=0.0), layer_id=0).eval()

    def run(x: torch.Tensor) -> torch.Tensor:
        x = F.pad(x, (0, 0, 0, -x.shape[1] % window))       # it takes whole windows only
        mask = torch.zeros(x.shape[:2])
        mask[:, :anchors] = 10_000.0                        # global tokens, in its convention
        return layer(x, attention_mask=mask, is_index_masked=mask < 0,
                     is_index_global_attn=mask > 0, is_global_attn=True)[0]
    return run


@torch.inference_mode()
def attention_times(config: ModelConfig, rounds: int) -> list[dict[str, Any]]:
    """Return milliseconds of each layer for each number of tokens: the best of rounds in turn."""
    dim, heads, anchors = config.dim, config.heads, config.anchors
    sparse = SparseAttention(dim, heads, config.block, anchors).eval()
    layers = {'sparse': sparse, 'dense': DenseAttention(dim, heads).eval(),
              'longformer': longformer(dim, heads, 3 * config.block, anchors)}
    layers = {name: layer for name, layer in layers.items() if layer is not None}
    rows = []
    for tokens in TOKENS:
        x = torch.randn(1, anchors + tokens, dim)
        spent: dict[str, list[float]] = {name: [] for name in layers}
        for count in range(rounds + 1):
            for name, layer in layers.items():
                begin = _clock()
                layer(x)
                if count:                                   # the first round warms up
                    spent[name].append(1e3 * (_clock() - begin))
        rows.append({'tokens': tokens, 'slots': sparse.pairs(tokens)['slots'],
                     'dense_pairs': tokens * tokens,
                     **{f'{name}_ms': min(times) for name, times in spent.items()}})
    return rows


@torch.inference_mode()
def core_cost(config: ModelConfig, rounds: int, threads: int) -> dict[str, Any]:
    """
    Return tokens, parameters, milliseconds and memory from cached maps to rolled-out states.

    The memory is by how much the peak of this process grows, so it wants a process of its own.
    """
    torch.set_num_threads(threads)
    model = build_model(config).eval()
    side = FEATURE_GRID.rows
    inputs = (torch.rand(1, 16, config.memory_channels, side, side), torch.zeros(1, 16, 3),
              torch.zeros(1, 16), torch.ones(1, 16), torch.ones(1, 1))
    plan = torch.zeros(1, 6, 3), torch.zeros(1, 2), torch.ones(1, 1)
    Path('/proc/self/clear_refs').write_text('5')           # the peak counts from here (proc(5))
    before = _peak_mb()
    times = []
    for _ in range(rounds + 1):
        begin = _clock()
        latent, _ = model.fold(*inputs)
        model.dynamics(latent, *plan)
        times.append(1e3 * (_clock() - begin))
    return {'tokens': 16 * 256 if config.teacher else 256,
            'parameters': sum(p.numel() for part in (model.bottleneck, model.dynamics)
                              for p in part.parameters()),
            'ms': min(times[1:]), 'peak_mb': _peak_mb() - before}


def _clock() -> float:
    """Return seconds: of this process on one thread, whatever else runs, else of the wall."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def _peak_mb() -> float:
    """Return the largest resident memory that this process has had."""
    status = Path('/proc/self/status').read_text()
    return int(status.split('VmHWM:')[1].split()[0]) / 1024


def cores(student: str, teacher: str, rounds: int) -> dict[str, dict[str, Any]]:
    """Return `core_cost` of a student, of one with as many dense layers, and of a teacher."""
    configs = {student: PRESETS[student],
               f'{student}, all frames': replace(PRESETS[student], teacher=True),
               teacher: PRESETS[teacher]}
    threads = torch.get_num_threads()
    with multiprocessing.get_context('spawn').Pool(1, maxtasksperchild=1) as pool:
        return {name: pool.apply(core_cost, (config, rounds, threads))
                for name, config in configs.items()}


def table(report: dict[str, Any]) -> str:
    """Return the two tables as text."""
    rows = report['attention']
    names = [key for key in rows[0] if key.endswith('_ms')]
    lines = ['one layer, ms' + ''.join(f'{name[:-3]:>12}' for name in names) + '   slots']
    lines += [f'{row["tokens"]:>6} tokens' + ''.join(f'{row[name]:>12.2f}' for name in names)
              + f'{row["slots"]:>8}' for row in rows]
    lines.append(f'{TOKENS[-1] // TOKENS[0]:>6}x tokens'
                 + ''.join(f'{rows[-1][name] / rows[0][name]:>11.1f}x' for name in names))
    if 'longformer_ms' not in names:
        lines.append('(longformer: transformers is not installed)')
    lines += ['', f'{"maps to states":<26}{"tokens":>8}{"parameters":>12}{"ms":>9}{"peak MB":>9}']
    lines += [f'{name:<26}{row["tokens"]:>8}{row["parameters"]:>12}{row["ms"]:>9.1f}'
              f'{row["peak_mb"]:>9.1f}' for name, row in report['cores'].items()]
    return '\n'.join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the tables, write them as JSON where that is asked for."""
    parser = argparse.ArgumentParser(prog='python -m wm_ros.model.attention_cost',
                                     description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--student', default='small', choices=tuple(PRESETS))
    parser.add_argument('--teacher', default='teacher', choices=tuple(PRESETS))
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--json', type=Path, metavar='FILE')
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    report = {'threads': given.threads,
              'attention': attention_times(PRESETS[given.student], given.rounds),
              'cores': cores(given.student, given.teacher, given.rounds)}
    print(table(report))
    if given.json:
        given.json.write_text(json.dumps(report, indent=1) + '\n')


if __name__ == '__main__':
    main()
