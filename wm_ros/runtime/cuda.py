"""
The little of CUDA that a backend without torch needs, over `cuda.bindings` (package cuda-python).

Device memory, pinned host arrays, one stream, and a captured graph. Errors of the driver become
BackendError with the driver's own words.
"""

from __future__ import annotations

import ctypes
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np

from wm_ros.runtime.backend import BackendError


@dataclass(frozen=True)
class Device:
    """
    Which GPU it is: an engine is built for one name, one compute capability and one size.

    All modules of a family go by one name, an Orin with 4 multiprocessors as one with 16.
    """

    name: str
    compute_capability: str
    multiprocessors: int

    def key(self) -> dict[str, Any]:
        """Return what of it an engine is built for, as a part of its key."""
        return {'gpu': self.name, 'compute_capability': self.compute_capability,
                'multiprocessors': self.multiprocessors}


class Cuda:
    """The runtime library for the first visible GPU, with one stream of its own."""

    def __init__(self) -> None:
        try:
            from cuda.bindings import runtime as cudart
        except (ImportError, OSError) as err:
            raise BackendError(f'cuda: {err}, want cuda-python for the CUDA version of this '
                               'machine') from err
        self._cudart = cudart
        stream, = self._do(cudart.cudaStreamCreateWithFlags(cudart.cudaStreamNonBlocking),
                           'a stream')
        self.stream = int(stream)

    def device(self) -> Device:
        """Return what tells the device from others."""
        cudart = self._cudart
        properties, = self._do(cudart.cudaGetDeviceProperties(0), 'its properties')
        name = properties.name
        name = name.decode() if isinstance(name, bytes) else str(name)
        return Device(name.strip('\0 '), f'{properties.major}.{properties.minor}',
                      int(properties.multiProcessorCount))

    def free_bytes(self) -> int:
        """Return how much device memory is free now."""
        free, _ = self._do(self._cudart.cudaMemGetInfo(), 'the free memory')
        return int(free)

    def allocate(self, size: int) -> int:
        """Return the address of `size` bytes of device memory, to be given back with `free`."""
        address, = self._do(self._cudart.cudaMalloc(size), f'{size} bytes of device memory')
        return int(address)

    def free(self, address: int) -> None:
        """Give device memory back."""
        self._do(self._cudart.cudaFree(address), 'freeing device memory')

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype | str) -> np.ndarray:
        """
        Return a zeroed array in page-locked memory, which copies overlap with and graphs may read.

        The memory goes back when the array and all views of it are gone.
        """
        size = max(int(np.prod(shape)) * np.dtype(dtype).itemsize, 1)
        cudart = self._cudart
        address, = self._do(cudart.cudaHostAlloc(size, cudart.cudaHostAllocDefault),
                            f'{size} bytes of pinned memory')
        memory = (ctypes.c_byte * size).from_address(int(address))
        weakref.finalize(memory, cudart.cudaFreeHost, int(address)).atexit = False
        array = np.frombuffer(memory, dtype, count=int(np.prod(shape))).reshape(shape)
        array.fill(0)
        return array

    def to_device(self, address: int, array: np.ndarray) -> None:
        """Queue a copy of a pinned array to device memory."""
        self._do(self._cudart.cudaMemcpyAsync(
            address, array.ctypes.data, array.nbytes,
            self._cudart.cudaMemcpyKind.cudaMemcpyHostToDevice, self.stream), 'a copy')

    def to_host(self, array: np.ndarray, address: int) -> None:
        """Queue a copy of device memory to a pinned array."""
        self._do(self._cudart.cudaMemcpyAsync(
            array.ctypes.data, address, array.nbytes,
            self._cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost, self.stream), 'a copy')

    def synchronise(self) -> None:
        """Wait for all that the stream was given."""
        self._do(self._cudart.cudaStreamSynchronize(self.stream), 'the stream')

    def begin_capture(self) -> None:
        """Record what the stream is given from now on instead of running it."""
        mode = self._cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._do(self._cudart.cudaStreamBeginCapture(self.stream, mode), 'the capture')

    def end_capture(self) -> Any:
        """Return what was recorded, ready to launch."""
        graph, = self._do(self._cudart.cudaStreamEndCapture(self.stream), 'the capture')
        try:
            executable, = self._do(self._cudart.cudaGraphInstantiate(graph, 0), 'the graph')
        finally:
            self._do(self._cudart.cudaGraphDestroy(graph), 'the graph')
        return executable

    def abandon_capture(self) -> None:
        """End a capture that failed; its graph, if there is one, is thrown away."""
        error, graph = self._cudart.cudaStreamEndCapture(self.stream)
        if error == self._cudart.cudaError_t.cudaSuccess:
            self._cudart.cudaGraphDestroy(graph)

    def launch(self, executable: Any) -> None:
        """Queue a recorded graph."""
        self._do(self._cudart.cudaGraphLaunch(executable, self.stream), 'the graph')

    def destroy(self, executable: Any) -> None:
        """Free a recorded graph."""
        self._do(self._cudart.cudaGraphExecDestroy(executable), 'freeing the graph')

    def close(self) -> None:
        """Destroy the stream; a second call does nothing."""
        if self.stream:
            stream, self.stream = self.stream, 0
            self._do(self._cudart.cudaStreamDestroy(stream), 'freeing the stream')

    def _do(self, result: tuple, what: str) -> tuple:
        """Return what a call gave besides its error code; raise BackendError for an error."""
        error, *values = result
        if error != self._cudart.cudaError_t.cudaSuccess:
            _, text = self._cudart.cudaGetErrorString(error)
            text = text.decode() if isinstance(text, bytes) else str(text)
            raise BackendError(f'cuda: {what}: {text}')
        return tuple(values)
