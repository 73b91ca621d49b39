# make build   .venv with ROS 2 from PyPI, and the package in it
# make test    the same, and all tests
# make demo    the same without torch: the live node on a simulated drive, results in out/demo/
# make develop the installed package reads the Python files of this checkout (not the messages)
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := $(CURDIR)/.venv
SOURCES := package.xml CMakeLists.txt setup.py LICENSE $(shell find msg wm_ros scripts launch params \
	rviz foxglove models -type f -not -path '*/__pycache__/*' 2>/dev/null)

export PATH := $(VENV)/bin:$(PATH)
export AMENT_PREFIX_PATH := $(VENV)
export CMAKE_PREFIX_PATH := $(VENV)
export CMAKE_GENERATOR := Ninja
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# What another virtual environment or a sourced ROS left behind.
unexport PYTHONPATH PYTHONHOME _ROS_WHEELS_BOOTSTRAP_COMPLETE
unexport RMW_IMPLEMENTATION LD_LIBRARY_PATH ROS_DISTRO ROS_VERSION ROS_PYTHON_VERSION

.PHONY: build test demo develop clean
.DELETE_ON_ERROR:

build: $(VENV)/.stamp-installed

test: build $(VENV)/.stamp-test
	ruff check .
	pytest

demo: build
	wm_ros demo --out out/demo

develop: build
	python -c "import sysconfig; \
	open(sysconfig.get_path('platlib') + '/wm_ros/__init__.py', 'w') \
	.write('__path__.insert(0, \'$(CURDIR)/wm_ros\')\n')"

clean:
	rm -rf .venv build install log out

$(VENV)/.stamp-run: requirements/run.txt requirements/constraints.txt
	$(PYTHON) -m venv $(VENV)
	pip install --quiet --requirement requirements/run.txt
	touch $@

$(VENV)/.stamp-test: requirements/test.txt requirements/train.txt $(VENV)/.stamp-run
	pip install --quiet --requirement requirements/test.txt
	touch $@

$(VENV)/.stamp-installed: $(VENV)/.stamp-run $(SOURCES)
	pip install --quiet --no-build-isolation --no-deps --force-reinstall .
	touch $@
