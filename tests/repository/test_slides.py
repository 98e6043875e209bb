"""tools/slides.py: what stands on a slide, what is in the notes, and that a file needs no other."""

import re
import sys
from pathlib import Path
from textwrap import wrap

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import slides  # noqa: E402

LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def lines(piece):
    """Count the lines of a piece as one sees them, and not as tools/slides.py does."""
    soup = BeautifulSoup(piece.html, "html.parser")
    if rows := soup.find_all("tr"):
        return len(rows)
    if code := soup.find("pre"):
        return sum(bool(line.strip()) for line in code.text.splitlines())
    return len(wrap(" ".join(soup.text.split()), 90))


@each_lesson
def test_a_slide_has_one_figure_and_14_lines_at_most(path):
    made = slides.slides(nbformat.read(path, as_version=4))
    assert len(made) > 5
    for slide in made:
        assert sum(piece.html.count("<img") for piece in slide.pieces) <= 1, slide.title
        assert sum(map(lines, slide.pieces)) <= 14, slide.title


@pytest.mark.slow
@each_lesson
def test_nothing_is_lost(path):
    lesson = nbformat.read(path, as_version=4)
    made = slides.slides(lesson)
    everything = "".join(p.html for s in made for p in s.pieces) + "".join(
        note for slide in made for note in slide.notes
    )
    left_out = {"check", "exercise"}
    cells = [c for c in lesson.cells if not left_out & set(c.metadata.get("tags", []))]
    figures = [o for c in cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    assert everything.count("data:image/png;base64,") == len(figures)
    said = set(re.findall(r"\w+", BeautifulSoup(everything, "html.parser").get_text(" ")))
    said |= {word for slide in made for word in re.findall(r"\w+", slide.title)}
    for cell in cells:
        text = re.sub(r"\]\([^)]*\)|```\w*|<[^>]*>|\$.*?\$|\\n", " ", cell.source, flags=re.DOTALL)
        assert set(re.findall(r"\b[A-Za-z]{3,}\b", text)) <= said, cell.source


def small(*cells):
    return new_notebook(cells=[new_markdown_cell("# Title"), *cells])


def code(source, *outputs, **metadata):
    return new_code_cell(source, outputs=list(outputs), metadata=metadata)


FIGURE = new_output("display_data", {"image/png": "AAAA", "text/plain": "<Figure>"})


def shown(slide):
    return BeautifulSoup(" ".join(piece.html for piece in slide.pieces), "html.parser").text


def test_a_paragraph_is_shown_in_short_and_noted_in_full():
    made = slides.slides(small(new_markdown_cell("## Part\n\nOne. Two. A **bold** one. Four.")))
    assert [slide.title for slide in made] == ["Title", "Part"]
    assert shown(made[1]).strip() == "One. A bold one."
    assert "Two." in made[1].notes[0] and "Four." in made[1].notes[0]


def test_the_answer_is_not_on_the_slide_of_the_question():
    question = new_markdown_cell("**Before you run the next cell:** which is lower?")
    made = slides.slides(small(question, code("draw()", FIGURE)))
    assert ["<img" in "".join(p.html for p in s.pieces) for s in made] == [False, True]


def test_solutions_are_in_the_notes_and_checks_nowhere():
    solution = new_markdown_cell("<details><summary>Solution</summary>\n\n42\n\n</details>")
    exercise = [code("answer = None", tags=["exercise"]), code("size == 1", tags=["check"])]
    made = slides.slides(
        small(new_markdown_cell("## Exercises\n\n**1.** How?"), solution, *exercise)
    )
    assert "42" in made[-1].notes[0] and "42" not in shown(made[-1])
    assert "answer" not in str(made) and "size" not in str(made)


def test_long_code_goes_on_and_code_that_only_draws_is_noted():
    long = "\n".join(f"a{i} = {i}" for i in range(20))
    made = slides.slides(small(code(long)))
    assert [sum(map(lines, slide.pieces)) for slide in made] == [14, 6]
    (only,) = slides.slides(small(code(long, FIGURE)))
    assert only.pieces[0].is_figure and "a19" in only.notes[0]


def test_the_metadata_of_a_cell_decides():
    def kind(slide_type, text):
        return new_markdown_cell(text, metadata={"slideshow": {"slide_type": slide_type}})

    cells = kind("subslide", "Below."), kind("slide", "Beside."), kind("notes", "Said.")
    made = slides.slides(small(*cells, kind("skip", "Nothing.")))
    assert [(shown(s).strip(), s.is_first) for s in made[1:]] == [
        ("Below.", False),
        ("Beside.", True),
    ]
    assert "Said." in made[-1].notes[0] and "Nothing." not in str(made)


def test_the_questions_of_the_teacher_s_guide_are_in_the_notes():
    remark = slides.remarks(1)["A thought experiment"]
    made = slides.slides(nbformat.read(LESSONS[-1], as_version=4), {"Summary": remark})
    assert [slide.title for slide in made if slides.text(remark) in slide.notes] == ["Summary"]


@pytest.mark.slow
@each_lesson
def test_a_file_needs_no_other(path, tmp_path):
    if not (ROOT / ".site-packages" / "installed").exists():
        pytest.skip("`make slides` brings reveal.js")
    sys.path.append(str(ROOT / ".site-packages"))
    try:
        file = slides.write(path, tmp_path)
    finally:
        sys.path.pop()
    page = BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser")
    assert page.find_all("link") == [] and page.find_all("script", src=True) == []
    assert all(image["src"].startswith("data:") for image in page.find_all("img"))
    assert not any(re.search(r"@import|url\((?!data:)", s.text) for s in page.find_all("style"))
    assert "reveal.js 5" in "".join(map(str, page.find_all("script"))) and page.find(
        "aside", class_="notes"
    )
    linked = {link["href"] for link in page.find_all("a", href=True)}
    others = {f"{other.stem}.html" for other in LESSONS}
    assert {link for link in linked if not link.startswith("https://")} <= others
