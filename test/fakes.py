"""
A tiny artifact with the contract's names and shapes, for tests that need no trained weights.

Its graphs are small arithmetic on all of their inputs, so a test can tell whether an input got
through: `memory` and `skip` are the lifted brightness of the images, `latent` a masked mean of
the window, `past` one of its older frames, and the outputs are plausible road users moved a little
by latent, skip, past, plan and ego.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from wm_ros.geometry import camera_pose
from wm_ros.runtime.artifact import write_manifest
from wm_ros.runtime.contract import LIFT_HEIGHTS_M, MAX_AGENTS, GraphSpec, graph_specs
from wm_ros.types import CameraModel, CameraRig

CHANNELS = {'memory_channels': 4, 'skip_channels': 4, 'latent_dim': 8}
AGENTS = 10
_TYPES = {'float32': TensorProto.FLOAT, 'uint8': TensorProto.UINT8, 'int32': TensorProto.INT32}


class _Graph:
    """A few lines of ONNX builder."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, out: str = '', **attributes: object) -> str:
        out = out or f't{len(self.nodes)}'
        self.nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def const(self, value: object, dtype: type = np.float32) -> str:
        name = f'c{len(self.constants)}'
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def ints(self, *values: int) -> str:
        return self.const(values, np.int64)

    def save(self, path: Path, spec: GraphSpec) -> None:
        inputs, outputs = ([helper.make_tensor_value_info(
            item.name, _TYPES[item.dtype], list(item.shape)) for item in side]
            for side in (spec.inputs, spec.outputs))
        graph = helper.make_graph(self.nodes, path.stem, inputs, outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, path)


def _encode(g: _Graph) -> None:
    pixels = g.op('Cast', 'images', to=TensorProto.FLOAT)                    # (N, 160, 400, 3)
    grey = g.op('ReduceMean', pixels, axes=[3], keepdims=0)
    grey = g.op('Unsqueeze', grey, g.ints(1))                                # (N, 1, 160, 400)
    features = g.op('AveragePool', grey, kernel_shape=[8, 8], strides=[8, 8])
    rows = g.op('Reshape', g.op('Div', features, g.const(255.0)), g.ints(-1))
    taps = g.op('Mul', g.op('Gather', rows, 'lift_index', axis=0), 'lift_weight')
    lifted = g.op('ReduceSum', taps, g.ints(1), keepdims=0)
    g.op('Reshape', lifted, g.ints(len(LIFT_HEIGHTS_M), 80, 80), out='memory')
    g.op('Mul', 'memory', g.const(0.5), out='skip')


def _fold(g: _Graph) -> None:
    mask = g.op('Reshape', 'frame_mask', g.ints(16, 1, 1, 1))
    fresh = g.op('Reshape', g.op('Exp', g.op('Neg', 'age_s')), g.ints(16, 1, 1, 1))
    moved = g.op('ReduceSum', 'now_from_frame', g.ints(1), keepdims=0)       # (16,)
    moved = g.op('Mul', g.op('Tanh', moved), 'odometry_mask')
    moved = g.op('Reshape', moved, g.ints(16, 1, 1, 1))
    seen = g.op('Mul', g.op('Mul', g.op('Add', 'memory', moved), mask), fresh)
    mean = g.op('ReduceMean', seen, axes=[0], keepdims=1)                    # (1, 4, 80, 80)
    tokens = g.op('AveragePool', mean, kernel_shape=[5, 5], strides=[5, 5])  # (1, 4, 16, 16)
    tokens = g.op('Transpose', g.op('Reshape', tokens, g.ints(4, 256)), perm=[1, 0])
    g.op('Concat', tokens, tokens, axis=1, out='latent')
    older = g.op('Slice', seen, g.ints(0), g.ints(15))
    g.op('ReduceMean', older, axes=[0], keepdims=0, out='past')


def _rollout(g: _Graph) -> None:
    level = g.op('ReduceMean', 'latent', keepdims=0)
    detail = g.op('ReduceMean', g.op('Add', 'skip', 'past'), keepdims=0)
    ego = g.op('ReduceSum', g.op('Mul', 'ego_motion', 'odometry_mask'), keepdims=0)
    scene = g.op('Tanh', g.op('Add', g.op('Add', level, detail),
                              g.op('Mul', ego, g.const(0.01))))
    plan = g.op('Mul', g.op('ReduceSum', 'plans', g.ints(1, 2), keepdims=0), 'odometry_mask')
    plan = g.op('Tanh', g.op('Mul', plan, g.const(0.01)))                    # (P,)
    move = g.op('Add', g.op('Mul', plan, g.const(0.1)), g.op('Mul', scene, g.const(0.1)))

    def per_plan(name: str, base: np.ndarray, gain: float = 1.0) -> None:
        shift = g.op('Reshape', g.op('Mul', move, g.const(gain)), g.ints(-1, *[1] * base.ndim))
        g.op('Add', g.const(base[None]), shift, out=name)

    score = np.where(np.arange(MAX_AGENTS) < AGENTS, 0.9 - 0.03 * np.arange(MAX_AGENTS), 0.02)
    per_plan('agent_score', score, 0.01)
    classes = np.zeros((MAX_AGENTS, 8))
    classes[np.arange(MAX_AGENTS), np.arange(MAX_AGENTS) % 8] = 4.0
    per_plan('agent_class', classes)
    place = np.stack([-20 + 5.0 * (np.arange(MAX_AGENTS) % 8),
                      -16 + 4.0 * (np.arange(MAX_AGENTS) // 8)], axis=-1)
    box = np.concatenate([place, np.tile([0, 1, *np.log([4.5, 1.9, 1.6]), 5.0, 0.0],
                                         (MAX_AGENTS, 1))], axis=-1)
    per_plan('agent_box', box)
    per_plan('agent_log_sigma', np.full((MAX_AGENTS, 5), -1.0))
    per_plan('mode_logits', np.tile(np.array([0.0, 2, 1, -1, -2, -3]), (MAX_AGENTS, 1)))
    steps = 2.5 * np.arange(1, 7)
    paths = np.zeros((MAX_AGENTS, 6, 6, 2))
    paths[..., 0] = place[:, None, None, 0] + steps
    paths[..., 1] = place[:, None, None, 1] + 0.2 * np.arange(6)[:, None] * np.arange(1, 7)
    per_plan('trajectories', paths)
    per_plan('trajectory_spread', np.zeros((MAX_AGENTS, 6, 6, 3)) + [-0.5, -1.0, 0.2])
    occupancy = np.full((7, 200, 200), -6.0)
    occupancy[:, 90:110, 120:130] = 3.0
    per_plan('occupancy', occupancy)
    per_plan('flow', np.zeros((7, 2, 200, 200)))
    road = np.stack([np.full((200, 200), value) for value in (3.0, -3.0, -4.0)])
    g.op('Add', g.const(road), scene, out='road')
    g.op('Add', g.const(np.full((200, 200), 2.0)), scene, out='observed')


def make_fake_artifact(path: str | Path, score_threshold: float = 0.3,
                       observed_threshold: float = 0.0) -> Path:
    """Write the artifact into a new or empty folder and return its path."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    for name, build in (('encode', _encode), ('fold', _fold), ('rollout', _rollout)):
        graph = _Graph()
        build(graph)
        graph.save(path / f'{name}.onnx', graph_specs(**CHANNELS)[name])
    write_manifest(path, {
        'channels': CHANNELS, 'score_threshold': score_threshold,
        'observed_threshold': observed_threshold, 'training': {'weights': 'none: a test fixture'},
        'precision': {'encode': 'f32', 'fold': 'f32', 'rollout': 'f32'}})
    return path


def make_rig(cameras: int = 2, width: int = 640, height: int = 360) -> CameraRig:
    """Return a rig of equal pinhole cameras that look around, evenly spaced."""
    k = np.array([[width * 0.6, 0, width / 2], [0, width * 0.6, height / 2], [0, 0, 1.0]])
    return CameraRig(tuple(
        CameraModel(f'camera_{i}', width, height, k,
                    camera_pose(np.array([0.0, 0.0, 1.6]), 2 * np.pi * i / cameras))
        for i in range(cameras)), 'fake')


def picture(seed: int, width: int = 640, height: int = 360) -> np.ndarray:
    """Return a picture (H, W, 3) uint8 that differs from seed to seed and is no flat colour."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 215, (height // 20 + 1, width // 20 + 1, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((20, 20, 1), dtype=np.uint8))[:height, :width].copy()
