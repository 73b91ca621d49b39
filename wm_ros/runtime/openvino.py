"""OpenVINO backend: the default where there is no accelerator."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Mapping

import numpy as np
import openvino as ov

from wm_ros.runtime.artifact import Artifact
from wm_ros.runtime.backend import GraphBackend, LoadedGraph
from wm_ros.runtime.derived import check_form
from wm_ros.runtime.openvino_graph import Graph
from wm_ros.runtime.openvino_plans import RolloutGraph
from wm_ros.runtime.openvino_steps import Settings


class OpenVinoBackend(GraphBackend):
    """
    Runs each graph as compiled models with their own buffers.

    Options: `device` ('CPU'), `encode_precision` and `fold_precision` ('f32'), `rollout_precision`
    ('auto'): what operations outside the quantised ones run in, 'f32', 'bf16' or 'f16'; 'auto' is
    bf16 where the device has it, else f32, as for a graph exported in float32. Where the fold
    looks into its maps is always f32, and of a rollout in bf16 the dense maps to come alone are.

    With fewer cameras than threads, decoding and encoding leave a core idle: threads are then
    shared between the encoder and the older frames' part of the fold, which `begin` starts beside.
    For throughput they are shared so with any number of cameras, and by the rollout too.

    In a rollout dense maps are decoded beside each other and beside the agents.
    """

    name = 'openvino'
    OPTIONS = {'device': 'CPU', 'encode_precision': 'f32', 'fold_precision': 'f32',
               'rollout_precision': 'auto'}
    channels_last = frozenset({'memory', 'skip', 'past'})

    def prepare(self, artifact: Artifact) -> None:
        """Start the library; it runs the artifact as exported."""
        check_form(artifact, self.name, '')
        self._core = ov.Core()
        self.threads = self.threads or len(os.sched_getaffinity(0))

    def open(self, graph: str, artifact: Artifact, sizes: Mapping[str, int]) -> LoadedGraph:
        """Compile one graph for static sizes."""
        shared = self.throughput or sizes.get('N', 1) < self.threads
        beside = self.threads // 2 if shared else 0
        whole = graph != 'encode' and not self.throughput
        settings = Settings(self._core, self.options['device'], self._precision(graph, artifact),
                             self.threads - (0 if whole else beside), beside)
        kind = RolloutGraph if graph == 'rollout' else Graph
        opened = kind(settings, graph, artifact, sizes, self.channels_last)
        give_back_memory()
        self.overlaps |= opened.begins
        return opened

    def load(self, artifact: Artifact, sizes: Mapping[str, int]) -> None:
        """Open the graphs and run each once; what only that took goes back to the system."""
        super().load(artifact, sizes)
        give_back_memory()

    def begin(self, graph: str, inputs: Mapping[str, np.ndarray]) -> None:
        """Start on the older frames' part of the fold in another thread, if one is to spare."""
        opened = self._graphs.get(graph)
        if opened is not None:
            opened.begin(inputs)

    def _precision(self, graph: str, artifact: Artifact) -> str:
        wanted = self.options[f'{graph}_precision']
        if wanted != 'auto':
            return wanted
        if artifact.precision[graph] == 'float32':  # exported to be compared with
            return 'f32'
        able = self._core.get_property(self.options['device'], 'OPTIMIZATION_CAPABILITIES')
        return 'bf16' if 'BF16' in able else 'f32'


def give_back_memory() -> None:
    """
    Return freed memory to the system, where the C library can (glibc).

    Compiling takes some 20 MB a graph that it frees, the first runs some 13 MB in all, and that
    would stay with the process.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim:
        trim(0)
