"""The direction of imports, read from the source: what may know of ROS, of torch, of nothing."""

import ast
from functools import cache
from pathlib import Path

import pytest

import wm_ros

# In developer mode the package has two folders; the checkout's comes first.
ROOT = Path(next(iter(wm_ros.__path__)))
GENERATED = 'wm_ros.msg'


def name_of(path: Path) -> str:
    """Return the dotted name of a module file."""
    parts = ('wm_ros', *path.relative_to(ROOT).with_suffix('').parts)
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {name_of(path): path for path in sorted(ROOT.rglob('*.py'))
           if path.relative_to(ROOT).parts[0] != 'msg'}


@cache
def imports(module: str) -> frozenset[str]:
    """Return every module that one file imports, wherever in it: `from a import b` may be a.b."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{module}: relative import'
            found.add(node.module)
            found.update(f'{node.module}.{alias.name}' for alias in node.names
                         if f'{node.module}.{alias.name}' in MODULES)
    return frozenset(found)


def closure(*start: str) -> dict[str, str]:
    """Return what `start` imports, directly or not, with the module that imports it."""
    reached: dict[str, str] = {}
    todo = [name for name in MODULES if any(name == s or name.startswith(f'{s}.') for s in start)]
    assert todo, f'no modules under {start}'
    while todo:
        module = todo.pop()
        for name in imports(module):
            if name not in reached:
                reached[name] = module
                if name in MODULES:
                    todo.append(name)
    return reached


def is_ros(name: str) -> bool:
    """Tell whether a module belongs to ROS, its messages or ours."""
    root = name.split('.')[0]
    return (root.startswith(('rclpy', 'tf2_', 'launch', 'rosidl', 'ament', 'cv_bridge'))
            or root.endswith(('_msgs', '_interfaces')) or name.startswith(GENERATED))


def is_torch(name: str) -> bool:
    """Tell whether a module is torch or built on it."""
    return name.split('.')[0] in ('torch', 'torchvision', 'safetensors')


def test_only_the_ros_folder_imports_ros():
    offenders = {module: sorted(filter(is_ros, imports(module))) for module in MODULES
                 if not module.startswith('wm_ros.ros') and any(map(is_ros, imports(module)))}
    assert offenders == {}


@pytest.mark.parametrize('start, barred', [
    (('wm_ros.predictor',), is_torch),
    (('wm_ros.predictor',), is_ros),
    (('wm_ros.sim',), is_torch),
    (('wm_ros.ros',), is_torch),
    (('wm_ros.replay', 'wm_ros.replay_job'), is_torch),
    # Chosen by name at run time, so that no import leads there.
    *(((f'wm_ros.runtime.{name}',), is_torch) for name in ('openvino', 'onnxruntime', 'tensorrt')),
    (('wm_ros.cli.demo',), is_torch),
    (('wm_ros.model', 'wm_ros.train', 'wm_ros.export'), is_ros),
    (('wm_ros.evaluate', 'wm_ros.data'), is_ros),
])
def test_what_does_not_reach_what(start, barred):
    reached = closure(*start)
    assert {name: module for name, module in reached.items() if barred(name)} == {}


def test_the_package_itself_is_empty():
    """The message generator installs an empty file of the same name over it."""
    assert (ROOT / '__init__.py').read_text() == ''


def test_the_check_sees_imports():
    """The tests above would pass on a closure that finds nothing."""
    assert any(map(is_ros, closure('wm_ros.ros')))
    assert any(map(is_torch, closure('wm_ros.model')))
    assert 'wm_ros.types' in closure('wm_ros.predictor')
