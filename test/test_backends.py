"""Backends: selection, the same numbers from each, steady buffers, named refusals."""

import importlib.util
import json
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from fakes import CHANNELS, make_fake_artifact

from wm_ros.runtime import backend as be
from wm_ros.runtime.artifact import load_artifact, write_manifest
from wm_ros.runtime.backend import Backend, BackendError, create_backend
from wm_ros.runtime.contract import GRAPHS

INSTALLED = [name for name in ('openvino', 'onnxruntime')
             if importlib.util.find_spec(name) is not None]


@pytest.fixture(scope='module')
def artifact(tmp_path_factory):
    return load_artifact(make_fake_artifact(tmp_path_factory.mktemp('artifact') / 'fake'))


@pytest.fixture(params=INSTALLED)
def backend(request, artifact):
    made = create_backend(request.param, artifact, cameras=2, plans=3, threads=1)
    yield made
    made.close()


def random_inputs(artifact, graph, seed=0, cameras=2, plans=3):
    rng = np.random.default_rng(seed)
    out = {}
    for item in artifact.specs[graph].inputs:
        shape = item.resolve(N=cameras, P=plans)
        if item.name == 'lift_index':
            out[item.name] = rng.integers(0, cameras * 1000, shape, dtype=np.int32)
        elif item.dtype == 'uint8':
            out[item.name] = rng.integers(0, 256, shape, dtype=np.uint8)
        else:
            out[item.name] = rng.uniform(0.1, 1, shape).astype(item.dtype)
    return out


@pytest.mark.parametrize('graph', GRAPHS)
def test_shapes_and_types_are_those_of_the_contract(backend, artifact, graph):
    assert isinstance(backend, Backend)
    outputs = backend.run(graph, random_inputs(artifact, graph))
    assert set(outputs) == {item.name for item in artifact.specs[graph].outputs}
    for item in artifact.specs[graph].outputs:
        item.check(outputs[item.name], N=2, P=3)


@pytest.mark.skipif(len(INSTALLED) < 2, reason='needs openvino and onnxruntime')
@pytest.mark.parametrize('graph', GRAPHS)
def test_backends_agree(artifact, graph):
    results = []
    for name in INSTALLED:
        made = create_backend(name, artifact, cameras=2, plans=3, threads=1)
        results.append({key: value.copy() for key, value
                        in made.run(graph, random_inputs(artifact, graph)).items()})
        made.close()
    for key in results[0]:
        np.testing.assert_allclose(results[0][key], results[1][key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('graph', GRAPHS)
def test_every_input_counts(backend, artifact, graph):
    inputs = random_inputs(artifact, graph)
    before = {key: value.copy() for key, value in backend.run(graph, inputs).items()}
    for name in inputs:
        changed = {**inputs, name: random_inputs(artifact, graph, seed=1)[name]}
        after = backend.run(graph, changed)
        assert any((after[key] != before[key]).any() for key in before), name
    again = backend.run(graph, inputs)
    assert all((again[key] == before[key]).all() for key in before)


def test_values_changed_in_place_and_views_are_seen(backend, artifact):
    inputs = random_inputs(artifact, 'fold')
    ring = np.zeros((32, *inputs['memory'].shape[1:]), dtype=np.float32)
    ring[5:21] = inputs['memory']
    direct = backend.run('fold', inputs)['latent'].copy()
    view = backend.run('fold', {**inputs, 'memory': ring[5:21]})['latent'].copy()
    np.testing.assert_array_equal(view, direct)
    ring[5:21] *= 2
    assert (backend.run('fold', {**inputs, 'memory': ring[5:21]})['latent'] != direct).any()


def test_outputs_live_in_the_same_arrays_and_nothing_is_allocated(backend, artifact):
    inputs = random_inputs(artifact, 'rollout')
    first = backend.run('rollout', inputs)
    addresses = {key: value.ctypes.data for key, value in first.items()}
    for _ in range(3):
        backend.run('rollout', inputs)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(20):
        outputs = backend.run('rollout', inputs)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert {key: value.ctypes.data for key, value in outputs.items()} == addresses
    assert grown < 20_000    # one set of outputs has 3 MB


def test_openvino_keeps_nothing_of_warming_up(artifact, monkeypatch):
    """A copy of a window of maps would stay, 13 MB, and so would what the first runs free."""
    openvino = pytest.importorskip('wm_ros.runtime.openvino')
    steps = []
    infer, back = openvino.Graph.infer, openvino.give_back_memory
    monkeypatch.setattr(openvino.Graph, 'infer', lambda self, inputs: (
        steps.append(self.name), infer(self, inputs)))
    monkeypatch.setattr(openvino, 'give_back_memory', lambda: (steps.append('given back'), back()))
    backend = create_backend('openvino', artifact, cameras=2, plans=1, threads=1)
    try:
        assert steps[-2:] == ['rollout', 'given back'] and set(steps) > set(GRAPHS)
        assert all(not opened._given for opened in backend._graphs.values())
        backend.run('fold', random_inputs(artifact, 'fold', plans=1))   # in the usual order
        assert list(backend._graphs['fold']._given) == ['memory']
    finally:
        backend.close()


@pytest.mark.parametrize('change,wanted', [
    ({'plans': np.zeros((2, 6, 3), np.float32)}, r'plans: want float32 \(3, 6, 3\), got .*2, 6'),
    ({'plans': np.zeros((3, 6, 3))}, 'got float64'),
    ({'plans': np.zeros((3, 3, 6), np.float32).transpose(0, 2, 1)}, 'C-contiguous'),
])
def test_inputs_that_do_not_fit_are_refused(backend, artifact, change, wanted):
    with pytest.raises(ValueError, match=wanted):
        backend.run('rollout', {**random_inputs(artifact, 'rollout'), **change})
    with pytest.raises(ValueError, match='no input plans'):
        backend.run('rollout', {key: value for key, value
                                in random_inputs(artifact, 'rollout').items() if key != 'plans'})


def test_executed_precision_is_told(backend):
    """The fixture's graphs hold no product and no convolution, and none is claimed."""
    assert backend.precision == dict.fromkeys(GRAPHS, 'none')


def test_closing_twice_does_nothing_and_a_closed_one_says_so(artifact):
    for name in INSTALLED:
        made = create_backend(name, artifact, cameras=1)
        made.close()
        made.close()
        with pytest.raises(BackendError, match=f'{name}: fold is not loaded; .*closed'):
            made.run('fold', random_inputs(artifact, 'fold', cameras=1))


def test_auto_takes_the_first_that_loads_and_says_why(artifact, monkeypatch):
    said = []
    made = create_backend('auto', artifact, cameras=1, log=said.append)
    made.close()
    assert made.name in be.AUTO_ORDER
    assert len(said) == 1 and f'backend {made.name} (the first that loads' in said[0]
    assert 'encode=none' in said[0]

    def fail(self, artifact, sizes):
        raise BackendError(f'{made.name}: broken today')

    monkeypatch.setattr(type(made), 'load', fail)
    other = create_backend('auto', artifact, cameras=1, log=said.append)
    other.close()
    assert other.name != made.name and 'broken today' in said[1]
    with pytest.raises(BackendError, match='broken today'):     # asked for, so nothing else
        create_backend(made.name, artifact, cameras=1)


def test_auto_names_what_is_absent(artifact, monkeypatch):
    monkeypatch.setattr(be.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(BackendError, match='openvino: no module .*onnxruntime: no module'):
        create_backend('auto', artifact, cameras=1)


def test_an_unknown_backend_and_an_unknown_option_are_refused(artifact):
    with pytest.raises(BackendError, match="backend 'tvm': want auto or one of openvino"):
        create_backend('tvm', artifact, cameras=1)
    for name in INSTALLED:
        with pytest.raises(BackendError, match="option 'colour', want"):
            create_backend(name, artifact, cameras=1, options={'colour': 1})


def test_a_backend_whose_library_is_absent_is_refused_by_name(artifact, monkeypatch):
    real = be.importlib.util.find_spec
    monkeypatch.setattr(be.importlib.util, 'find_spec',
                        lambda name: None if name == 'openvino' else real(name))
    with pytest.raises(BackendError, match='no module openvino, want it installed'):
        create_backend('openvino', artifact, cameras=1)


@pytest.mark.parametrize('name', INSTALLED)
@pytest.mark.parametrize('data', [b'no onnx at all', b''])
def test_a_graph_that_is_none_is_refused(tmp_path, name, data):
    folder = make_fake_artifact(tmp_path / 'fake')
    (folder / 'fold.onnx').write_bytes(data)
    write_manifest(folder, {
        'channels': CHANNELS, 'score_threshold': 0.3, 'observed_threshold': 0.0,
        'precision': dict.fromkeys(GRAPHS, 'f32')})
    with pytest.raises(BackendError, match=f'{name}: .*fold'):
        create_backend(name, load_artifact(folder), cameras=1)


@pytest.mark.parametrize('name', INSTALLED)
def test_a_graph_with_other_tensors_is_refused(tmp_path, name):
    folder = make_fake_artifact(tmp_path / 'fake')
    (folder / 'fold.onnx').write_bytes((folder / 'encode.onnx').read_bytes())
    write_manifest(folder, {
        'channels': CHANNELS, 'score_threshold': 0.3, 'observed_threshold': 0.0,
        'precision': dict.fromkeys(GRAPHS, 'f32')})
    with pytest.raises(BackendError, match='fold has .*images.*, want .*now_from_frame'):
        create_backend(name, load_artifact(folder), cameras=1)


POOR = """
import resource, sys
from wm_ros.runtime.artifact import load_artifact
from wm_ros.runtime.backend import BackendError, create_backend
name, folder, megabytes = sys.argv[1:]
__import__(f'wm_ros.runtime.{name}')
artifact = load_artifact(folder)
size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + int(megabytes) * 2 ** 20,) * 2)
try:
    create_backend(name, artifact, cameras=6, threads=1)
except BackendError as err:
    print('refused:', err)
"""


@pytest.mark.parametrize('name', INSTALLED)
def test_too_little_memory_is_a_named_error(artifact, name):
    """The process is given 20 MB more than it has, and lives to say what failed."""
    done = subprocess.run([sys.executable, '-P', '-c', POOR, name, str(artifact.path), '20'],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f'refused: {name}: ' in done.stdout


def test_a_provider_gets_its_options_and_one_that_does_not_start_is_an_error(artifact, monkeypatch):
    """No other provider is here, so ONNX Runtime's session is asked in its place."""
    module = pytest.importorskip('wm_ros.runtime.onnxruntime')
    asked, real = [], module.ort.InferenceSession
    monkeypatch.setattr(module.ort, 'get_available_providers',
                        lambda: ['QNNExecutionProvider', 'CPUExecutionProvider'])

    def session(data, options, providers, disabled_optimizers):
        asked.append((providers, disabled_optimizers,
                      options.get_session_config_entry('session.intra_op.allow_spinning')))
        return real(data, options, providers=['CPUExecutionProvider'])

    monkeypatch.setattr(module.ort, 'InferenceSession', session)
    settings = {'backend_path': 'libQnnHtp.so'}
    with pytest.raises(BackendError, match='encode: provider QNNExecutionProvider does not start'):
        create_backend('onnxruntime', artifact, cameras=1, options={
            'providers': ['qnn', 'cpu'], 'provider_options': {'qnn': settings}})
    assert asked == [([('QNNExecutionProvider', settings), ('CPUExecutionProvider', {})], [], '0')]
    for options, wanted in (
            ({'providers': ['cuda']}, 'no provider CUDAExecutionProvider, want some of QNN'),
            ({'providers': ['tpu']}, 'no provider tpu'),
            ({'provider_options': {'qnn': {}}}, 'options for QNNExecutionProvider, want some of')):
        with pytest.raises(BackendError, match=wanted):
            create_backend('onnxruntime', artifact, cameras=1, options=options)


def test_what_a_provider_compiles_whole_counts_under_its_name(tmp_path):
    from wm_ros.runtime.onnxruntime import executed_kernels, providers_of

    def event(operation, provider, name='a_kernel_time', kind='Node', types=('float',)):
        return {'cat': kind, 'name': name, 'args': {
            'op_name': operation, 'provider': provider,
            'input_type_shape': [{name: [1, 2]} for name in types]}}

    path = tmp_path / 'profile.json'
    path.write_text(json.dumps([
        event('QLinearConv', 'CPUExecutionProvider'), event('Conv', 'CPUExecutionProvider'),
        event('Conv', 'CPUExecutionProvider', name='a_fence_before'),
        event('Add', 'CPUExecutionProvider'), event('QNN_main_graph_1', 'QNNExecutionProvider'),
        event('MatMul', 'CUDAExecutionProvider', types=('float16', 'float16')),
        event('Conv', 'DmlExecutionProvider', kind='Session')]))
    assert executed_kernels(path) == {'i8': 1, 'f32': 1, 'f16': 1, 'qnn': 1}
    assert providers_of(path) == {'CPUExecutionProvider', 'QNNExecutionProvider',
                                  'CUDAExecutionProvider'}


@pytest.mark.parametrize('here,again', [(True, 0), (False, 3)])
def test_only_the_cpu_reads_inputs_where_they_lie(artifact, monkeypatch, here, again):
    """Another provider's copy of an input is made when it is bound: it has to be, every time."""
    pytest.importorskip('onnxruntime')
    made = create_backend('onnxruntime', artifact, cameras=2, plans=3, threads=1)
    try:
        inputs, graph = random_inputs(artifact, 'fold'), made._graphs['fold']
        made.run('fold', inputs)
        graph._in_place, bound, binding = here, [], graph._binding

        class Counted:
            def __getattr__(self, name):
                return getattr(binding, name)

            def bind_input(self, name, *args):
                bound.append(name)
                binding.bind_input(name, *args)
        monkeypatch.setattr(graph, '_binding', Counted())
        monkeypatch.setattr(graph._session, 'run_with_iobinding', lambda _: None)
        for _ in range(3):
            made.run('fold', inputs)
        assert bound.count('memory') == again
    finally:
        made.close()


@pytest.mark.parametrize('name,options,wanted', [
    ('onnxruntime', {'providers': 5}, 'option providers: 5, want a name or a list of names'),
    ('onnxruntime', {'provider_options': ['cpu']}, 'want options by name for each name'),
    ('openvino', {'device': 3}, 'option device: 3, want text')])
def test_an_option_of_another_type_is_refused(artifact, name, options, wanted):
    pytest.importorskip(name)
    with pytest.raises(BackendError, match=wanted):
        create_backend(name, artifact, cameras=1, options=options)


@pytest.mark.parametrize('value,default,limits,wanted', [
    ('false', True, None, 'true or false'), (1, True, None, 'true or false'),
    (False, True, None, ''),
    ('256', 0, (0, 512), 'a whole number from 0 to 512'), (True, 0, (0, 512), 'a whole number'),
    (513, 0, (0, 512), 'a whole number'), (512, 0, (0, 512), ''), (5, '', None, 'text')])
def test_options_are_of_the_type_of_their_defaults(value, default, limits, wanted):
    said = be.unfit(value, default, limits)
    assert said.startswith(wanted) and bool(said) == bool(wanted)


def test_auto_goes_on_past_whatever_a_library_raises(artifact, monkeypatch):
    openvino = pytest.importorskip('wm_ros.runtime.openvino')
    pytest.importorskip('onnxruntime')
    said = []

    def broken(*args):
        raise RuntimeError('no plugin')

    def taken():
        made = create_backend('auto', artifact, cameras=1, log=said.append)
        made.close()
        return made.name

    with monkeypatch.context() as patch:
        patch.setattr(openvino.OpenVinoBackend, 'prepare', broken)
        assert taken() == 'onnxruntime' and 'no plugin' in said[-1]
    with monkeypatch.context() as patch:        # what it has open cannot be closed either
        patch.setattr(openvino.OpenVinoBackend, 'open', broken)
        patch.setattr(be.LoadedGraph, 'close', broken)
        assert taken() == 'onnxruntime'
    with monkeypatch.context() as patch:
        real = be.importlib.import_module

        def imported(name):
            if name.endswith('.openvino'):
                raise ImportError('libtbb.so.12: cannot open shared object file')
            return real(name)
        patch.setattr(be.importlib, 'import_module', imported)
        assert taken() == 'onnxruntime' and 'libtbb.so.12' in said[-1]
        with pytest.raises(BackendError, match='openvino: libtbb.so.12.*want it installed'):
            create_backend('openvino', artifact, cameras=1)


def test_auto_finds_the_one_backend_that_runs_a_derived_form(artifact, tmp_path):
    pytest.importorskip('openvino')
    pytest.importorskip('onnxruntime')
    pytest.importorskip('onnx')
    from wm_ros.export.derive import derive
    derive(artifact, 'ort-u8s8', tmp_path / 'form')
    said = []
    made = create_backend('auto', load_artifact(tmp_path / 'form'), cameras=1, log=said.append)
    made.close()
    assert made.name == 'onnxruntime' and "openvino got the form 'ort-u8s8'" in said[0]


def test_a_provider_that_takes_no_part_of_a_graph_is_told(artifact, monkeypatch):
    module = pytest.importorskip('wm_ros.runtime.onnxruntime')
    monkeypatch.setattr(module, 'providers_of', lambda profile: {'SomeExecutionProvider'})
    made = create_backend('onnxruntime', artifact, cameras=1)
    made.close()
    assert any('fold: CPUExecutionProvider took no part of it, SomeExecutionProvider runs it'
               in note for note in made.notes)
