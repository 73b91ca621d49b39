"""The Rerun recording: readable by Rerun's own tool, with everything that the page shows."""

import builtins
import subprocess
import sys

import numpy as np
import pytest
from bags import PERIOD_NS, small_rig
from drives import forecasts

from wm_ros.cli.main import main
from wm_ros.data.bag import BagWriter
from wm_ros.evaluate.report_data import Report, encoded
from wm_ros.evaluate.report_health import Health
from wm_ros.evaluate.report_judged import Judged, held_moments
from wm_ros.evaluate.rerun_recording import write_recording
from wm_ros.replay import ForecastWriter


@pytest.mark.filterwarnings('error')
def test_a_recording_holds_what_the_page_shows(tmp_path):
    pytest.importorskip('rerun', reason='rerun-sdk is not installed: requirements/rerun.txt')
    drive = forecasts(2.4, period_ns=2 * PERIOD_NS)
    mosaic = encoded(np.full((450, 800, 3), 90, np.uint8), 50)
    report = Report(
        'drive', small_rig(), drive, {}, {f.stamp_ns: mosaic for f in drive},
        moments=held_moments(drive), judged={drive[0].stamp_ns: Judged(2, 2, 1, 0)},
        health=Health({drive[0].stamp_ns: 40.0}, [(drive[1].stamp_ns, 2, ['camera back: lost'])]))
    path = tmp_path / 'folder' / 'drive.rrd'
    assert write_recording(report, path) == path.stat().st_size
    result = subprocess.run([sys.executable, '-m', 'rerun', 'rrd', 'print', str(path)],
                            capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    for place in ('front', 'back', 'agents', 'paths', 'covariances', 'plan', 'ground',
                  'occupancy/now', 'occupancy/in_3_s'):
        assert f'/world/base_link/{place}' in result.stdout
    for place in ('/surprise/agents', '/surprise/occupancy', '/right', '/latency_ms', '/health'):
        assert place in result.stdout


def test_without_rerun_the_command_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    with BagWriter(tmp_path / 'bag') as writer:
        out = ForecastWriter(writer, flow=False, grids=False)
        for forecast in forecasts(0.2):
            out.write(forecast)
    real = builtins.__import__

    def missing(name, *arguments, **options):
        if name == 'rerun':
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, '__import__', missing)
    assert main(['report', str(tmp_path / 'bag'), '--rerun', str(tmp_path / 'x.rrd')]) == 1
    assert 'requirements/rerun.txt' in capsys.readouterr().err
    assert not (tmp_path / 'x.rrd').exists()
