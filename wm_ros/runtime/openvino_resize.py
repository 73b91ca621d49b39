"""
The raising of dense maps to the output grid, taken out of a graph and done by OpenCV.

OpenVINO's bilinear Interpolate on a CPU takes about ten times as long as `cv2.resize` for the same
numbers, and it is the last thing that happens to the maps: what follows only cuts them apart.
"""

from __future__ import annotations

import cv2
import numpy as np
import openvino as ov

#: What may follow on the way to an output: nothing that computes.
_MOVES = ('Reshape', 'Slice', 'StridedSlice', 'Gather', 'Squeeze', 'Unsqueeze', 'Split',
          'VariadicSplit', 'Transpose', 'Convert', 'Identity')


def last_resizes(model: ov.Model) -> list[ov.Node]:
    """Return the bilinear enlargements (M, C, h, w) of a model that only moves follow."""
    return [node for node in model.get_ordered_ops()
            if node.get_type_name() == 'Interpolate' and _is_plain(node) and _is_last(node)]


def _is_plain(node: ov.Node) -> bool:
    attributes = node.get_attributes()
    source, target = node.get_input_partial_shape(0), node.get_output_partial_shape(0)
    return (attributes['mode'] in ('linear', 'linear_onnx')
            and attributes['coordinate_transformation_mode'] in ('half_pixel',
                                                                 'pytorch_half_pixel')
            and not attributes['antialias'] and not any(attributes['pads_begin'])
            and not any(attributes['pads_end']) and source.is_static and target.is_static
            and len(source) == 4 and all(source[i] == target[i] for i in (0, 1))
            and all(1 < source[i].get_length() <= target[i].get_length() for i in (2, 3)))


def _is_last(node: ov.Node) -> bool:
    """Tell whether every way from a node to a result only moves values."""
    waiting, reached = [node], False
    while waiting:
        for port in waiting.pop().outputs():
            for reader in port.get_target_inputs():
                follower = reader.get_node()
                if follower.get_type_name() == 'Result':
                    reached = True
                elif follower.get_type_name() == 'ShapeOf':
                    continue
                elif follower.get_type_name() not in _MOVES:
                    return False
                else:
                    waiting.append(follower)
    return reached


def resize(source: np.ndarray, target: np.ndarray) -> None:
    """Enlarge maps (M, C, h, w) float32 into `target` (M, C, H, W), half-pixel bilinear."""
    size = target.shape[:1:-1]
    for small, large in zip(source.reshape(-1, *source.shape[2:]),
                            target.reshape(-1, *target.shape[2:]), strict=True):
        cv2.resize(small, size, dst=large, interpolation=cv2.INTER_LINEAR)
