"""The site that `make book` makes, and the guide and the words on it."""

import os
import re
import subprocess
import sys
import types
from pathlib import Path
from urllib.parse import unquote, urldefrag

import nbformat
import pytest
from bs4 import BeautifulSoup
from pages import barriers, listen

import d2lres

ROOT = Path(__file__).parents[2]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
GUIDE = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")


def build(folder, *options, root=ROOT):
    """Make the site, as the Makefile does."""
    if not (ROOT / ".site-packages" / "installed").exists():
        pytest.skip("`make book` brings Sphinx")
    environment = os.environ | {"PYTHONPATH": str(ROOT / ".site-packages")}
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "--quiet", "-c", "docs"]
    command += ["-d", folder / "doctrees", *options, ".", folder / "book"]
    ran = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return folder / "book"


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The pages of the site by their path."""
    folder = build(tmp_path_factory.mktemp("site"))
    pages = {
        path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in folder.rglob("*.html")
        if "_static" not in path.parts
    }
    return folder, pages


@pytest.mark.slow
def test_nothing_is_loaded_from_the_network(book):
    folder, pages = book
    for path, page in pages.items():
        loaded = [tag.get("src") for tag in page.find_all(src=True)]
        loaded += [tag["href"] for tag in page.find_all("link", href=True)]
        assert [url for url in loaded if "//" in url and not url.startswith("data:")] == [], path
        inline = "".join(tag.text for tag in page.find_all(["script", "style"]))
        assert "http" not in re.sub(r'"@context".*', "", inline), path
    for path in folder.rglob("*.css"):
        urls = re.findall(r"url\(['\"]?(.*?)['\"]?\)", path.read_text(encoding="utf-8"))
        assert [url for url in urls if "//" in url and not url.startswith("data:")] == [], path
        local = [urldefrag(url)[0].partition("?")[0] for url in urls if not url.startswith("data:")]
        assert [url for url in local if url and not (path.parent / url).exists()] == [], path


@pytest.mark.slow
def test_no_page_names_the_machine_that_made_it(book):
    named = {str(ROOT), str(Path.home())} - {"/"}  # the home of a user without one
    for path, page in book[1].items():
        assert [name for name in named if f"{name}/" in page.text] == [], path


@pytest.mark.slow
def test_every_link_leads_somewhere(book):
    _, pages = book
    anchors = {
        path: {tag.get("id") for tag in page.find_all(id=True)} | {"", "main-content"}
        for path, page in pages.items()
    }
    num_links = 0
    for path, page in pages.items():
        for link in {tag["href"] for tag in page.find_all("a", href=True)}:
            url, anchor = urldefrag(link)
            if re.match(r"(https|mailto):", url):
                continue
            assert ":" not in url, (path, link)
            target = (path.parent / unquote(url)).resolve() if url else path
            assert target.exists(), (path, link)
            assert target not in pages or unquote(anchor) in anchors[target], (path, link)
            num_links += 1
    assert num_links > 1000


def number_of(mime, cell):
    return sum(mime in output.get("data", {}) for output in cell.get("outputs", []))


@pytest.mark.slow
def test_every_lesson_is_there_folded_and_with_its_notebook(book):
    folder, pages = book
    home = pages[folder / "index.html"]
    for path in LESSONS:
        page = pages[folder / "notebooks" / f"{path.stem}.html"]
        lesson = nbformat.read(path, as_version=4)
        hidden = [c for c in lesson.cells if c.metadata.get("jupyter", {}).get("source_hidden")]
        assert len(page.select("div.cell > details.hide")) == len(hidden), path
        download = page.find("a", href=re.compile(r"_sources/.*\.ipynb$"))
        assert (folder / "notebooks" / download["href"]).read_bytes() == path.read_bytes()
        told = {
            c.metadata["alt"]
            for c in lesson.cells
            if number_of("image/png", c) and "alt" in c.metadata
        }
        assert {i.get("alt") for i in page.select("div.cell_output img")} == told, path
        assert home.find("a", href=f"notebooks/{path.stem}.html"), path
        kinds = ("text/markdown", "text/html")
        tables = sum(number_of(kind, c) for c in lesson.cells for kind in kinds)
        assert len(page.select("div.cell_output table")) == tables, path


@pytest.fixture
def tab(chromium):
    """A tab of the browser; in the end, nothing may have gone wrong in it."""
    page, complaints = chromium.new_page(), []
    listen(page, complaints)
    yield page
    page.close()
    assert complaints == []


WRONG = """() => {
    const zoom = image => image.width / image.naturalWidth / (image.height / image.naturalHeight);
    const is_wrong = image => !(Math.abs(zoom(image) - 1) < 0.02);
    const pictures = [...document.querySelectorAll(".cell_output img")].filter(is_wrong);
    const is_wide = document.documentElement.scrollWidth > window.innerWidth;
    return [...(is_wide ? ["wide"] : []), ...pictures.map(image => image.alt)];
}"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390, 320])
def test_a_page_fits_the_screen_of_a_laptop_and_of_a_phone(width, book, tab):
    """No picture is squeezed, folded away or missing, and nothing is beside the screen."""
    tab.set_viewport_size({"width": width, "height": 720})
    for path in book[1]:
        tab.goto(path.as_uri())
        assert tab.evaluate(WRONG) == [], path


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["index", "notebooks/02_resnet18", "docs/usage", "results/README"])
def test_a_page_can_be_read_by_all(name, scheme, book, tab):
    tab.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    tab.goto((book[0] / f"{name}.html").as_uri())
    assert barriers(tab, None, {"preload": False}) == []  # from a file nothing can be fetched again


@pytest.mark.slow
def test_every_public_name_has_its_docstring(book):
    folder, pages = book
    page = pages[folder / "docs" / "api.html"]
    modules = {n for n in d2lres.__all__ if isinstance(getattr(d2lres, n), types.ModuleType)}
    described = {tag["id"].removeprefix("d2lres.") for tag in page.select("dt[id^='d2lres.']")}
    assert described == set(d2lres.__all__) - modules - {"__version__"}
    assert "Parameters" in page.find(id="d2lres.train").find_parent("dl").text


@pytest.mark.slow
def test_another_language_comes_from_its_catalogue(tmp_path):
    (tmp_path / "docs").mkdir()
    for name in ("conf.py", "_static", "glossary.md", "api.md"):
        os.symlink(ROOT / "docs" / name, tmp_path / "docs" / name)
    (tmp_path / "README.md").write_text("# The course\n\nRead this.\n", encoding="utf-8")
    catalogue = tmp_path / "docs" / "locale" / "de" / "LC_MESSAGES" / "README.po"
    catalogue.parent.mkdir(parents=True)
    header = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\n'
    catalogue.write_text(header + 'msgid "Read this."\nmsgstr "Lies das."\n', encoding="utf-8")
    few = ["include_patterns=README.md", "suppress_warnings=toc.excluded,toc.not_readable"]
    options = [word for setting in ("language=de", *few) for word in ("-D", setting)]
    page = build(tmp_path, *options, root=tmp_path) / "README.html"
    assert "Lies das." in page.read_text(encoding="utf-8")


# ------------------------------------------------------------------ the teacher's guide


def sections(path):
    """Return how long it takes to read each section of a lesson, as in `test_readme.py`."""
    found, title = {}, None
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            folded = cell.metadata.get("jupyter", {}).get("source_hidden", False)
            lines = sum(bool(line.strip()) and not folded for line in cell.source.splitlines())
            found[title] = found.get(title, 0) + lines * 8 / 60
        elif not cell.source.startswith("<details"):
            for part in re.split(r"^(?=## )", cell.source, flags=re.MULTILINE):
                heading = re.match(r"## (.*)", part)
                title = heading[1] if heading else title
                found[title] = found.get(title, 0) + len(part.split()) / 200
    return {title: m for title, m in found.items() if title not in (None, "Summary", "Exercises")}


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_the_guide_has_every_section_with_its_minutes(path):
    number = int(path.stem[:2])
    if number == 0:
        pytest.skip("the start page is no lesson")
    part = re.search(rf"^## {number} (.*)\n((?:(?!## ).*\n)*)", GUIDE, re.MULTILINE)
    assert part and nbformat.read(path, as_version=4).cells[0].source.startswith(f"# {part[1]}\n")
    said = {t: int(m) for t, m in re.findall(r"^\| (.+?) \| (\d+) \|", part[2], re.MULTILINE)}
    assert list(said) == list(sections(path))
    assert said == {t: pytest.approx(m, rel=0.3, abs=2) for t, m in sections(path).items()}
    left_out = re.findall(r"\*([A-Z][^*]+)\*", part[2].partition("\n|")[0])
    assert all(any(title.startswith(name) for title in said) or name in path.read_text("utf-8")
               for name in left_out)  # fmt: skip


def test_the_words_are_in_order():
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = re.findall(r"^\| ([^|]+) \|", glossary, re.MULTILINE)[1:]
    assert words == sorted(words) and len(words) > 30
