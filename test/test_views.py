"""The views for RViz and Foxglove against the node: its topics, its message types, its frames."""

import ast
import json
from pathlib import Path

import pytest
import yaml

from wm_ros.ros.parameters import BY_NAME

ROOT = Path(__file__).resolve().parent.parent
NODE = '/world_model'
#: What each display of RViz, or panel of Foxglove, can show.
RVIZ = {'rviz_default_plugins/Map': 'OccupancyGrid',
        'rviz_default_plugins/MarkerArray': 'MarkerArray', 'rviz_default_plugins/Image': 'Image'}


def published():
    """Return the node's topics with their message types, read from the code that makes them."""
    found = {}
    for file in ('outputs.py', 'node.py'):
        for call in ast.walk(ast.parse((ROOT / 'wm_ros' / 'ros' / file).read_text())):
            if not isinstance(call, ast.Call) or len(call.args) < 2:
                continue
            name = getattr(call.func, 'id', getattr(call.func, 'attr', ''))
            if name in ('publisher', 'create_publisher') and isinstance(call.args[1], ast.Constant):
                topic = call.args[1].value.replace('~', NODE)
                found[topic if topic.startswith('/') else f'/{topic}'] = call.args[0].id
    return found


TOPICS = published()


def subscribed(camera, compressed):
    """Return the topics of one camera, as the node's defaults name them."""
    name = 'compressed_topic' if compressed else 'image_topic'
    return ['/' + BY_NAME[key].default.format(camera=camera)
            for key in (name, 'camera_info_topic')]


def test_the_code_was_read():
    assert {f'{NODE}/agents': 'AgentForecastArray', f'{NODE}/markers': 'MarkerArray',
            '/diagnostics': 'DiagnosticArray'}.items() <= TOPICS.items()


def displays(config):
    return [d for d in config['Visualization Manager']['Displays'] if 'Topic' in d]


def test_rviz_shows_topics_that_the_node_has():
    config = yaml.safe_load((ROOT / 'rviz' / 'world_model.rviz').read_text())
    shown = {}
    for display in displays(config):
        topic, qos = display['Topic']['Value'], display['Topic']
        if display['Class'] == 'rviz_default_plugins/Image':
            # image_transport's raw plugin: the base topic, of which the driver's message is one.
            assert topic in (subscribed('front', False)[0], subscribed('front', True)[0])
            assert qos['Reliability Policy'] == 'Best Effort'
            continue
        assert TOPICS[topic] == RVIZ[display['Class']]
        assert (qos['Reliability Policy'], qos['Durability Policy']) == ('Reliable', 'Volatile')
        shown[topic] = display['Name']
    assert shown.keys() == {t for t, kind in TOPICS.items() if kind in RVIZ.values()}
    fixed = config['Visualization Manager']['Global Options']['Fixed Frame']
    assert fixed == BY_NAME['base_frame'].default


def test_rviz_names_the_namespaces_of_the_markers():
    source = (ROOT / 'wm_ros' / 'ros' / 'markers.py').read_text()
    config = yaml.safe_load((ROOT / 'rviz' / 'world_model.rviz').read_text())
    markers = next(d for d in displays(config) if d['Class'].endswith('MarkerArray'))
    words = {node.value for node in ast.walk(ast.parse(source))
             if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert set(markers['Namespaces']) <= words


def foxglove():
    return json.loads((ROOT / 'foxglove' / 'world_model.json').read_text())


def test_foxglove_shows_topics_that_the_node_has():
    panels = foxglove()['configById']
    scene = next(panel for name, panel in panels.items() if name.startswith('3D!'))
    assert {TOPICS[topic] for topic in scene['topics']} == {'MarkerArray', 'OccupancyGrid'}
    assert scene['topics'].keys() == {t for t, kind in TOPICS.items()
                                      if kind in ('MarkerArray', 'OccupancyGrid')}
    assert scene['followTf'] == BY_NAME['base_frame'].default
    image = next(panel for name, panel in panels.items() if name.startswith('Image!'))['imageMode']
    assert [image['imageTopic'], image['calibrationTopic']] == subscribed('front', True)
    summary = next(p for name, p in panels.items() if name.startswith('DiagnosticSummary!'))
    assert TOPICS[summary['topicToRender']] == 'DiagnosticArray'
    assert summary['hardwareIdFilter'] == NODE


def test_foxglove_plots_fields_that_the_messages_have():
    from wm_ros.data.messages import typestore
    definitions = typestore().fielddefs
    plots = [p for name, p in foxglove()['configById'].items() if name.startswith('Plot!')]
    paths = [entry['value'] for panel in plots for entry in panel['paths']]
    assert paths
    for path in paths:
        topic, *fields = path.split('.')
        kind = f'wm_ros/msg/{TOPICS[topic]}'
        for field in fields:
            if field == 'length':
                break       # Foxglove's name for the size of an array
            known = dict(definitions[kind][1])
            assert field in known, f'{path}: {kind} has {", ".join(known)}'
            kind = known[field][1] if isinstance(known[field][1], str) else kind


@pytest.mark.parametrize('name', ['configById', 'layout', 'playbackConfig'])
def test_foxglove_layouts_hold_what_an_import_wants(name):
    assert name in foxglove()


def test_every_panel_of_the_layout_is_configured():
    def names(node):
        return [node] if isinstance(node, str) else [n for key in ('first', 'second')
                                                     for n in names(node[key])]
    assert sorted(names(foxglove()['layout'])) == sorted(foxglove()['configById'])
