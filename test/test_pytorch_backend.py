"""
PyTorch backend: the reference is exact; the CUDA path, as far as it goes without a GPU.

Stand-ins take the place of stream, pinned memory and capture; what is held here is which buffers
are written when, that addresses stay, and that a run touches nothing on the host.
"""

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the backend is PyTorch')
pytest.importorskip('onnx', reason='weights are read from the graphs with it')

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from wm_ros.export.weights import load_artifact_model  # noqa: E402
from wm_ros.model.config import PRESETS  # noqa: E402
from wm_ros.model.parts import PARTS  # noqa: E402
from wm_ros.model.quant import Quantizer, fold_batch_norms  # noqa: E402
from wm_ros.model.world_model import WorldModel  # noqa: E402
from wm_ros.runtime import pytorch as pt  # noqa: E402
from wm_ros.runtime.artifact import load_artifact  # noqa: E402
from wm_ros.runtime.backend import BackendError, create_backend  # noqa: E402
from wm_ros.runtime.contract import GRAPHS, graph_specs  # noqa: E402
from wm_ros.share import share_path  # noqa: E402


@pytest.fixture(scope='module')
def artifact():
    return load_artifact(share_path('models', 'world-model'))


def inputs_of(spec, seed=0, **sizes):
    rng = np.random.default_rng(seed)
    made = {}
    for item in spec.inputs:
        shape = item.resolve(**sizes)
        made[item.name] = (rng.integers(0, 255, shape) if item.dtype != 'float32' else
                           rng.random(shape)).astype(item.dtype)
        if 'mask' in item.name:
            made[item.name][:] = 1
    return made


def test_the_reference_is_the_model_to_the_bit(artifact):
    backend = create_backend('pytorch', artifact, cameras=1, plans=2, threads=0,
                             options={'device': 'cpu'})
    model = load_artifact_model(artifact)
    for graph in ('fold', 'rollout'):
        given = inputs_of(artifact.specs[graph], N=1, P=2)
        said = backend.run(graph, given)
        with torch.inference_mode():
            want = PARTS[graph](model, artifact.specs[graph])(
                *(torch.from_numpy(array) for array in given.values()))
        for array, tensor in zip(said.values(), want, strict=True):
            np.testing.assert_array_equal(array, tensor.numpy())
        again = backend.run(graph, inputs_of(artifact.specs[graph], 1, N=1, P=2))
        for name, array in said.items():
            assert array is again[name] and array.any()
    assert backend.precision == dict.fromkeys(GRAPHS, 'f32')
    assert backend.kernels['encode']['f32'] >= 18
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match='closed'):
        backend.run('fold', {})


@pytest.mark.parametrize(('options', 'wanted'), [
    ({'device': 'cuda'}, "device 'cuda', want cpu; no CUDA device is there"),
    ({'device': 'meta'}, "device 'meta', want cpu"),
    ({'precision': 'i4'}, "precision 'i4', want auto or one of f32, f16, bf16")])
def test_what_is_not_there_is_refused_by_name(artifact, options, wanted, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(BackendError, match=wanted):
        create_backend('pytorch', artifact, cameras=1, options=options)


class Stream:
    """A CUDA stream's stand-in that tells what happens on it."""

    def __init__(self):
        self.events = []

    def __enter__(self):
        self.events.append('enter')

    def __exit__(self, *_):
        self.events.append('exit')

    def synchronize(self):
        self.events.append('synchronize')


@pytest.fixture
def cuda_graph(monkeypatch):
    """Return a function that makes the CUDA path of a graph on the CPU, and its stream."""
    torch.manual_seed(0)
    config = PRESETS['tiny']
    specs = graph_specs(config.memory_channels, config.skip_channels, config.latent_dim)
    model = WorldModel(config).eval()
    fold_batch_norms(model)
    pt.round_weights_once(model, torch.bfloat16)
    stream, monkey = Stream(), monkeypatch.setattr
    monkey(pt, 'new_stream', lambda device: stream)
    monkey(pt, 'pinned', lambda shape, dtype: torch.zeros(shape, dtype=getattr(torch, dtype)))

    def capture(forward, its_stream):
        assert its_stream is stream
        made = forward()

        def replay():       # what a graph does: the same memory, new numbers
            stream.events.append('replay')
            with torch.inference_mode():
                for held, new in zip(made, forward(), strict=True):
                    held.copy_(new)
        return replay, made

    monkey(pt, 'capture', capture)

    def build(graph):
        class Artifact:
            pass
        Artifact.specs = specs
        part = PARTS[graph](model, specs[graph])
        return pt._CudaGraph(graph, part, Artifact, {'N': 1, 'P': 2}, torch.device('cpu'),
                             torch.bfloat16), part
    return build, stream


@pytest.mark.parametrize('graph', GRAPHS)
def test_a_frame_goes_through_fixed_buffers_on_one_stream(cuda_graph, graph):
    build, stream = cuda_graph
    made, part = build(graph)
    addresses = {name: array.ctypes.data for name, array in made.outputs.items()}
    given_at = [tensor.data_ptr() for tensor in made._given]
    results = []
    for seed in (1, 2, 1):
        given = inputs_of(made.spec, seed, N=1, P=2)
        stream.events.clear()
        made.infer(given)
        assert stream.events == ['enter', 'replay', 'exit', 'synchronize']
        results.append({name: array.copy() for name, array in made.outputs.items()})
        with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16):
            want = part(*(torch.from_numpy(array) for array in given.values()))
        for array, tensor in zip(made.outputs.values(), want, strict=True):
            np.testing.assert_array_equal(array, tensor.float().numpy())
    assert {name: array.ctypes.data for name, array in made.outputs.items()} == addresses
    assert [tensor.data_ptr() for tensor in made._given] == given_at
    assert all(array.dtype == np.float32 for array in made.outputs.values())
    for name in results[0]:
        np.testing.assert_array_equal(results[0][name], results[2][name])
    assert any((results[0][name] != results[1][name]).any() for name in results[0])
    assert 'bf16' in made.kernels


class _Watch(TorchDispatchMode):
    """Notes operations that meet a tensor of the host, or that wait for a number."""

    def __init__(self):
        super().__init__()
        self.offences, self.count = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out))
                   if isinstance(leaf, torch.Tensor)]
        self.count += 1
        if any(tensor.device.type == 'cpu' for tensor in tensors) or 'local_scalar' in str(func):
            self.offences.append(f'{func} {[tuple(tensor.shape) for tensor in tensors]}')
        return out


@pytest.mark.parametrize('graph', GRAPHS)
def test_a_run_that_is_captured_touches_nothing_on_the_host(graph, monkeypatch):
    """A CUDA graph cannot be captured across a copy from the host; 'meta' stands for the GPU."""
    monkeypatch.setattr(torch, 'fake_quantize_per_tensor_affine',   # 'meta' knows none
                        lambda x, scale, zero, low, high: x * scale + zero)
    config = PRESETS['tiny']
    spec = graph_specs(config.memory_channels, config.skip_channels, config.latent_dim)[graph]
    model = WorldModel(config).eval()
    fold_batch_norms(model)
    for module in model.modules():
        if isinstance(module, Quantizer):
            module.active = True
    pt.round_weights_once(model, torch.float32)
    for module in model.modules():
        if isinstance(getattr(module, 'rounded_weight', None), pt._Constant):
            module.rounded_weight = pt._Constant(module.rounded_weight().to('meta'))
    part = PARTS[graph](model.to('meta'), spec)
    given = [torch.zeros(item.resolve(N=2, P=1), dtype=getattr(torch, item.dtype), device='meta')
             for item in spec.inputs]
    with torch.inference_mode():
        part(*given)        # the warm-up, in which constants may still be fetched
        with _Watch() as watch:
            part(*given)
    assert watch.count > 50
    assert watch.offences == []
