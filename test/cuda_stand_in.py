"""A stand-in for `cuda.bindings.runtime`: real memory and copies, no GPU; see tensorrt_stand_in."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from types import SimpleNamespace

CUDA = json.loads((Path(__file__).resolve().parent / 'data' / 'tensorrt_api'
                   / 'cuda_bindings.json').read_text())
CUDA_VERSIONS = ('12.9', '13.5')


def cuda_listed(version: str) -> dict[str, int]:
    """Return the functions of one version of cuda.bindings with their numbers of arguments."""
    return {name: int(count) for versions, names in CUDA.items() if version in versions.split()
            for name, count in (item.split('/') for item in names.split())}


def cuda_module(world) -> SimpleNamespace:
    """Return a stand-in for `cuda.bindings.runtime`."""
    def memory(size):
        block = (ctypes.c_byte * max(size, 1))()
        address = ctypes.addressof(block)
        world.memory[address] = block
        return address

    def do(action):
        if world.recording is None:
            action()
        else:
            world.recording.append(action)

    def malloc(size):
        world.events.append(('malloc', size))
        return (2, None) if size > world.free_bytes else (0, memory(size))

    def host_alloc(size, flags):
        world.events.append(('pin', size))
        return 0, memory(size)

    def free(address):
        world.events.append(('free', address))
        del world.memory[address]
        return (0,)

    def free_host(address):
        world.events.append(('unpin', address))
        del world.memory[address]
        return (0,)

    def copy(target, source, count, kind, stream):
        assert stream == 7, 'a copy on another stream'
        world.events.append((f'copy_{kind}', target, source))
        do(lambda: ctypes.memmove(target, source, count))
        return (0,)

    def begin(stream, mode):
        world.events.append(('begin_capture', mode))
        world.recording = []
        return (0,)

    def end(stream):
        actions, world.recording = world.recording, None
        world.events.append(('end_capture', len(actions)))
        return 0, actions

    def launch(executable, stream):
        world.events.append(('launch', stream))
        for action in executable:
            action()
        return (0,)

    def told(name, *values):
        def call(*arguments):
            world.events.append((name, *arguments))
            return 0, *values
        return call

    functions = {
        'cudaMalloc': malloc, 'cudaHostAlloc': host_alloc, 'cudaFree': free,
        'cudaFreeHost': free_host, 'cudaMemcpyAsync': copy, 'cudaStreamBeginCapture': begin,
        'cudaStreamEndCapture': end, 'cudaGraphLaunch': launch,
        'cudaGraphInstantiate': lambda graph, flags: (0, graph),
        'cudaGraphDestroy': told('graph_destroy'),
        'cudaGraphExecDestroy': told('executable_destroy'),
        'cudaStreamCreateWithFlags': told('stream', 7), 'cudaStreamDestroy': told('stream_destroy'),
        'cudaStreamSynchronize': told('synchronise'),
        'cudaMemGetInfo': lambda: (0, world.free_bytes, 1 << 34),
        'cudaGetErrorString': lambda error: (0, b'out of memory'),
        'cudaGetDeviceProperties': lambda device: (0, SimpleNamespace(
            name=world.gpu.encode() + b'\0', major=world.capability[0],
            minor=world.capability[1], multiProcessorCount=world.multiprocessors))}
    counts = cuda_listed(world.cuda)

    def held(name, function):
        def call(*arguments):
            assert len(arguments) == counts[name], f'{name} of {world.cuda}: {arguments}'
            return function(*arguments)
        return call

    return SimpleNamespace(
        **{name: held(name, function) for name, function in functions.items() if name in counts},
        cudaStreamNonBlocking=1, cudaHostAllocDefault=0,
        cudaError_t=SimpleNamespace(cudaSuccess=0),
        cudaMemcpyKind=SimpleNamespace(cudaMemcpyHostToDevice='in', cudaMemcpyDeviceToHost='out'),
        cudaStreamCaptureMode=SimpleNamespace(cudaStreamCaptureModeThreadLocal='thread'))
