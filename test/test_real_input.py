"""
The live node on a real recording: one front camera, played over DDS at its own rate.

The recording is a KITTI drive in the layout of `wm_ros.data.kitti`. It is not part of this project;
`WM_ROS_KITTI` names its folder, else it is looked for in ../shared/data/kitti_drive_0005.

A busy host may make the node late, and then it drops sets by design. It has to say so: what it did
not forecast is exactly what its diagnostics count.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from fakes import make_fake_artifact

pytest.importorskip('rclpy')

from wm_ros.data.bag import BagReader
from wm_ros.data.kitti import load_drive
from wm_ros.data.kitti_bag import write_bag
from wm_ros.demo.live import NODE, node_counts, run_live
from wm_ros.messages import duration_ns, stamp_ns
from wm_ros.periods import SLOT_NS
from wm_ros.rig import rig_to_yaml
from wm_ros.share import share_path
from wm_ros.types import WINDOW_FRAMES

AGENTS, OCCUPANCY = f'{NODE}/agents', f'{NODE}/occupancy'
#: What a forecast needs of 16 frames, and how long a step between two may be (parameters).
MIN_FRAMES, MAX_GAP_PERIODS = 14, 2.0
#: How many windows a node may leave out, and how old a forecast may become, that never has to wait
#: for a processor.
MAX_LEFT_OUT, MAX_LATENCY_PERIODS = 0.04, 10
#: How many of the first sets may go out before DDS has brought player and node together.
UNSEEN = 3


def recording():
    """Return the folder of the recording, None where there is none."""
    given = os.environ.get('WM_ROS_KITTI')
    folder = Path(given) if given else (
        Path(__file__).resolve().parents[2] / 'shared' / 'data' / 'kitti_drive_0005')
    return folder if (folder / 'tracks.csv').is_file() else None


pytestmark = pytest.mark.skipif(
    recording() is None, reason='no KITTI drive: set WM_ROS_KITTI to the folder of one '
                                '(image_02, ego_local.csv, tracks.csv)')


def artifact(tmp_path):
    """Return the model that ships, or where none does a tiny one of the same contract."""
    try:
        return share_path('models', 'world-model')
    except FileNotFoundError:
        return make_fake_artifact(tmp_path / 'artifact')


def test_a_forecast_for_every_complete_window_at_the_recordings_own_rate(tmp_path, capsys):
    drive = load_drive(recording())
    write_bag(tmp_path / 'bag', drive)
    (tmp_path / 'rig.yaml').write_text(rig_to_yaml(drive.rig), encoding='utf-8')
    run = run_live(tmp_path / 'bag', tmp_path, tmp_path / 'rig.yaml', artifact(tmp_path),
                   'openvino', 2, lambda text: None)
    assert [line for line in (tmp_path / 'node.log').read_text().splitlines()
            if '[ERROR]' in line or 'Traceback' in line] == []
    stamps = [ego.stamp_ns for ego in drive.egos]
    assert run.sets == stamps
    span_s = (stamps[-1] - stamps[0]) / 1e9
    assert run.play_seconds == pytest.approx(span_s, abs=0.1 + run.player_lag_ms / 1e3)
    counts = node_counts(run.bag)
    with BagReader(run.bag) as reader:
        found = [(stamp_ns(msg.header), msg.info) for _, _, msg in reader.read([AGENTS])]
        layers = {stamp_ns(msg.header) for _, _, msg in reader.read([OCCUPANCY])}
    forecasts = dict(found)
    assert len(forecasts) == len(found)

    # It is late only where it waited for a processor that others had, or for the player.
    period_s = span_s / (len(stamps) - 1)
    others_s = run.node_waited_s + run.player_lag_ms / 1e3
    unseen = len(stamps) - counts['sets_formed'] - counts['sets_skipped']
    left_out = check_counts(counts, len(stamps) - unseen, len(forecasts))
    blurred = counts['sets_skipped'] // 10      # the periods of a long gap are an estimate
    if counts['flushes']:   # nothing came to it for a whole window: it begins anew
        assert others_s > WINDOW_FRAMES * SLOT_NS / 1e9, counts
        assert unseen <= UNSEEN + others_s / period_s, counts
        complete = stamps[WINDOW_FRAMES - 1:]
    else:                   # sent before DDS had brought player and node together
        assert -blurred <= unseen <= UNSEEN + blurred, counts
        oldest = min(stamp - duration_ns(info.window.span) for stamp, info in forecasts.items())
        assert blurred or stamps[unseen] <= oldest, (
            f'{unseen} sets are missing, and not the first: {counts}, without forecast are '
            f'{[i for i, stamp in enumerate(stamps) if stamp not in forecasts]}')
        complete = stamps[max(unseen, 0) + WINDOW_FRAMES - 1:]
    made = [s for s in complete if s in forecasts]
    assert stamps[-1] in forecasts      # the newest always is
    assert [s for s in made if s not in layers] == []
    assert left_out <= MAX_LEFT_OUT * len(complete) + others_s / period_s
    latency_ms = np.array([run.latency_ms[s] for s in made])
    assert latency_ms.max() <= 1e3 * (MAX_LATENCY_PERIODS * period_s + others_s)

    # A set that was not encoded is missing in the sixteen windows that it belongs to.
    lost = counts['sets_skipped'] + counts['shed_encodes'] + WINDOW_FRAMES * counts['flushes']
    for s in made:
        window = forecasts[s].window
        assert WINDOW_FRAMES - lost <= window.frames_used <= WINDOW_FRAMES
        assert window.odometry or lost      # where pictures got lost, odometry may have been
        assert forecasts[s].valid == (window.frames_used >= MIN_FRAMES
                                      and window.max_gap_periods <= MAX_GAP_PERIODS)
        assert all(reason.startswith('window: ') for reason in forecasts[s].invalid_reasons)
    with capsys.disabled():
        print(f'\n{len(stamps)} frames, {len(complete)} complete windows, {len(made)} forecast, '
              f'{sum(forecasts[s].valid for s in made)} valid; picture to forecast p50 '
              f'{np.median(latency_ms):.0f} ms, p95 {np.percentile(latency_ms, 95):.0f} ms, most '
              f'{latency_ms.max():.0f} ms; waited {run.node_waited_s:.1f} s for a processor; '
              f'the node counts {counts}')


def check_counts(counts, sets, forecasts):
    """Hold what the node says against `sets` that reached it; return how many it left out."""
    assert not any(counts[name] for name in (
        'failures', 'sets_overtaken', 'sets_flushed', 'buffer_overruns')), counts
    assert counts['sets_formed'] == counts['sets_used'], counts      # none thinned out at 10 Hz
    assert counts['encoded'] + counts['shed_encodes'] == counts['sets_used'], counts
    assert counts['forecasts'] + counts['shed_forecasts'] == counts['encoded'], counts
    left_out = counts['sets_skipped'] + counts['shed_encodes'] + counts['shed_forecasts']
    assert forecasts == counts['forecasts'] == sets - left_out, counts
    return left_out
