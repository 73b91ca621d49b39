"""
Tests run against the installed package, which has the generated messages; the checkout has none.

`make develop` makes the installed package read the Python files of the checkout.
"""

import os
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent

# `python -m pytest` puts the checkout first; processes that tests start must not do that either.
sys.path[:] = [entry for entry in sys.path if Path(entry or os.curdir).resolve() != REPO]
os.environ['PYTHONSAFEPATH'] = '1'
