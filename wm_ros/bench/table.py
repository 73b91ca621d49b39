"""Reports as Markdown, for the terminal and for `docs/`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from wm_ros.bench import counting, roofline
from wm_ros.bench.latency import PUBLISH, WINDOW
from wm_ros.runtime.artifact import Artifact

#: Stages in the order in which a set goes through them, and what each is.
ORDER = {'jpeg_decode': 'JPEG decode', WINDOW: 'window, checks', 'resize': 'resize, crop, judge',
         'encode': 'encode', 'fold': 'fold', 'dynamics': 'dynamics and decoder graph',
         'decode': 'decode of raw outputs', PUBLISH: 'messages, serialised'}


def tables(report: Mapping[str, Any]) -> str:
    """Return the tables of one report."""
    return '\n\n'.join(filter(None, (_head(report), _latency(report), _stages(report),
                                     _weights(report))))


def _head(report: Mapping[str, Any]) -> str:
    precision = ', '.join(f'{graph} {form}' for graph, form in report['precision'].items())
    host = report['host']
    return (f'{report["preset"]}, {report["backend"]} ({precision}), {report["threads"]} threads, '
            f'{report["frames"]} frames, JPEGs of {report["jpeg_bytes"] / 1e3:.0f} kB on average; '
            f'model {report["model_hash"][:12]}.\n'
            f'{host["device"]}: {host["cpu"]}, {host["cores"]} cores, load {host["load"]}.')


def _latency(report: Mapping[str, Any]) -> str:
    rows = [['from the JPEGs, all come at once, to the forecast, ms',
             *_three(report['latency_ms'])],
            [f'the same from the last of them, {report["spread_apart_ms"]:g} ms apart',
             *_three(report['latency_spread_ms'])],
            ['the three graphs alone, ms', *_three(report['model_ms'])]]
    for name, found in report['baselines'].items():
        if 'absent' in found:
            rows.append([f'{name}', found['absent'], '', ''])
        else:
            rows.append([f'{name}, in turns with this at {found["beside_ms"]:.1f}: '
                         f'{found["ratio"]:.1f} times as long', *_three(found['latency_ms'])])
    plans = report['plans']
    if plans:
        rows.append([f'{plans["count"]} candidate plans, in turns with one at '
                     f'{plans["one_ms"]:.1f}: {plans["ratio"]:.2f} times as long',
                     f'{plans["all_ms"]:.1f}', '', ''])
    return markdown(['', 'p50', 'p95', 'p99'], rows)


def _stages(report: Mapping[str, Any]) -> str:
    rows = []
    for stage, text in ORDER.items():
        if stage not in report['stages_ms']:
            continue
        graph = report['graphs'].get(roofline.GRAPH_OF_STAGE.get(stage, ''))
        share = report['roofline_share'].get(stage)
        rows.append([text, f'{report["stages_ms"][stage]:.2f}',
                     f'{report["stages_p95_ms"][stage]:.2f}',
                     f'{graph["gflops"]:.2f} ({graph["int8_gops"]:.2f})' if graph else '',
                     f'{graph["least_mb"]:.1f}' if graph else '',
                     f'{100 * share:.0f} %' if share is not None else ''])
    limits = ', '.join(f'{name} {value:g}' for name, value in report['ceilings'].items())
    beside = ('' if not report.get('together') else
              '\n\nOlder frames are folded beside decoding and encoding, half of the threads each: '
              'the row of fold is what is left to do after them, and the share of the two graphs '
              'is of these rows together.')
    return (markdown(['stage', 'p50 ms', 'p95 ms', 'GFLOP (of it INT8)', 'MB at least',
                      'of its ceiling'], rows)
            + f'{beside}\n\nCeilings measured: {limits} (GOP/s by precision, GB/s).')


def _weights(report: Mapping[str, Any]) -> str:
    forms = ', '.join(f'{form} {size:.2f}' for form, size in report['weights_mb'].items())
    energy = report['energy_j_per_frame']
    files = sum(report['artifact_mb'].values())
    return (f'Peak memory of the measuring process {report["rss_mb"]:.0f} MB. Graphs on disk '
            f'{files:.2f} MB, constants in them: {forms}; as float32 '
            f'{report["weights_as_fp32_mb"]:.2f}. '
            f'{report["gflops_per_frame"]:.2f} GFLOP a frame, {report["tokens"]} tokens, '
            f'{report["pairs_per_layer"]} attention slots a layer.'
            + (f' {energy:.3f} J a frame.' if energy is not None else ''))


def platforms(artifact: Artifact, cameras: int = 6) -> str:
    """Return bounds on published peaks for a rig, as a table with its sources."""
    works = counting.count_artifact(artifact, cameras)
    rows = []
    for platform in roofline.PLATFORMS:
        bounds = {graph: roofline.seconds_on(work, platform) for graph, work in works.items()}
        rows.append([platform.name,
                     f'{platform.int8.rate / 1e3:g}, {platform.float16.rate / 1e3:g}',
                     f'{platform.memory.rate:g}',
                     *(f'{1e3 * least:.2f} to {1e3 * most:.2f}' for least, most in
                       bounds.values()),
                     ' to '.join(f'{1e3 * sum(column):.2f}' for column in
                                 zip(*bounds.values(), strict=True))])
    sources = '\n'.join(f'- {platform.name}\n'
                        f'  - INT8 {platform.int8.rate / 1e3:g}: {platform.int8.source}\n'
                        f'  - FP16 {platform.float16.rate / 1e3:g}: {platform.float16.source}\n'
                        f'  - GB/s {platform.memory.rate:g}: {platform.memory.source}'
                        for platform in roofline.PLATFORMS)
    return (markdown(['estimate, not measured', 'dense INT8, FP16 TOPS', 'GB/s',
                      *(f'{graph} ms' for graph in works), 'all ms'], rows)
            + f'\n\n{cameras} cameras, model {artifact.hash[:12]}. Sources of the peaks:\n\n'
            + sources)


def put_into(page: str, key: str, text: str) -> str:
    """
    Return a page with `text` in the section `key`: between `<!-- bench KEY -->` and `<!-- end -->`.

    A page without that section becomes the text alone.
    """
    begin, end = f'<!-- bench {key} -->', '<!-- end -->'
    before, found, rest = page.partition(begin)
    old, closed, after = rest.partition(end)
    if not found:
        return text + '\n'
    if not closed:
        raise ValueError(f'a page with {begin} and no {end} after it')
    return f'{before}{begin}\n{text}\n{end}{after}'


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    head = list(head)
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def _three(row: Mapping[str, float]) -> list[str]:
    return [f'{row[key]:.1f}' for key in ('p50', 'p95', 'p99')]
