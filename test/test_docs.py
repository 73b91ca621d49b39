"""What README and docs name is there: commands with their options, modules, files, links."""

import argparse
import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from wm_ros.cli.main import available

REPO = Path(__file__).resolve().parent.parent
PAGES = [REPO / 'README.md', *sorted((REPO / 'docs').glob('*.md'))]
pytestmark = pytest.mark.skipif(not PAGES[0].is_file(), reason='no README.md in this checkout')
#: Paths of which the docs give only a part.
ROOTS = ('', 'wm_ros', 'docs', 'test', 'requirements')
#: What commands and recorders write.
WRITTEN = {'manifest.json', 'choices.json', 'settings.json', 'summary.json', 'replay.json',
           'metadata.yaml'}


def blocks(page):
    """Return the lines of a page's code blocks, continued ones joined, without comments."""
    text = '\n'.join(re.findall(r'^```\w*\n(.*?)^```', page.read_text(), re.DOTALL | re.MULTILINE))
    lines = text.replace('\\\n', ' ').splitlines()
    return [line.split(' #')[0].strip() for line in lines]


def spans(page):
    """Return what a page has in backquotes outside of its code blocks."""
    prose = re.sub(r'^```.*?^```', '', page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [' '.join(span.split()) for span in re.findall(r'`([^`]+)`', prose)]


def parser_of(command):
    """Return the parser of a sub-command, which raises instead of leaving."""
    class Raising(argparse.ArgumentParser):
        def error(self, message):
            raise ValueError(message)

    parser = Raising(prog=command, allow_abbrev=False)
    importlib.import_module(f'wm_ros.cli.{command}').add_arguments(parser)
    return parser


def commands(texts):
    """Return command and arguments of every `wm_ros ...` among texts."""
    found = []
    for text in texts:
        text = re.sub(r'^torchrun .* -- wm_ros\.cli\.main ', 'wm_ros ', text)
        words = shlex.split(text) if text.startswith('wm_ros ') else []
        if len(words) > 1 and re.fullmatch('[a-z]+', words[1]):
            found.append((words[1], words[2:]))
    return found


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_commands_are_understood(page):
    for command, arguments in commands(blocks(page)):
        assert command in available(), command
        try:
            parser_of(command).parse_args(arguments)
        except ValueError as err:
            pytest.fail(f'wm_ros {command} {" ".join(arguments)}: {err}')


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_options_in_the_text_exist(page):
    for command, arguments in commands(spans(page)):
        assert command in available(), command
        known = parser_of(command)._option_string_actions
        assert [word for word in arguments if word.startswith('--') and word not in known] == [], (
            command)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_modules_and_targets_exist(page):
    makefile = (REPO / 'Makefile').read_text()
    for text in (*blocks(page), *spans(page)):
        for module in re.findall(r'python -m (wm_ros[\w.]*)', text):
            spec = importlib.util.find_spec(module)
            assert spec, module
            source = Path(spec.origin).read_text()
            for option in re.findall(r' (--[a-z][\w-]*)', text):
                assert f"'{option}'" in source, f'{module} {option}'
        for target in re.findall(r'^make ([a-z-]+)', text):
            assert re.search(rf'^{target}:', makefile, re.MULTILINE), target


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    for text in spans(page):
        if re.fullmatch(r'\w[\w./-]*\.(py|yaml|md|json|js|txt|rviz|xml)', text):
            known = any((REPO / root / text).exists() for root in ROOTS) or any(
                REPO.glob(f'wm_ros/*/{text}'))
            assert known or text in WRITTEN, f'{text}: no such file'


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r'\]\(([^)\s]+)\)', page.read_text()):
        if '://' in link:
            continue
        target, _, anchor = link.partition('#')
        path = (page.parent / target) if target else page
        assert path.exists(), link
        if anchor:
            assert anchor in anchors(path), link


def anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r'^#+ (.+)$', page.read_text(), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}
