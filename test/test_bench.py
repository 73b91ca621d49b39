"""The benchmark: its counts against counts by hand, its report's keys, its float baseline."""

import json
import time

import numpy as np
import onnx
import openvino as ov
import pytest
from fakes import make_fake_artifact, make_rig
from onnx import TensorProto, helper, numpy_helper
from openvino import opset13 as ops

from wm_ros.bench import ceilings, counting, latency, roofline, table
from wm_ros.bench.baselines import strip_quantisers
from wm_ros.bench.drive import PERIOD_NS, CameraDrive
from wm_ros.cli import main as cli
from wm_ros.runtime.artifact import load_artifact
from wm_ros.share import share_path
from wm_ros.types import EgoState

#: The keys that a reader of the report may rely on.
KEYS = {'preset', 'backend', 'precision', 'threads', 'frames', 'tokens', 'pairs_per_layer',
        'latency_ms', 'stages_ms', 'rss_mb', 'int8_weights_mb', 'gflops_per_frame',
        'roofline_share', 'baselines', 'host', 'model_hash', 'weights_mb', 'plans',
        'artifact_mb', 'warm_up_frames'}
STAGES = {'jpeg_decode', 'resize', 'encode', 'window', 'fold', 'dynamics', 'decode'}


def quantised_product():
    """Return x (3, 8) @ w (8, 5), both INT8 by QuantizeLinear and DequantizeLinear, as a file."""
    weight = np.arange(40, dtype=np.int8).reshape(8, 5) - 20
    nodes = [helper.make_node('QuantizeLinear', ['x', 's', 'z'], ['q']),
             helper.make_node('DequantizeLinear', ['q', 's', 'z'], ['d']),
             helper.make_node('DequantizeLinear', ['w', 's', 'z'], ['v']),
             helper.make_node('MatMul', ['d', 'v'], ['y'])]
    graph = helper.make_graph(
        nodes, 'product', [helper.make_tensor_value_info('x', TensorProto.FLOAT, (3, 8))],
        [helper.make_tensor_value_info('y', TensorProto.FLOAT, (3, 5))],
        [numpy_helper.from_array(np.float32(0.5), 's'), numpy_helper.from_array(np.int8(0), 'z'),
         numpy_helper.from_array(weight, 'w')])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString(), weight * np.float32(0.5)


def test_a_convolution_is_counted_as_by_hand():
    x = ops.parameter((2, 3, 10, 12), np.float32)
    y = ops.convolution(x, ops.constant(np.ones((4, 3, 3, 3), np.float32)), [2, 2], [1, 1],
                        [1, 1], [1, 1])
    work = counting.count_model(ov.Model([y], [x]))
    out = 2 * 4 * 5 * 6
    assert work.operations == {'int8': 0, 'float': 2 * out * 3 * 3 * 3}
    assert work.weight_bytes == {'float32': 4 * 4 * 3 * 9}
    assert work.io_bytes == 4 * (2 * 3 * 10 * 12 + out)
    assert work.moved == {'int8': 0, 'float': 2 * 3 * 10 * 12 + 4 * 27 + out}


def test_groups_and_products_are_counted_as_by_hand():
    x = ops.parameter((1, 6, 4, 4), np.float32)
    grouped = ops.group_convolution(x, ops.constant(np.ones((6, 1, 1, 3, 3), np.float32)), [1, 1],
                                    [1, 1], [1, 1], [1, 1])
    work = counting.count_model(ov.Model([grouped], [x]))
    assert work.operations['float'] == 2 * 6 * 16 * 9
    a, b = (ops.parameter((2, 7, 5), np.float32) for _ in range(2))
    product = ops.matmul(a, b, True, False)                 # (2, 5, 7) @ (2, 7, 5)
    work = counting.count_model(ov.Model([product], [a, b]))
    assert work.operations['float'] == 2 * 2 * 5 * 5 * 7
    assert work.gflops == pytest.approx(700e-9)


def test_int8_is_told_from_float():
    data, weight = quantised_product()
    work = counting.count_model(ov.Core().read_model(data))
    assert work.operations == {'int8': 2 * 3 * 5 * 8, 'float': 0}
    assert work.weight_bytes['int8'] == weight.size
    assert work.moved['int8'] == 3 * 8 + 40 + 15


def test_the_shipped_artifact_counts_as_what_its_manifest_says():
    artifact = load_artifact(share_path('models', 'world-model'))
    six, one = (counting.count_artifact(artifact, cameras) for cameras in (6, 1))
    assert six['encode'].operations['int8'] > 3 * one['encode'].operations['int8']
    assert six['encode'].operations['float'] == 0
    assert six['fold'].operations == one['fold'].operations
    whole = counting.total(six)
    stored = sum(entry['bytes'] for entry in artifact.manifest['files'].values())
    assert 0.5 * stored < sum(whole.weight_bytes.values()) < stored
    assert whole.weights_as_float32 > 4 * whole.weight_bytes['int8']


def test_a_model_without_its_quantisers_computes_in_float():
    data, weight = quantised_product()
    model = ov.Core().read_model(data)
    assert strip_quantisers(model) == 1
    x = np.linspace(-1.3, 1.4, 24, dtype=np.float32).reshape(3, 8)   # far from multiples of 0.5
    config = {'INFERENCE_PRECISION_HINT': 'f32'}
    compute = ov.Core().compile_model(model, 'CPU', config)
    np.testing.assert_allclose(compute(x)[0], x @ weight, rtol=1e-5)


def test_the_least_time_is_that_of_the_slower_of_compute_and_memory():
    work = counting.Work({'int8': 4_000_000_000, 'float': 1_000_000_000}, {'int8': 1_000_000},
                         1_000_000, {'int8': 30_000_000, 'float': 10_000_000})
    limits = {'f32': 100.0, 'bf16': 200.0, 'i8': 400.0, 'memory': 10.0}
    assert roofline.seconds_here(work, 'bf16+i8', limits) == pytest.approx(0.015)
    assert roofline.seconds_here(work, 'f32', limits) == pytest.approx(0.05)
    assert roofline.seconds_here(work, 'i8', {**limits, 'memory': 0.01}) == pytest.approx(0.2)
    platform = roofline.Platform('p', *(roofline.Peak(rate, 'made up')
                                        for rate in (400.0, 200.0, 1.0)))
    assert roofline.seconds_on(work, platform) == pytest.approx((0.015, 0.05))


def test_stages_that_run_beside_each_other_have_one_share():
    works = {graph: counting.Work({'int8': 0, 'float': size}, {}, 0) for graph, size in
             (('encode', 100_000_000), ('fold', 300_000_000), ('rollout', 200_000_000))}
    precision, limits = dict.fromkeys(works, 'f32'), {'f32': 100.0, 'memory': 10.0}
    stages = {'jpeg_decode': 2.0, 'encode': 2.0, 'fold': 4.0, 'dynamics': 4.0}  # least: 1, 3, 2 ms
    assert roofline.shares(works, precision, limits, stages) == {
        'encode': 0.5, 'fold': 0.75, 'dynamics': 0.5}
    assert roofline.shares(works, precision, limits, stages, ('jpeg_decode', 'encode', 'fold')) == {
        'encode': 0.5, 'fold': 0.5, 'dynamics': 0.5}


def test_ceilings_are_measured_in_order(monkeypatch):
    # Of the processor on one thread: what others do on this machine is not in it.
    monkeypatch.setattr(time, 'perf_counter', time.process_time)
    found = ceilings.measure(1, seconds=0.05)
    assert found['i8'] > found['f32'] > 1 and found['memory'] > 0.1


def test_the_drive_goes_to_and_fro_with_stamps_that_grow():
    egos = tuple(EgoState(0, np.array([float(i), 0, 0]), 5.0, 0.1) for i in range(3))
    drive = CameraDrive(make_rig(1), ({'camera_0': b'a'}, {'camera_0': b'b'}, {'camera_0': b'c'}),
                        egos)
    sets = [drive.at(i) for i in range(6)]
    assert b''.join(frames.frames['camera_0'].image for frames, _ in sets) == b'abcbab'
    assert {b.stamp_ns - a.stamp_ns for (a, _), (b, _) in zip(sets, sets[1:], strict=False)} == {
        PERIOD_NS}
    assert [ego.speed_mps for _, ego in sets] == [5, 5, 5, -5, 5, 5]


def test_turns_leave_the_first_frame_out():
    class Counted:
        def __init__(self):
            self.steps = 0

        def step(self):
            self.steps += 1

        def measure(self, frames, into):
            for _ in range(frames):
                self.step()
                into.add(self.steps, {'encode': 1.0})

    systems = {'a': Counted(), 'b': Counted()}
    found = latency.measure_beside(systems, 6, block=3)
    assert found['a'].total == found['b'].total == [2, 3, 4, 6, 7, 8]
    assert found['a'].by_stage() == {'encode': {'p50': 1.0, 'p95': 1.0, 'p99': 1.0}}


def test_a_small_run_writes_a_report_with_its_keys(tmp_path, capsys):
    artifact = make_fake_artifact(tmp_path / 'artifact')
    target, tables = tmp_path / 'report.json', tmp_path / 'report.md'
    assert cli.main(['bench', '--preset', 'front', '--width', '400', '--frames', '4', '--beside',
                     '2', '--baselines', 'openvino-fp32', '--plans', '2', '--threads', '1',
                     '--artifact', str(artifact), '--device', 'a test', '--json', str(target),
                     '--markdown', str(tables)]) == 0
    report = json.loads(target.read_text())
    assert KEYS <= set(report)
    assert (report['preset'], report['frames'], report['threads']) == ('front', 4, 1)
    assert set(report['latency_ms']) == {'p50', 'p95', 'p99'}
    assert STAGES <= set(report['stages_ms'])
    assert 0 < report['stages_ms']['jpeg_decode'] < report['latency_ms']['p50']
    assert set(report['precision']) == {'encode', 'fold', 'rollout'}
    assert set(report['roofline_share']) == {'encode', 'fold', 'dynamics'}
    assert report['baselines']['openvino-fp32']['ratio'] > 0
    assert report['plans']['count'] == 2 and report['rss_mb'] > 50
    assert report['host']['device'] == 'a test'
    assert tables.read_text().startswith('front, ')
    assert 'JPEG decode' in capsys.readouterr().out


def test_bounds_for_other_hardware_are_marked_and_need_no_run(capsys):
    assert cli.main(['bench', '--roofline']) == 0
    text = capsys.readouterr().out
    assert 'estimate, not measured' in text and 'Orin NX' in text and 'Sources' in text
    for platform in roofline.PLATFORMS:     # beside each number, where it comes from
        for peak in (platform.int8, platform.float16, platform.memory):
            assert f': {peak.source}\n' in text
            assert '](http' in peak.source or peak.source.startswith('assumed')


@pytest.mark.parametrize('arguments, named', [
    (['--frames', '0'], '--frames 0'), (['--baselines', 'tea'], 'tea'),
    (['--option', 'what'], '--option what')])
def test_wrong_values_are_named(arguments, named, capsys):
    assert cli.main(['bench', *arguments]) == 1
    assert named in capsys.readouterr().err


def test_a_section_of_a_page_is_replaced_and_no_other():
    page = ('a\n<!-- bench front -->\nold\n<!-- end -->\n'
            'b\n<!-- bench surround -->\nc\n<!-- end -->\n')
    made = table.put_into(page, 'front', 'new')
    assert made == page.replace('old', 'new')
    assert table.put_into(made, 'front', 'new') == made
    assert table.put_into('other', 'front', 'new') == 'new\n'
    with pytest.raises(ValueError, match='no <!-- end -->'):
        table.put_into('<!-- bench front -->', 'front', 'new')


def test_markdown_tables_have_a_line_a_row():
    assert table.markdown(['a', 'b'], [['1', '2']]).splitlines() == [
        '| a | b |', '| --- | --- |', '| 1 | 2 |']
