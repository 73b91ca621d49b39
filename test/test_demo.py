"""The demo's own parts: processes that fail are named, figures are worked out by hand."""

import json
import os
import signal
import time

import pytest
from bags import PERIOD_NS, START_NS, rich_forecast

from wm_ros.data.bag import BagReader, BagWriter
from wm_ros.data.sim_bag import DriveSettings
from wm_ros.demo import live, processes
from wm_ros.demo.live import LiveRun, page_text, summarise
from wm_ros.share import share_path

#: How long anything may take on a machine that others use too.
PATIENCE_S = 60.0


def start(tmp_path, code, **options):
    """Start a module that runs `code`."""
    folder = tmp_path / 'modules'
    folder.mkdir(exist_ok=True)
    (folder / 'wm_ros_test_child.py').write_text(code)
    os.environ['PYTHONPATH'] = str(folder)
    try:
        return processes.Process('child', 'wm_ros_test_child', [], tmp_path / 'child.log', 77,
                                 **options)
    finally:
        del os.environ['PYTHONPATH']


def test_a_process_that_fails_is_named_with_its_last_line(tmp_path):
    child = start(tmp_path, 'import sys; print("disk on fire"); sys.exit(3)')
    with child, pytest.raises(
            processes.ProcessError, match='child ended with code 3.*disk on fire'):
        child.wait(PATIENCE_S)


def test_a_process_beside_that_ends_is_named(tmp_path):
    with start(tmp_path, 'raise SystemExit("gone")') as other:
        while other.code is None:
            time.sleep(0.02)
        (tmp_path / 'b').mkdir()
        with start(tmp_path / 'b', 'import time; time.sleep(60)') as child, pytest.raises(
                processes.ProcessError, match='gone'):
            child.wait(PATIENCE_S, beside=(other,))


def test_a_process_ends_on_sigint_and_is_killed_where_it_does_not(tmp_path):
    deaf = 'import signal, time; signal.signal(2, signal.SIG_IGN); print("up"); time.sleep(60)'
    child = start(tmp_path, deaf, end_s=0.3)
    while 'up' not in child.last_lines():
        time.sleep(0.02)
    with child:
        pass
    assert child.code == -signal.SIGKILL


def test_a_process_that_says_that_it_failed_is_named_though_it_lives(tmp_path):
    code = 'import time; print("on_configure: no such file", flush=True); time.sleep(60)'
    with start(tmp_path, code, fatal='on_configure: ') as child:
        with pytest.raises(processes.ProcessError, match='child failed: .*no such file'):
            live.wait_until(lambda: False, PATIENCE_S, (child,))
        assert child.code is None


@pytest.mark.parametrize(('package', 'name'), [
    ('fastrtps', 'FASTRTPS_DEFAULT_PROFILES_FILE'), ('fastdds', 'FASTDDS_DEFAULT_PROFILES_FILE')])
def test_the_profile_has_the_name_that_this_fast_dds_knows(tmp_path, monkeypatch, package, name):
    """Without it half of the pictures are lost; up to Jazzy Fast DDS is version 2."""
    for variable in ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / 'ros' / 'share' / package).mkdir(parents=True)
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path / 'ros'))
    monkeypatch.setattr(processes, 'share_path', lambda *parts: '/'.join(parts))
    code = 'import os; print([key for key in os.environ if key.endswith("_PROFILES_FILE")])'
    with start(tmp_path, code) as child:
        child.wait(PATIENCE_S)
    assert child.last_lines(1) == f"['{name}']"


def test_a_process_reads_the_profile_that_it_is_given(tmp_path):
    code = 'import os; print([value for key, value in os.environ.items() if "_PROFILES_" in key])'
    with start(tmp_path, code, profile='fastdds_node.xml') as child:
        child.wait(PATIENCE_S)
    assert child.last_lines(1) == f"['{share_path('params', 'fastdds_node.xml')}']"


def test_the_profiles_differ_in_the_segment_alone():
    """And the node's, all of which counts to its memory, is a quarter of the drivers'."""
    node, large = (share_path('params', f'fastdds_{name}.xml').read_text() for name in
                   ('node', 'large_messages'))
    settings = [text[text.index('<dds'):] for text in (node, large)]
    assert settings[0].replace('16777216', '67108864').replace('"node"', '"large_messages"') == (
        settings[1])


def test_peak_memory_is_in_millions_of_bytes(tmp_path):
    if not os.path.exists('/proc/self/statm'):
        pytest.skip('this kernel does not tell: no /proc/self/statm')
    code = ('import mmap, time; block = bytearray(200_000_000); '
            'print(int(open("/proc/self/statm").read().split()[1]) * mmap.PAGESIZE, flush=True); '
            'time.sleep(60)')
    with start(tmp_path, code) as child:
        assert live.wait_until(lambda: child.last_lines(1).isdigit(), PATIENCE_S, (child,))
        resident_mb = int(child.last_lines(1)) / 1e6
        assert processes.peak_memory_mb(child.pid) == pytest.approx(resident_mb, rel=0.02)
    assert processes.peak_memory_mb(2 ** 22 + 1) is None       # nobody's


def test_what_a_process_waited_for_a_processor_is_that_of_its_thread_that_waited_longest():
    if not os.path.exists('/proc/self/schedstat'):
        pytest.skip('this kernel does not tell: no /proc/self/schedstat')
    before = processes.waited_s(os.getpid())
    assert 0 <= before <= processes.waited_s(os.getpid()) < 3600
    assert processes.waited_s(2 ** 22 + 1) == 0.0       # nobody's


def test_a_recorders_log_is_read_while_it_is_written(tmp_path):
    log = tmp_path / 'log'
    assert live.recorded(log) == {}
    log.write_text('["/a", null, 5]\n["/a", 100, 7]\n["/diagnostics", 0, 6]\n["/a", 200')
    arrivals = live.recorded(log)
    assert arrivals == {'/a': [(100, 7)], '/diagnostics': [(0, 6)]}
    assert not live.reported(arrivals, '/a', 100) and not live.reported(arrivals, '/a', 200)
    log.write_text('["/a", 100, 7]\n["/diagnostics", 0, 8]\n["/diagnostics", 0, 9]\n')
    assert live.reported(live.recorded(log), '/a', 100)


def live_run(tmp_path, sets=20, lost=(18,)):
    stamps = [START_NS + i * PERIOD_NS for i in range(sets)]
    forecasts = [rich_forecast(s, valid=i >= 15) for i, s in enumerate(stamps) if i not in lost]
    with BagWriter(tmp_path / 'bag'):
        pass
    latency = {f.stamp_ns: 30.0 + i for i, f in enumerate(forecasts)}
    return LiveRun(tmp_path / 'bag', stamps, latency, 2.0, 1.5, 300.4, 0.42, 3.0), forecasts


def test_the_summary_counts_what_was_lost_and_when_it_became_valid(tmp_path):
    summary = summarise(*live_run(tmp_path), scores=None)
    assert (summary['sets'], summary['forecasts'], summary['dropped']) == (20, 19, 1)
    assert summary['rate_in_hz'] == 10.0
    assert summary['sets_before_first_valid'] == 15
    assert summary['valid_share_after_first'] == pytest.approx(4 / 5)
    # The valid ones are 15, 16, 17 and 19 (the 18th was lost): 45, 46, 47 and 48 ms.
    assert summary['latency_p50_ms'] == 46.5 and summary['latency_max_ms'] == 48.0
    json.dumps(summary, allow_nan=False)
    text = page_text(summary, [])
    assert 'set 16, then 80.0 % valid' in text and 'dropped' in text
    counted = {**summary, 'node_counts': {'encoded': 20, 'forecasts': 19, 'shed_forecasts': 1}}
    assert '1 (the node: shed_forecasts 1)\n' in page_text(counted, [])


def test_a_run_without_a_valid_forecast_still_has_a_summary(tmp_path):
    run, forecasts = live_run(tmp_path)
    forecasts = [f for f in forecasts if not f.valid]
    summary = summarise(run, forecasts, None)
    assert summary['latency_p50_ms'] is None and summary['valid_share_after_first'] == 0.0
    assert 'none' in page_text(summary, [])


def test_one_set_has_no_rate(tmp_path):
    summary = summarise(*live_run(tmp_path, sets=1, lost=()), scores=None)
    json.dumps(summary, allow_nan=False)
    assert summary['rate_in_hz'] is None
    assert 'camera sets in               1\n' in page_text(summary, [])


def test_a_drive_is_made_once(tmp_path, monkeypatch):
    from wm_ros.cli import demo
    from wm_ros.data import render_cache, sim_bag
    made, code = [], []

    def write(path, settings, progress):
        made.append(settings)
        with BagWriter(path) as writer:
            writer.note('simulated', settings.text())
            writer.note('simulator', code[0])
            writer.write_raw('/odometry', 'nav_msgs/msg/Odometry', 1, b'\0\1\0\0')

    monkeypatch.setattr(sim_bag, 'write_drive', write)
    for seed, version in ((1, render_cache.code_version()), (1, 'of another day'), (2, 'the same')):
        code[:] = [version]
        demo.prepare_drive(tmp_path / 'drive', DriveSettings(seed, 1.0))
    assert [s.seed for s in made] == [1, 2]
    demo.prepare_drive(tmp_path / 'drive', DriveSettings(2, 1.0))       # drawn by another simulator
    assert [s.seed for s in made] == [1, 2, 2]
    with BagReader(tmp_path / 'drive') as reader:
        assert 'seed=2' in reader.notes['simulated']


def test_nothing_is_removed_that_the_demo_did_not_write(tmp_path):
    from wm_ros.cli import demo
    with BagWriter(tmp_path / 'drive') as writer:       # somebody's recording
        writer.write_raw('/odometry', 'nav_msgs/msg/Odometry', 1, b'\0\1\0\0')
    (tmp_path / 'forecasts').mkdir()
    (tmp_path / 'forecasts' / 'mine').write_text('')
    (tmp_path / 'other').mkdir()
    for path in ('drive', 'other'):
        with pytest.raises(FileExistsError, match='no simulated drive; want another folder'):
            demo.prepare_drive(tmp_path / path, DriveSettings(1, 1.0))
    with pytest.raises(FileExistsError, match='not recorded by the demo'):
        live.run_live(tmp_path / 'drive', tmp_path, tmp_path / 'rig.yaml', None, 'auto', 1, print)
    assert (tmp_path / 'drive' / 'metadata.yaml').is_file()
    assert (tmp_path / 'forecasts' / 'mine').is_file()


def test_the_rig_files_that_the_node_gets_are_the_simulators(tmp_path):
    import numpy as np

    from wm_ros.rig import load_rig
    from wm_ros.share import share_path
    from wm_ros.sim.rigs import rig
    for name in ('surround', 'front', 'kitti'):
        shipped, simulated = load_rig(share_path('params', 'rigs', f'{name}.yaml')), rig(name)
        assert shipped.names == simulated.names
        for a, b in zip(shipped.cameras, simulated.cameras, strict=True):
            np.testing.assert_allclose(a.k, b.k, atol=1e-3)
            np.testing.assert_allclose(a.base_from_camera, b.base_from_camera, atol=1e-4)
            assert (a.width, a.height) == (b.width, b.height)


def test_the_simulator_writes_every_topic_at_its_rate(tmp_path):
    from wm_ros.data.sim_bag import write_drive
    from wm_ros.data.truth import truth_from_message
    from wm_ros.types import EgoState, Frame
    steps = []
    settings = DriveSettings(seed=7, seconds=1.0, rig='front', width=320)
    sets = write_drive(tmp_path / 'drive', settings, workers=1,
                       progress=lambda done, total: steps.append((done, total)))
    assert sets == 10 and steps[-1] == (10, 10)
    with BagReader(tmp_path / 'drive') as reader:
        assert {t.name: t.count for t in reader.topics.values() if t.name != '/odometry'} == {
            '/tf_static': 1, '/front/camera_info': 10, '/front/image_raw/compressed': 10,
            '/truth/agents': 10}
        assert abs(reader.topics['/odometry'].count - 46) <= 1     # 50 Hz over 0.9 s
        rig = reader.rig()
        values = [value for _, value in reader.values()]
        truths = [truth_from_message(msg) for _, _, msg in reader.read(['/truth/agents'])]
    assert (rig.cameras[0].width, rig.cameras[0].height) == (320, 180)
    frames = {v.stamp_ns for v in values if isinstance(v, Frame)}
    assert len(frames) == 10 == len({t.stamp_ns for t in truths} & frames)
    # Odometry is exact at the pictures' stamps, and comes before them.
    egos = {v.stamp_ns: v for v in values if isinstance(v, EgoState)}
    for truth in truths:
        assert egos[truth.stamp_ns].odom_from_base == pytest.approx(truth.ego.odom_from_base)
    first = [type(v).__name__ for v in values[:2]]
    assert first == ['EgoState', 'Frame']


def test_the_node_is_named_where_it_does_not_start(tmp_path):
    """A real node with a rig file that is not there: the demo says so instead of waiting."""
    pytest.importorskip('rclpy')
    from bags import small_rig
    from test_bag import write_inputs
    write_inputs(tmp_path / 'drive', small_rig(), frames=2)
    with pytest.raises(processes.ProcessError, match='no-rig.yaml'):
        live.run_live(tmp_path / 'drive', tmp_path, tmp_path / 'no-rig.yaml', None, 'openvino', 1,
                      lambda text: None)


def test_the_demo_from_end_to_end(tmp_path, capsys):
    """Simulator, player, node, recorder, scores and page, with a small drive and a fake model."""
    pytest.importorskip('rclpy')
    from fakes import make_fake_artifact

    from wm_ros.cli.main import main
    artifact = make_fake_artifact(tmp_path / 'artifact')
    out = tmp_path / 'demo'
    code = main(['demo', '--out', str(out), '--seconds', '4', '--rig', 'front', '--artifact',
                 str(artifact), '--threads', '1', '--seed', '900002'])
    shown = capsys.readouterr()
    summary = json.loads((out / 'summary.json').read_text())
    assert summary['sets'] == 40
    # How many come through is a question of the host's load; the node names those that do not.
    counts = summary['node_counts']
    assert summary['forecasts'] == counts['forecasts'] > 0
    unseen = summary['dropped'] - sum(
        counts[name] for name in ('sets_skipped', 'shed_encodes', 'shed_forecasts'))
    assert 0 <= unseen and (unseen <= 3 or counts['flushes']), counts    # before DDS found it
    if code:    # nothing valid came of it, which the demo says: only where others had its processor
        assert 'no forecast was valid' in shown.err and summary['latency_p50_ms'] is None
        assert summary['node_waited_s'] + summary['player_lag_ms'] / 1e3 > 1.0
    else:
        assert summary['latency_p50_ms'] > 0 and summary['scores']['n_forecasts'] > 0
        assert 'recall (30 m)' in shown.out
    assert summary['node_exit_s'] < max(2.0, summary['node_start_s'])
    for text in ('camera sets in', 'stamp to publish', 'report.html'):
        assert text in shown.out
    assert (out / 'report.html').stat().st_size > 50_000
    assert (out / 'preview.png').is_file()
    with BagReader(out / 'forecasts') as reader:
        assert {'/world_model/agents', '/world_model/occupancy', '/diagnostics'} <= set(
            reader.topics)
