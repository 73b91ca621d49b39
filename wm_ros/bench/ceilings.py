"""
What this machine can do: rates of dense products and of memory, measured.

Products run through OpenVINO, the library whose stages are held against them: a chain of large
ones, as float32, bfloat16 where the device has it, and INT8. Memory is a copy by NumPy.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openvino as ov
from openvino import opset13 as ops

#: A chain of so many products of (ROWS, WIDTH) by (WIDTH, WIDTH).
CHAIN, ROWS, WIDTH = 6, 1024, 1024
COPY_BYTES = 64 << 20


def measure(threads: int, seconds: float = 1.0) -> dict[str, float]:
    """
    Return giga-operations a second of 'f32', 'bf16' (where there is any) and 'i8', and 'memory'.

    Memory in gigabytes a second, read and written. Each is the best of repeated runs over
    `seconds`: a ceiling is what the machine reaches when nothing else runs on it.
    """
    core = ov.Core()
    able = core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
    found = {}
    for name, quantised, hint in (('f32', False, 'f32'), ('bf16', False, 'bf16'),
                                  ('i8', True, 'f32')):
        if name == 'bf16' and 'BF16' not in able:
            continue
        compiled = core.compile_model(_chain(quantised), 'CPU', {
            'INFERENCE_PRECISION_HINT': hint, 'INFERENCE_NUM_THREADS': threads,
            'NUM_STREAMS': '1', 'PERFORMANCE_HINT': 'LATENCY', 'ENABLE_CPU_PINNING': False})
        request = compiled.create_infer_request()
        request.set_input_tensor(ov.Tensor(np.ones((ROWS, WIDTH), np.float32)))
        found[name] = 2e-9 * CHAIN * ROWS * WIDTH * WIDTH / _best(request.infer, seconds)
    found['memory'] = 2e-9 * COPY_BYTES / _best(_copy(threads), seconds)
    return found


def measure_cuda(size: int = 8192, seconds: float = 1.0) -> dict[str, float]:
    """
    Return the same of the current CUDA device, by PyTorch: 'f32', 'bf16', 'f16', 'i8', 'memory'.

    Of products of `size` by `size`, a multiple of 16.
    """
    import torch

    def timed(work) -> float:
        def run() -> None:
            work()
            torch.cuda.synchronize()
        run()
        return _best(run, seconds)

    found = {}
    for name, dtype in (('f32', torch.float32), ('bf16', torch.bfloat16), ('f16', torch.float16)):
        a, b = (torch.ones(size, size, dtype=dtype, device='cuda') for _ in range(2))
        out = torch.empty_like(a)
        found[name] = 2e-9 * size ** 3 / timed(lambda a=a, b=b, out=out: torch.mm(a, b, out=out))
    a, b = (torch.ones(size, size, dtype=torch.int8, device='cuda') for _ in range(2))
    found['i8'] = 2e-9 * size ** 3 / timed(lambda: torch._int_mm(a, b.T))
    large = torch.ones(1 << 30, dtype=torch.uint8, device='cuda')
    copy = torch.empty_like(large)
    found['memory'] = 2e-9 * (1 << 30) / timed(lambda: copy.copy_(large))
    return found


def _chain(quantised: bool) -> ov.Model:
    rng = np.random.default_rng(0)
    x = given = ops.parameter((ROWS, WIDTH), np.float32)
    for _ in range(CHAIN):
        weight = rng.integers(-127, 128, (WIDTH, WIDTH), dtype=np.int8)
        if quantised:
            low, high = np.float32(-1.28), np.float32(1.27)
            x = ops.fake_quantize(x, low, high, low, high, 256)
            w = ops.multiply(ops.convert(ops.constant(weight), 'f32'), np.float32(1e-3))
        else:
            w = ops.constant(weight.astype(np.float32) * np.float32(1e-3))
        x = ops.relu(ops.matmul(x, w, False, True))
    return ov.Model([x], [given])


def _copy(threads: int):
    """Return what copies `COPY_BYTES`, an equal part a thread."""
    parts = [(np.ones(COPY_BYTES // threads, np.uint8), np.zeros(COPY_BYTES // threads, np.uint8))
             for _ in range(threads)]
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(lambda part: np.copyto(part[1], part[0]), parts))


def _best(run, seconds: float) -> float:
    """Return the shortest time of one run in seconds, of at least five."""
    times = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times)
