"""An artifact proves itself: whatever is changed in it, it is refused with found and wanted."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from fakes import CHANNELS, make_fake_artifact

from wm_ros.choices import Choices
from wm_ros.runtime import artifact as art
from wm_ros.runtime.artifact import ArtifactError, load_artifact, write_manifest


@pytest.fixture(scope='module')
def original(tmp_path_factory):
    return make_fake_artifact(tmp_path_factory.mktemp('artifact') / 'fake')


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / 'copy')


def rewrite(folder, **changes):
    """Change the manifest and give it a right hash again, as somebody with intent would."""
    path = folder / art.MANIFEST
    manifest = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            del manifest[key]
        else:
            manifest[key] = value
    manifest['manifest_sha256'] = art._self_hash(manifest)
    path.write_bytes(art._serialise(manifest))


def test_it_loads_and_says_what_it_is(folder):
    loaded = load_artifact(folder)
    assert loaded.hash == hashlib.sha256((folder / 'manifest.json').read_bytes()).hexdigest()
    assert loaded.specs['encode'].outputs[0].shape == (CHANNELS['memory_channels'], 80, 80)
    assert loaded.graph('fold') == (folder / 'fold.onnx').read_bytes()
    assert loaded.choices == Choices(0.3, 0.0)
    assert loaded.precision['encode'] == 'f32'
    assert loaded.manifest['training'] == {'weights': 'none: a test fixture'}


def test_the_same_content_has_the_same_hash(folder, tmp_path):
    assert load_artifact(make_fake_artifact(tmp_path / 'again')).hash == load_artifact(folder).hash
    other = make_fake_artifact(tmp_path / 'other', score_threshold=0.4)
    assert load_artifact(other).hash != load_artifact(folder).hash


def test_a_thousand_flipped_bytes_are_all_refused_by_name(folder, monkeypatch):
    """Any file, any place, any other byte; in memory, so that nothing is written 1,000 times."""
    rng = np.random.default_rng(0)
    files = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    assert {path.name for path in files} == {'manifest.json', *(
        f'{graph}.onnx' for graph in ('encode', 'fold', 'rollout'))}
    monkeypatch.setattr(art.Path, 'read_bytes', lambda path: files[path])
    refused = 0
    for i in range(1000):
        path = list(files)[i % len(files)]
        whole = files[path]
        at = int(rng.integers(len(whole)))
        files[path] = (whole[:at] + bytes([whole[at] ^ int(rng.integers(1, 256))])
                       + whole[at + 1:])
        with pytest.raises(ArtifactError, match=path.name):
            load_artifact(folder)
        refused += 1
        files[path] = whole
    assert refused == 1000
    load_artifact(folder)


def test_what_is_loaded_is_what_was_checked(folder):
    loaded = load_artifact(folder)
    path = folder / 'encode.onnx'
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match='SHA-256'):
        loaded.graph('encode')


@pytest.mark.parametrize('name', ['manifest.json', 'encode.onnx', 'rollout.onnx'])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=f'{name}: No such file'):
        load_artifact(folder)


def test_a_folder_that_is_none():
    with pytest.raises(ArtifactError, match='No such file'):
        load_artifact('/nonexistent/artifact')


def test_a_truncated_graph_names_both_sizes(folder):
    path = folder / 'fold.onnx'
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    with pytest.raises(ArtifactError, match=f'{len(data) - 10} bytes, want {len(data)}'):
        load_artifact(folder)


@pytest.mark.parametrize('text,wanted', [
    (b'', 'want JSON'), (b'[]', 'want an object'), (b'{}', 'format None'),
    (b'[' * 100000, 'want JSON'), (b'\xff\xfe', 'want JSON')])
def test_manifests_that_are_none(folder, text, wanted):
    (folder / 'manifest.json').write_bytes(text)
    with pytest.raises(ArtifactError, match=wanted):
        load_artifact(folder)


def test_white_space_counts_too(folder):
    path = folder / 'manifest.json'
    path.write_bytes(path.read_bytes() + b' ')
    with pytest.raises(ArtifactError, match='canonical'):
        load_artifact(folder)


@pytest.mark.parametrize('changes,wanted', [
    ({'format': 'onnx'}, "format 'onnx', want 'wm_ros-artifact'"),
    ({'version': 1}, 'version 1, want 2'),
    ({'version': True}, 'version True, want 2'),
    ({'window_frames': 8}, 'window_frames 8, want 16'),
    ({'time_step_s': 1.0}, 'time_step_s 1.0, want 0.5'),
    ({'classes': ['car']}, 'classes'),
    ({'grid': {}}, 'grid'),
    ({'image': {'width': 320, 'height': 160, 'channels': 'rgb'}}, 'image .*320'),
    ({'channels': {**CHANNELS, 'latent_dim': 9}}, 'contract.fold.outputs'),
    ({'channels': {**CHANNELS, 'depth': 9}}, 'channels'),
    ({'channels': None}, 'channels None'),
    ({'precision': {'encode': 'i8'}}, 'precision'),
    ({'score_threshold': 1.5}, 'score_threshold 1.5, want a number from 0.0 to 1.0'),
    ({'observed_threshold': None}, 'no observed_threshold'),
    ({'existence': [1.0]}, r'existence \[1.0\], want 2 numbers'),
    ({'spread': [1, 1, 1, 1, 1, 0]}, 'spread .*want 6 numbers from'),
    ({'occupancy_weights': [True, 0.5]}, 'occupancy_weights'),
    ({'files': {}}, 'contract.encode names no file'),
    ({'contract': {}}, 'contract'),
])
def test_another_contract_is_refused(folder, changes, wanted):
    rewrite(folder, **changes)
    with pytest.raises(ArtifactError, match=wanted):
        load_artifact(folder)


@pytest.mark.parametrize('change', [
    lambda spec: spec['inputs'][0]['shape'].append(1),                      # a dimension more
    lambda spec: spec['inputs'][0].update(dtype='float32'),
    lambda spec: spec['outputs'].pop(),
    lambda spec: spec['outputs'].append(dict(spec['outputs'][0], name='more')),
    lambda spec: spec['outputs'][0].update(name='other')])
def test_other_tensors_are_refused(folder, change):
    contract = json.loads((folder / 'manifest.json').read_text())['contract']
    change(contract['encode'])
    rewrite(folder, contract=contract)
    with pytest.raises(ArtifactError, match='contract.encode'):
        load_artifact(folder)


@pytest.mark.parametrize('name', ['../encode.onnx', '/etc/passwd', '..', ''])
def test_files_outside_the_folder_are_refused(folder, name):
    manifest = json.loads((folder / 'manifest.json').read_text())
    rewrite(folder, files={**manifest['files'], name: manifest['files']['encode.onnx']})
    with pytest.raises(ArtifactError, match='want a plain name'):
        load_artifact(folder)


def test_the_writer_refuses_what_would_not_load(folder):
    with pytest.raises(ArtifactError, match='score_threshold 7'):
        write_manifest(folder, {'channels': CHANNELS, 'score_threshold': 7,
                                'observed_threshold': 0.0,
                                'precision': dict.fromkeys(('encode', 'fold', 'rollout'), 'f32')})


def test_other_choices_leave_the_graphs_alone(folder, tmp_path):
    old = load_artifact(folder)
    choices = Choices(0.45, -1.0, (2.5, 1.7), (1.1,) * 6, (0.5, 0.8))
    new_hash = art.rewrite(old, tmp_path / 'new', choices.to_json())
    new = load_artifact(tmp_path / 'new')
    assert new.hash == new_hash != old.hash
    assert new.choices == choices and old.choices == Choices()
    assert new.manifest['files'] == old.manifest['files']
    assert new.manifest['training'] == old.manifest['training']
    assert new.graph('encode') == old.graph('encode')
    with pytest.raises(ArtifactError, match='score_threshold 7'):
        art.rewrite(old, tmp_path / 'bad', {'score_threshold': 7.0})
