"""
The TensorRT backend against a stand-in: what it calls, in which order, and what it refuses.

It has run on no hardware. The stand-in moves real bytes and computes with ONNX Runtime, so that a
wrong address, a copy left out or an engine of another artifact gives wrong numbers here too.
"""

import gc
import json
import sys

import numpy as np
import pytest

pytest.importorskip('onnxruntime', reason='the stand-in computes with it')
pytest.importorskip('onnx', reason='the form for TensorRT is made with it')

from cuda_stand_in import CUDA_VERSIONS  # noqa: E402
from fakes import CHANNELS, make_fake_artifact  # noqa: E402
from tensorrt_stand_in import TENSORRT_VERSIONS, World  # noqa: E402
from test_backends import random_inputs  # noqa: E402

from wm_ros.export.derive import derive  # noqa: E402
from wm_ros.runtime.artifact import ArtifactError, load_artifact, write_manifest  # noqa: E402
from wm_ros.runtime.backend import Backend, BackendError, create_backend  # noqa: E402
from wm_ros.runtime.contract import GRAPHS  # noqa: E402
from wm_ros.runtime.derived import form_path  # noqa: E402

CAMERAS, PLANS = 2, 3


@pytest.fixture
def artifact(tmp_path):
    return load_artifact(make_fake_artifact(tmp_path / 'fake'))


@pytest.fixture
def cache(tmp_path):
    return tmp_path / 'cache'


def opened(artifact, cache, log=lambda text: None, **options):
    return create_backend('tensorrt', artifact, CAMERAS, PLANS,
                          options={'cache': str(cache), **options}, log=log)


def engines(cache):
    return {path.name.split('-')[0]: path for path in cache.glob('*.engine')}


@pytest.mark.parametrize('version', TENSORRT_VERSIONS)
def test_it_computes_what_onnx_runtime_computes(artifact, cache, monkeypatch, version):
    cuda = CUDA_VERSIONS[version == '11.4']
    World(version, cuda).install(monkeypatch)
    backend = opened(artifact, cache)
    reference = create_backend('onnxruntime', artifact, CAMERAS, PLANS, threads=1)
    assert isinstance(backend, Backend)
    for graph in GRAPHS:
        for seed in (0, 1):
            inputs = random_inputs(artifact, graph, seed, CAMERAS, PLANS)
            got = {key: value.copy() for key, value in backend.run(graph, inputs).items()}
            want = reference.run(graph, inputs)
            for item in artifact.specs[graph].outputs:
                item.check(got[item.name], N=CAMERAS, P=PLANS)
                np.testing.assert_allclose(got[item.name], want[item.name], rtol=2e-3, atol=2e-3)
    backend.close()
    reference.close()


def test_addresses_come_before_enqueue_and_the_graph_is_recorded_after_a_warm_up(
        artifact, cache, monkeypatch):
    world = World().install(monkeypatch)
    backend = opened(artifact, cache)
    kinds = [event[0] for event in world.events]
    first = kinds.index('enqueue')
    tensors = len(artifact.specs['encode'].inputs) + len(artifact.specs['encode'].outputs)
    assert kinds[:first].count('address') == tensors
    enqueued = [event[1] for event in world.events if event[0] == 'enqueue']
    assert enqueued == [False, True] * 3        # run once, then recorded; for each graph
    assert kinds.index('begin_capture') > first
    assert 'synchronise' in kinds[first:kinds.index('begin_capture')]   # the warm-up has ended
    assert world.events[kinds.index('begin_capture')] == ('begin_capture', 'thread')
    # What was recorded is copies in, the engine, and copies out.
    assert world.events[kinds.index('end_capture')] == ('end_capture', tensors + 1)

    before = len(world.events)
    inputs = random_inputs(artifact, 'encode', 0, CAMERAS, PLANS)
    addresses = [value.ctypes.data for value in backend.run('encode', inputs).values()]
    assert [event[0] for event in world.events[before:]] == ['launch', 'synchronise']
    assert [value.ctypes.data for value in backend.run('encode', inputs).values()] == addresses
    backend.close()


def test_without_a_cuda_graph_every_run_is_queued(artifact, cache, monkeypatch):
    world = World().install(monkeypatch)
    backend = opened(artifact, cache, cuda_graph=False)
    before = len(world.events)
    backend.run('fold', random_inputs(artifact, 'fold', 0, CAMERAS, PLANS))
    assert [event[0] for event in world.events[before:]] == [
        *['copy_in'] * 5, 'enqueue', *['copy_out'] * 2, 'synchronise']
    assert not world.count('begin_capture')
    backend.close()


def test_networks_are_strongly_typed_and_full_precision_is_not_rounded(artifact, cache,
                                                                       monkeypatch):
    world = World('10.13').install(monkeypatch)
    opened(artifact, cache, workspace_mb=256, optimization_level=5).close()
    flags = [event[1] for event in world.events if event[0] == 'network']
    assert flags == [1 << 3] * 3    # the fourth of the names, in the stand-in's order
    assert ('clear_flag', 'TF32') in world.events
    assert ('pool', 256 << 20) in world.events
    assert ('build', 5) in world.events


def test_progress_and_precision_are_told(artifact, cache, monkeypatch):
    World().install(monkeypatch)
    said = []
    backend = opened(artifact, cache, said.append)
    assert backend.precision == dict.fromkeys(GRAPHS, 'i8+f16')
    backend.close()
    assert 'deriving the form tensorrt for 2 cameras and 3 plans' in said
    told = [text for text in said if text.startswith('building fold:')]
    assert told[0] == 'building fold: Building the engine'
    assert told[1:] == [f'building fold: Building the engine: {n}0 %' for n in range(1, 11)]


@pytest.mark.parametrize('told,precision', [
    ({'Layers': [{'LayerType': 'CaskConvolution', 'Inputs': [{'Format/Datatype': 'x Float16'}]}]},
     'f16'),
    ({'Layers': [{'LayerType': 'gemm', 'Inputs': [{'Format/Datatype': 'Row major FP32'}]}] * 2
      + [{'LayerType': 'gemm', 'Inputs': [{'Format/Datatype': 'INT8 NHWC'}]}]}, 'f32+i8'),
    ({'Layers': [{'LayerType': 'conv', 'Inputs': [{}]}]}, 'unknown'),
    ({'Layers': ['names', 'alone']}, 'none'), ('{"no JSON', 'unknown')])
def test_precision_is_what_the_inspector_tells(artifact, cache, monkeypatch, told, precision):
    world = World().install(monkeypatch)
    world.told = told if isinstance(told, str) else json.dumps(told)
    backend = opened(artifact, cache)
    assert backend.precision == dict.fromkeys(GRAPHS, precision)
    backend.close()


def test_an_interrupt_ends_a_build(artifact, cache, monkeypatch):
    world = World().install(monkeypatch)

    def interrupted(text):
        if '50 %' in text:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        opened(artifact, cache, interrupted)
    assert world.count('build') == 1 and not engines(cache)
    gc.collect()
    assert world.memory == {} and world.count('stream_destroy') == 1


def test_a_second_start_builds_nothing(artifact, cache, monkeypatch):
    world = World().install(monkeypatch)
    opened(artifact, cache).close()
    assert world.count('build') == 3
    # The timing cache of one build is handed to the next.
    assert [event[1] for event in world.events if event[0] == 'timing_cache'] == [b'', b'+', b'++']
    again = World().install(monkeypatch)
    backend = opened(artifact, cache, build=False)
    assert again.count('build') == 0 and again.count('deserialise') == 3
    assert backend.notes == []
    backend.close()


@pytest.mark.parametrize('world,options,said', [
    (World(gpu='Thor'), {}, "gpu 'Orin', want 'Thor'"),
    (World(capability=(11, 0)), {}, "compute_capability '8.7', want '11.0'"),
    (World(multiprocessors=8), {}, 'multiprocessors 16, want 8'),
    (World('10.13'), {}, "tensorrt '10.3.0', want '10.13.0'"),
    (World(), {'workspace_mb': 64}, 'options'),
])
def test_an_engine_of_another_machine_is_built_again_and_named(artifact, cache, monkeypatch, world,
                                                              options, said):
    World().install(monkeypatch)
    opened(artifact, cache).close()
    world.install(monkeypatch)
    with pytest.raises(BackendError, match='`build` is off: .*stale') as refused:
        opened(artifact, cache, build=False, **options)
    assert said in str(refused.value)
    backend = opened(artifact, cache, **options)
    assert world.count('build') == 3
    assert any('stale' in note and said in note for note in backend.notes)
    backend.close()
    count = len(world.events)
    opened(artifact, cache, build=False, **options).close()     # and is now this one's
    assert not any(event[0] == 'build' for event in world.events[count:])


def test_other_sizes_and_other_artifacts_have_engines_of_their_own(artifact, tmp_path, cache,
                                                                   monkeypatch):
    world = World().install(monkeypatch)
    opened(artifact, cache).close()
    create_backend('tensorrt', artifact, CAMERAS, 1, options={'cache': str(cache)}).close()
    other = load_artifact(make_fake_artifact(tmp_path / 'other', score_threshold=0.4))
    opened(other, cache).close()
    assert world.count('build') == 9 and len(list(cache.glob('*.engine'))) == 9


def test_a_flipped_byte_or_an_unreadable_engine_is_built_again(artifact, cache, monkeypatch):
    world = World().install(monkeypatch)
    opened(artifact, cache).close()
    path = engines(cache)['fold']
    data = bytearray(path.read_bytes())
    for place, said in ((len(data) - 5, 'damaged'), (2, 'no header|stale')):
        flipped = bytearray(data)
        flipped[place] ^= 0x10
        path.write_bytes(flipped)
        count = world.count('build')
        backend = opened(artifact, cache)
        assert world.count('build') == count + 1
        assert any(word in note for note in backend.notes for word in said.split('|'))
        backend.close()
    world.unreadable = True     # by a library that has changed under the same version number
    count = world.count('build')
    backend = opened(artifact, cache)
    assert world.count('build') == count + 1
    assert any('magic tag does not match' in note for note in backend.notes)
    backend.close()


def test_every_flipped_byte_of_a_header_is_noticed(artifact, cache, monkeypatch):
    from wm_ros.runtime.tensorrt_cache import EngineCache
    key = {'gpu': 'Orin', 'options': {'workspace_mb': 0}}
    EngineCache(cache).store('a.engine', key, b'plan')
    path = cache / 'a.engine'
    whole = path.read_bytes()
    assert EngineCache(cache).load('a.engine', key) == b'plan'
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        found = EngineCache(cache)
        assert found.load('a.engine', key) is None and found.notes, bytes(flipped)


def test_a_cache_that_cannot_be_used_costs_a_note(artifact, tmp_path, monkeypatch):
    world = World().install(monkeypatch)
    blocked = tmp_path / 'file'
    blocked.write_text('no folder')
    backend = opened(artifact, blocked)
    assert world.count('build') == 3
    assert sum('made again at the next start' in note for note in backend.notes) >= 2
    temporary = backend._temporary.name
    assert json.loads((tmp_path / temporary / 'manifest.json').read_text())['derived']
    backend.close()
    assert not (tmp_path / temporary).exists()


def test_closing_frees_everything_and_outputs_outlive_it(artifact, cache, monkeypatch):
    world = World().install(monkeypatch)
    backend = opened(artifact, cache)
    held = backend.run('fold', random_inputs(artifact, 'fold', 0, CAMERAS, PLANS))['latent']
    value = held.copy()
    backend.close()
    backend.close()
    gc.collect()
    assert world.count('free') == world.count('malloc')
    assert world.count('executable_destroy') == 3 and world.count('stream_destroy') == 1
    assert len(world.memory) == 1       # the one array that is still held
    np.testing.assert_array_equal(held, value)
    del held
    gc.collect()
    assert world.memory == {}
    with pytest.raises(BackendError, match='closed'):
        backend.run('fold', {})


def test_too_little_memory_is_said_before_anything_runs(artifact, cache, monkeypatch):
    world = World()
    world.engine_bytes = 1 << 34
    world.install(monkeypatch)
    with pytest.raises(BackendError, match='not enough memory: 163[0-9]+ MB .*8192 MB are free'):
        opened(artifact, cache)
    assert not world.count('enqueue') and not world.count('context')
    small = World()
    small.engine_bytes = 0
    small.install(monkeypatch)
    sys.modules['cuda.bindings.runtime'].cudaMalloc = lambda size: (2, None)
    with pytest.raises(BackendError, match='cuda: [0-9]+ bytes of device memory: out of memory'):
        opened(artifact, cache)
    gc.collect()
    assert small.memory == {}


def test_a_refused_graph_is_named_with_what_tensorrt_says(artifact, cache, monkeypatch):
    world = World().install(monkeypatch)
    world.refuse_parse = True
    with pytest.raises(BackendError, match=r'tensorrt: .*encode: .*10\.3\.0 refuses it: node 3'):
        opened(artifact, cache)
    world.refuse_parse, world.refuse_build = False, True
    with pytest.raises(BackendError, match='built no engine: no tactic for Conv_7'):
        opened(artifact, cache)


def test_a_form_beside_the_artifact_is_taken_for_its_sizes(artifact, cache, monkeypatch):
    World().install(monkeypatch)
    beside = form_path(artifact.path, 'tensorrt')
    derive(artifact, 'tensorrt', beside, {'N': CAMERAS, 'P': PLANS})
    opened(artifact, cache).close()
    assert not list(cache.glob('*-tensorrt-*/manifest.json'))
    create_backend('tensorrt', artifact, CAMERAS, 1, options={'cache': str(cache)}).close()
    assert len(list(cache.glob('*-tensorrt-n2-p1/manifest.json'))) == 1
    form = load_artifact(beside)
    opened(form, cache, build=False).close()        # the form itself: the same engines
    with pytest.raises(BackendError, match='made for 2 cameras and 3 plans, want 6 cameras and 3'):
        create_backend('tensorrt', form, 6, 3, options={'cache': str(cache)})


def test_a_form_of_another_artifact_is_not_used(artifact, tmp_path, cache, monkeypatch):
    World().install(monkeypatch)
    other = load_artifact(make_fake_artifact(tmp_path / 'other', score_threshold=0.4))
    derive(other, 'tensorrt', form_path(artifact.path, 'tensorrt'), {'N': CAMERAS, 'P': PLANS})
    backend = opened(artifact, cache)
    assert any('derived from artifact' in note and 'not used' in note for note in backend.notes)
    backend.close()


def test_another_form_and_an_old_tensorrt_are_refused(artifact, cache, monkeypatch):
    World().install(monkeypatch)
    other = artifact.path.with_name('u8s8')
    other.mkdir()
    for graph in GRAPHS:
        (other / f'{graph}.onnx').write_bytes(artifact.graph(graph))
    write_manifest(other, {
        'channels': CHANNELS, 'score_threshold': 0.3, 'observed_threshold': 0.0,
        'precision': dict.fromkeys(GRAPHS, 'f32'),
        'derived': {'form': 'ort-u8s8', 'parent': artifact.hash}})
    with pytest.raises(ArtifactError, match="tensorrt got the form 'ort-u8s8', want"):
        opened(load_artifact(other), cache)
    sys.modules['tensorrt'].__version__ = '8.6.1'
    with pytest.raises(BackendError, match='version 8.6.1, want 10.3 or newer'):
        opened(artifact, cache)


def test_where_it_does_not_start_auto_takes_another(artifact, cache, monkeypatch):
    World(capability=(5, 3)).install(monkeypatch)
    with pytest.raises(BackendError, match='tensorrt: .*factory function returned nullptr, want'):
        opened(artifact, cache)
    said = []
    backend = create_backend('auto', artifact, CAMERAS, log=said.append)
    backend.close()
    assert backend.name != 'tensorrt' and 'tensorrt: pybind11' in said[0]
    monkeypatch.setitem(sys.modules, 'cuda.bindings', None)
    monkeypatch.delitem(sys.modules, 'cuda.bindings.runtime')
    with pytest.raises(BackendError, match='cuda: .*want cuda-python'):
        opened(artifact, cache)


def test_without_onnx_the_command_that_makes_the_form_is_named(artifact, cache, monkeypatch):
    World().install(monkeypatch)
    monkeypatch.setitem(sys.modules, 'wm_ros.export.derive', None)
    with pytest.raises(BackendError, match='wm_ros derive .* --form tensorrt .* 2 --plans 3'):
        opened(artifact, cache)
