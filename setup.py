"""
Build for `pip install`: run the CMake build of the ROS package and pack what it installs.

ROS itself is found through AMENT_PREFIX_PATH and CMAKE_PREFIX_PATH, or in the virtual environment
that runs this. Use `pip install --no-build-isolation .`; an editable install has no messages.
"""

import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
PACKAGE = ElementTree.parse(HERE / 'package.xml').getroot()


class BinaryDistribution(Distribution):
    """The messages' type support is compiled, so the wheel is of one Python and platform."""

    def has_ext_modules(self):
        return True


class CMakeBuild(build_py):
    """Fill the build folder and `data_files` from a CMake installation."""

    def run(self):
        work = HERE / 'build' / f'pip-{sys.implementation.cache_tag}'
        prefix = work / 'install'
        shutil.rmtree(prefix, ignore_errors=True)
        self._cmake('-S', str(HERE), '-B', str(work / 'cmake'), f'-DCMAKE_INSTALL_PREFIX={prefix}',
                    '-DCMAKE_BUILD_TYPE=Release', '-DBUILD_TESTING=OFF',
                    f'-DPython3_EXECUTABLE={sys.executable}')
        self._cmake('--build', str(work / 'cmake'), '--parallel', str(os.cpu_count() or 1))
        self._cmake('--install', str(work / 'cmake'))

        python = next(path for path in prefix.rglob('wm_ros/msg') if 'share' not in path.parts
                      and 'include' not in path.parts).parent
        target = Path(self.build_lib) / 'wm_ros'
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(python, target)

        files = [path for path in prefix.rglob('*') if path.is_file()
                 and python.parent not in path.parents]
        folders = {path.parent for path in files} - {prefix / 'bin'}  # bin: pip's entry point
        self.distribution.data_files = [
            (str(folder.relative_to(prefix)),
             [str(path) for path in files if path.parent == folder])
            for folder in sorted(folders)]

    def _cmake(self, *arguments):
        # A virtual environment with ROS wheels is itself a ROS prefix.
        environment = dict(os.environ)
        for name in ('AMENT_PREFIX_PATH', 'CMAKE_PREFIX_PATH'):
            environment.setdefault(name, sys.prefix)
        subprocess.run(['cmake', *arguments], check=True, env=environment)


setup(
    name=PACKAGE.findtext('name'),
    version=PACKAGE.findtext('version'),
    description=' '.join(PACKAGE.findtext('description').split()),
    license='Apache-2.0',
    python_requires='>=3.10',
    # What comes with ROS (rclpy, OpenCV) and what runs the model is as the machine has it.
    install_requires=['numpy', 'PyYAML', 'rosbags>=0.11.9'],
    packages=['wm_ros'],
    entry_points={'console_scripts': ['wm_ros = wm_ros.cli.main:main']},
    distclass=BinaryDistribution,
    cmdclass={'build_py': CMakeBuild},
    zip_safe=False,
)
