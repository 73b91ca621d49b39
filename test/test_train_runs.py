"""Runs of training: overlays, several processes, loss curves, checkpoints that travel."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='training needs torch')

from safetensors.torch import load_file, save_file  # noqa: E402
from tiny_run import make_run, window_clip  # noqa: E402

from wm_ros.model.config import PRESETS  # noqa: E402
from wm_ros.train import encode as encoding  # noqa: E402
from wm_ros.train.config import RUNS, Settings, load_settings  # noqa: E402
from wm_ros.train.curves import draw_curves  # noqa: E402
from wm_ros.train.encode import (  # noqa: E402
    calibration_frames,
    torch_encoder,
    window_setup,
    write_encoder,
)
from wm_ros.train.loop import load_model, notes_of  # noqa: E402
from wm_ros.train.shards import pack, unpack  # noqa: E402
from wm_ros.train.stages import Batches  # noqa: E402
from wm_ros.train.store import ClipStore  # noqa: E402
from wm_ros.train.targets import window_sample  # noqa: E402


def test_every_run_that_ships_names_a_preset_and_known_fields():
    assert RUNS['cpu'] == Settings()
    for name, settings in RUNS.items():
        assert settings.preset in PRESETS, name
    assert RUNS['cuda'].device == 'cuda' and RUNS['cuda'].encode == 'torch'


def test_an_overlay_goes_over_defaults_and_a_flag_over_both(tmp_path):
    path = tmp_path / 'runs.yaml'
    path.write_text('mine: {train: {seed: 3, frame_minutes: 2}}\nbad: {train: {sead: 3}}\n')
    settings = load_settings('mine', 'train', Settings, {'seed': 4}, path)
    assert (settings.seed, settings.frame_minutes, settings.rate) == (4, 2.0, Settings().rate)
    assert isinstance(settings.frame_minutes, float)
    with pytest.raises(ValueError, match='sead'):
        load_settings('bad', 'train', Settings, path=path)
    with pytest.raises(ValueError, match=r"'other'; there are mine, bad"):
        load_settings('other', 'train', Settings, path=path)


def test_two_processes_train_one_model(tmp_path):
    folder = make_run(tmp_path)
    for path in folder.glob('*.safetensors'):
        path.unlink()
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2', '--master-port',
         str(port), '-m', '--', 'wm_ros.cli.main', 'train', '--folder', str(folder), '--run',
         'rehearsal', '--stage', 'frame', '--workers', '0', '--steps', '3', '--frame-batch', '1',
         '--frame-clips', '3', '--frame-minutes', '60'],     # three steps, however long they take
        env={**os.environ, 'OMP_NUM_THREADS': '1'}, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count('frame step 3') == 1           # the first process alone speaks
    assert notes_of(folder / 'frame.safetensors')['step'] == '3'
    assert len((folder / 'frame.jsonl').read_text().splitlines()) == 1
    assert 'total' in (folder / 'curves.svg').read_text()


def test_draws_depend_on_the_process_and_on_the_step(tmp_path):
    store = ClipStore(tmp_path)
    for i in range(8):
        store.write(i, window_clip(i, PRESETS['tiny']))

    def drawn(*seed):
        batch = Batches(store, window_sample, 2, torch.device('cpu'), seed).take()
        return batch['memory']

    assert torch.equal(drawn(0, 1, 0, 0), drawn(0, 1, 0, 0))
    assert not torch.equal(drawn(0, 1, 0, 0), drawn(0, 1, 1, 0))
    assert not torch.equal(drawn(0, 1, 0, 0), drawn(0, 1, 0, 250))


def test_streams_are_encoded_in_torch_as_the_model_encodes(tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, 'calibration_frames',
                        lambda run: calibration_frames(run, 2))
    folder = make_run(tmp_path / 'run')
    model = load_model(folder / 'model.safetensors')
    path = write_encoder(folder, 'torch')
    encode = torch_encoder(path, 'cpu')
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (2, 160, 400, 3), dtype=np.uint8)
    index, weight = np.zeros((25600, 4), np.int32), np.full((25600, 4), 0.25, np.float32)
    memory, skip = encode(images, index, weight)
    with torch.no_grad():
        want = model.eval().encode(torch.from_numpy(images)[None],
                                   torch.from_numpy(index)[None].long(),
                                   torch.from_numpy(weight)[None])
    error = np.abs(skip - want[1][0].numpy()).mean() / want[1].mean().item()
    assert 0 < error < 0.1      # quantised, and near
    assert memory.shape == want[0][0].shape
    with pytest.raises(ValueError, match='onnx'):
        write_encoder(folder, 'onnx')
    assert callable(window_setup(path, folder / 'drives', 'cpu'))


def test_curves_are_drawn_from_what_was_logged(tmp_path):
    assert draw_curves(tmp_path) is None
    rows = [{'step': 50, 'path': 10.0, 'total': 12.0}, {'step': 100, 'path': 0.1, 'total': 1.0}]
    (tmp_path / 'window.jsonl').write_text('\n'.join(json.dumps(row) for row in rows))
    text = draw_curves(tmp_path).read_text()
    assert text.count('</g>') == 1 and 'window: loss over steps, to 100' in text
    # `path` falls over the whole axis, from 1e1 (nearly the top) to 1e-1 at the bottom.
    assert '530.0,230.0' in text


def test_checkpoints_are_packed_into_small_files_and_come_back(tmp_path):
    folder = tmp_path / 'run'
    folder.mkdir()
    random = torch.Generator().manual_seed(0)
    model = {f'w{i}': torch.randn(300, 1000, generator=random) for i in range(4)}
    moments = {'0.0.exp_avg_sq': torch.full((1000,), 1e-12), '0.0.step': torch.tensor(7.0)}
    save_file(model, folder / 'frame.safetensors', metadata={'step': '7', 'elapsed_s': '1.0'})
    save_file(moments, folder / 'frame.optimiser.safetensors', metadata={'step': '7'})
    written = pack(folder, tmp_path / 'out', limit=1 << 20)
    assert len(written) == 5
    # Packed again with fewer parts, none of before is left to be mixed in.
    stale = tmp_path / 'out' / 'frame.07.safetensors'
    stale.write_bytes(written[0].read_bytes())
    assert pack(folder, tmp_path / 'out', limit=1 << 20) == written and not stale.exists()
    assert all(path.stat().st_size <= 1 << 20 for path in written)
    unpack(tmp_path / 'out', tmp_path / 'back')
    again = load_file(tmp_path / 'back' / 'frame.safetensors')
    for name, value in model.items():
        torch.testing.assert_close(again[name], value, rtol=1e-3, atol=1e-6)
    state = load_file(tmp_path / 'back' / 'frame.optimiser.safetensors')
    assert state['0.0.step'] == 7.0
    torch.testing.assert_close(state['0.0.exp_avg_sq'], moments['0.0.exp_avg_sq'], rtol=1e-2,
                               atol=0.0)
    assert notes_of(tmp_path / 'back' / 'frame.safetensors') == {'step': '7', 'elapsed_s': '1.0'}
    written[2].unlink()
    with pytest.raises(ValueError, match='parts of frame.safetensors, want [34]: frame.'):
        unpack(tmp_path / 'out', tmp_path / 'back')
    with pytest.raises(ValueError, match='want another'):
        pack(folder, folder)
