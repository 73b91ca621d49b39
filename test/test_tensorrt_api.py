"""
Every call of the TensorRT backend, read from its source, is in every version's bindings.

What single tests run is held against the lists by the stand-in; this sees every line, also those
that only an error reaches.
"""

import ast
from pathlib import Path

import pytest
from cuda_stand_in import CUDA_VERSIONS, cuda_listed
from tensorrt_stand_in import TENSORRT_VERSIONS, listed

import wm_ros

RUNTIME = Path(next(iter(wm_ros.__path__))) / 'runtime'
FILES = ('tensorrt.py', 'tensorrt_build.py', 'tensorrt_cache.py')
#: Which class of the lists a variable of the backend holds, by the last part of its name.
CLASSES = {'builder': 'cls_Builder', 'network': 'cls_INetworkDefinition',
           'config': 'cls_IBuilderConfig', 'parser': 'cls_OnnxParser', 'runtime': 'cls_Runtime',
           'engine': 'cls_ICudaEngine', 'context': 'cls_IExecutionContext', 'trt': 'top'}
ENUMS = ('BuilderFlag', 'NetworkDefinitionCreationFlag', 'MemoryPoolType', 'DataType')
#: The lists hold no members of these; they are as the documentation of 10.3 and 11.4 has them.
UNLISTED = {'ProfilingVerbosity', 'TensorIOMode', 'LayerInformationFormat', 'ILogger',
            'IProgressMonitor'}


def uses(source: str) -> set[tuple[str, str]]:
    """Return (list, name) of everything that a file uses of TensorRT."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Attribute):
            continue
        owner = node.value
        name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, 'id', '')
        root = getattr(owner, 'value', None)
        of_trt = (isinstance(owner, ast.Attribute) and name != '__version__'
                  and getattr(root, 'attr', getattr(root, 'id', '')).lstrip('_') == 'trt')
        if of_trt and name in ENUMS:
            found.add((name, node.attr))
        elif of_trt:
            assert name in UNLISTED, f'{name}.{node.attr}: no list of its members'
        elif name.lstrip('_') in CLASSES and node.attr != '__version__':
            found.add((CLASSES[name.lstrip('_')], node.attr))
    return found


def lacking(used: set[tuple[str, str]], version: str) -> set[tuple[str, str]]:
    """Return what one version does not have."""
    return {(kind, name) for kind, name in used if name not in listed(kind, version)}


USED = set().union(*(uses((RUNTIME / name).read_text()) for name in FILES))


@pytest.mark.parametrize('version', TENSORRT_VERSIONS)
def test_every_call_is_there(version):
    assert lacking(USED, version) == set()


def test_the_calls_are_seen():
    for wanted in (('cls_IExecutionContext', 'execute_async_v3'),
                   ('cls_IExecutionContext', 'set_tensor_address'),
                   ('cls_Builder', 'build_serialized_network'),
                   ('cls_IBuilderConfig', 'set_timing_cache'),
                   ('cls_ICudaEngine', 'device_memory_size_v2'),
                   ('cls_Runtime', 'deserialize_cuda_engine'), ('cls_OnnxParser', 'parse'),
                   ('NetworkDefinitionCreationFlag', 'STRONGLY_TYPED'), ('top', 'nptype')):
        assert wanted in USED, wanted
    assert len(USED) > 25


@pytest.mark.parametrize('line,gone', [
    ('config.set_flag(trt.BuilderFlag.FP16)', ('BuilderFlag', 'FP16')),
    ('self._trt.BuilderFlag.INT8', ('BuilderFlag', 'INT8')),
    ('config.int8_calibrator = None', ('cls_IBuilderConfig', 'int8_calibrator')),
    ('network.get_input(0); trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH',
     ('NetworkDefinitionCreationFlag', 'EXPLICIT_BATCH')),
    ('self._engine.device_memory_size', ('cls_ICudaEngine', 'device_memory_size')),
    ('if never:\n    builder.platform_has_fast_fp16', ('cls_Builder', 'platform_has_fast_fp16')),
    ('trt.IInt8EntropyCalibrator2', ('top', 'IInt8EntropyCalibrator2')),
])
def test_a_call_that_is_gone_in_11_is_noticed(line, gone):
    assert lacking(uses(line), '10.3') == set()
    assert lacking(uses(line), '11.4') == {gone}


def test_a_call_that_came_after_10_3_is_noticed():
    used = uses('engine.get_engine_stat(0); config.tiling_optimization_level = 1')
    assert lacking(used, '10.3') == used
    assert lacking(used, '11.4') == set()


@pytest.mark.parametrize('version', CUDA_VERSIONS)
def test_every_cuda_call_is_there_with_as_many_arguments(version):
    have = cuda_listed(version)
    calls = {}
    tree = ast.parse((RUNTIME / 'cuda.py').read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and (
                node.func.attr.startswith('cuda')):
            calls.setdefault(node.func.attr, set()).add(len(node.args))
    assert len(calls) > 15
    assert {name: have.get(name) for name in calls} == {
        name: next(iter(counts)) for name, counts in calls.items() if len(counts) == 1}
