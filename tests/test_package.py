"""The wheel and the sdist have what an installation needs, and say what they are."""

from __future__ import annotations

import hashlib
import importlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path
from types import ModuleType

import pytest
from markdown_it import MarkdownIt

from mux import __version__, documents

ROOT = Path(__file__).parents[1]


def _script(name: str) -> ModuleType:
    """Return a script of `contrib/release`."""
    sys.path.insert(0, str(ROOT / "contrib" / "release"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


metadata, release = _script("metadata"), _script("release")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a wheel and an sdist of this tree."""
    place = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(place)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return place


def _described() -> str:
    """Return the long description of this tree."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return str(metadata.description(readme, documents.HOMEPAGE, f"v{__version__}"))


def _wheel(built: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(next(built.glob("*.whl")))


def _metadata(wheel: zipfile.ZipFile) -> Message:
    name = next(each for each in wheel.namelist() if each.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


def test_the_wheel_has_the_licence_the_types_and_the_service_files(built: Path) -> None:
    names = set(_wheel(built).namelist())
    assert {"mux/py.typed", "mux/contrib/systemd/appmux.service"} <= names
    assert {"mux/contrib/systemd/appmux.socket", "mux/contrib/launchd/dev.appmux.plist"} <= names
    assert [each for each in names if each.endswith(".dist-info/licenses/LICENSE")]
    assert not [each for each in names if each.startswith("tests/")]


def test_the_wheel_and_the_sdist_carry_the_page_built(built: Path) -> None:
    if not (ROOT / "mux" / "web" / "static" / "index.html").is_file():
        pytest.skip("the page isn't built: run `make page` where npm is reached")
    names = set(_wheel(built).namelist())
    assert {"mux/web/static/index.html", "mux/web/static/worker.js"} <= names
    shell = (ROOT / "mux" / "web" / "static" / "index.html").read_text()
    begun_with = set(re.findall(r'"/?(assets/[^"]+)"', shell))
    assert begun_with
    assert {f"mux/web/static/{each}" for each in begun_with} <= names
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        listed = [each.partition("/")[2] for each in archive.getnames()]
    assert "mux/web/static/index.html" in listed
    assert "web/src/main.tsx" in listed
    assert not [each for each in listed if "node_modules" in each]


def test_the_metadata_say_what_it_is(built: Path) -> None:
    metadata = _metadata(_wheel(built))
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Author"] == "appmux contributors"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload() == _described()


def test_a_plain_installation_brings_no_codex_and_no_tools_of_developers(built: Path) -> None:
    needed = _metadata(_wheel(built)).get_all("Requires-Dist") or []
    plain = [each for each in needed if "extra ==" not in each]
    assert plain
    assert not [each for each in plain if each.startswith(("openai-codex", "pytest", "hatchling"))]


def test_the_sdist_makes_the_same_wheel(built: Path, tmp_path: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    source = next(tmp_path.iterdir())
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    again = zipfile.ZipFile(next(tmp_path.glob("*.whl")))
    assert set(again.namelist()) == set(_wheel(built).namelist())


def test_the_projects_address_stands_in_one_place(built: Path, tmp_path: Path) -> None:
    """Filled in there, it is in the metadata and in what commands print; empty, it is nowhere."""
    assert (_metadata(_wheel(built)).get_all("Project-URL") or []) == [
        f"{name}, {url}" for name, url in metadata.urls(documents.HOMEPAGE).items()
    ]
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    source = next(tmp_path.iterdir())
    file, home = source / "mux" / "documents.py", "https://code.example/ada/appmux"
    file.write_text(metadata.CONSTANT.sub(f'HOMEPAGE: Final = "{home}"', file.read_text()))
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    urls = _metadata(zipfile.ZipFile(next(tmp_path.glob("*.whl")))).get_all("Project-URL")
    assert urls == [f"{name}, {url}" for name, url in metadata.urls(home).items()]
    assert f"Homepage, {home}" in urls


@pytest.mark.parametrize("home", ["", "https://code.example/ada/appmux"])
def test_the_long_description_shows_what_an_index_of_packages_has(home: str) -> None:
    """Its links and pictures lead somewhere without our files beside it; the program stays."""
    readme = (ROOT / "README.md").read_text()
    shown = metadata.description(readme, home, f"v{__version__}")
    there = {target for target in _targets(readme) if "://" not in target}
    assert {"docs/demo.svg", "docs/tutorial.md", "CHANGELOG.md"} <= there
    pictures = {target for target in there if target.endswith((".svg", ".png"))}
    expected = {f"{home}/raw/v{__version__}/{target}" for target in pictures}
    expected |= {f"{home}/blob/v{__version__}/{target}" for target in there - pictures}
    assert _targets(shown) - _targets(readme) == (expected if home else set())
    assert _targets(shown) & there == set()
    assert ("![" in shown, "<img" in shown) == (bool(home), bool(home))
    assert ("tutorial (`docs/tutorial.md`)" in shown) == (not home)
    assert ("The same, from a phone" in shown) == bool(home)  # a sentence that announces pictures
    [program] = re.findall(r"```python\n.*?```", readme, re.DOTALL)
    assert program in shown
    assert re.findall("^## .*", shown, re.MULTILINE) == re.findall("^## .*", readme, re.MULTILINE)


def _targets(text: str) -> set[str]:
    """Return where links and pictures lead, as a reader of Markdown understands them."""
    found = set()
    for block in MarkdownIt().enable("table").parse(text):
        for token in (block, *(block.children or ())):
            found |= {token.attrs[name] for name in ("href", "src") if name in token.attrs}
            found |= set(re.findall(r"(?:src|href)=\"([^\"]*)\"", token.content))
    return {str(each) for each in found}


def test_other_packagers_files_are_whole(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "DIST", built)
    release._fill_in(__version__, "https://code.example/ada/appmux")
    recipe, formula = (built / "PKGBUILD").read_text(), (built / "appmux.rb").read_text()
    assert "@" not in recipe + formula.replace("python@3.13", "")
    digest = hashlib.sha256(next(built.glob("*.tar.gz")).read_bytes()).hexdigest()
    for text in (recipe, formula):
        assert digest in text
        assert f"https://code.example/ada/appmux/releases/download/v{__version__}/" in text
    shell = ["bash", "-c", f'. {built / "PKGBUILD"}; echo "$pkgver"; echo "${{depends[@]}}"']
    told = subprocess.run(shell, check=True, capture_output=True, text=True).stdout.splitlines()
    assert told[0] == __version__
    assert {"python-trio", "python-httpx", "python-h2", "python-pyjwt"} <= set(told[1].split())
    assert "zstd" not in told[1]
    if shutil.which("ruby"):
        subprocess.run(["ruby", "-c", str(built / "appmux.rb")], check=True, capture_output=True)


def test_what_commands_say_of_documents_is_there() -> None:
    """Each page that is named exists, and none is named but by `documents.page`."""
    named, loose = set(), []
    for file in (ROOT / "mux").rglob("*.py"):
        text = file.read_text()
        named |= set(re.findall(r"documents\.page\([\"'](\w+)[\"']", text))
        loose += re.findall(r"(?<!`)\bdocs/\w+\.md", text)
    assert named
    assert [each for each in named if not (ROOT / "docs" / f"{each}.md").is_file()] == []
    assert loose == []
    assert documents.page("push", "") == "docs/push.md"
    linked = documents.page("push", "https://code.example/ada/appmux")
    assert linked == f"https://code.example/ada/appmux/blob/v{__version__}/docs/push.md"


def test_the_issue_forms_ask_for_what_is_needed() -> None:
    forms = ROOT / ".github" / "ISSUE_TEMPLATE"
    if not forms.exists():
        pytest.skip("an unpacked sdist has no issue forms")
    fault = (forms / "fault.yml").read_text()
    assert "appmux doctor" in fault
    assert "SECURITY.md" in fault
