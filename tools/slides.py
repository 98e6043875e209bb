"""Make a file of slides from each lesson: `make slides` writes out/slides/NN_name.html.

The slides follow from the cells by rule, so that a lesson and its slides cannot disagree:

- a heading begins a slide, and one that is full goes on below it, under the same heading;
- of a paragraph the first sentence is shown, those with words in bold, and what leads on to a list;
  lists, tables, formulas and exercises are shown whole. The whole text, and every solution, is in
  the speaker notes;
- what answers a "Before you run the next cell" is on the next slide;
- code is shown with its output; a definition's imports, code of more than four lines that only
  draws, and a table that no slide holds are in the notes;
- checks, and the cells in which students answer, are left out;
- questions for the class come from the lesson's table in docs/teaching.md, into the notes.

Where that is not enough, a cell's own metadata decides (`slideshow.slide_type`, which JupyterLab
edits): `slide` or `subslide` begins a slide, `skip` leaves the cell out, `notes` puts its text into
the notes. Each file has all it needs inside, reveal.js too, and works without a network.
"""

import argparse
import html
import importlib.util
import re
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap

import jinja2
import nbformat
from nbconvert.filters import Highlight2HTML, markdown2html
from pygments.formatters import HtmlFormatter

ROOT = Path(__file__).parents[1]
MAX_LINES = 14
LINES_OF_A_FIGURE = 9  # the room that it takes
LINES_OF_A_FORMULA = 3
COLUMNS = 80  # of text in a line
ROWS = 9  # of a table, which are often two lines high


@dataclass
class Piece:
    """What is not divided: HTML, its height in lines, and whether it is a figure."""

    html: str
    lines: int
    is_figure: bool = False


@dataclass
class Slide:
    """Pieces under a heading; the first of a section has a place in the upper row."""

    title: str
    is_first: bool = True
    pieces: list[Piece] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def lines(self) -> int:
        return sum(piece.lines for piece in self.pieces)

    def has_room_for(self, piece: Piece) -> bool:
        if not self.pieces:
            return True
        if "<strong>Before you " in self.pieces[-1].html:  # let them think
            return False
        figures = piece.is_figure + sum(p.is_figure for p in self.pieces)
        return figures <= 1 and self.lines + piece.lines <= MAX_LINES


def slides(lesson: nbformat.NotebookNode, remarks: dict[str, str] | None = None) -> list[Slide]:
    """Return the slides of a lesson, with remarks in the notes of the sections they are for."""
    made = []
    for cell in lesson.cells:
        kind = cell.metadata.get("slideshow", {}).get("slide_type")
        if kind in ("slide", "subslide"):
            made.append(Slide(made[-1].title, kind == "slide"))
        if kind == "notes":
            made[-1].notes.append(text(cell.source))
        elif kind != "skip" and cell.cell_type == "markdown":
            of_text(cell.source, made, remarks or {})
        elif kind != "skip" and not {"check", "exercise"} & set(cell.metadata.get("tags", [])):
            of_code(cell, made)
    return [slide for slide in made if slide.pieces or slide.is_first]


def put(made, piece):
    """Add a piece to the last slide, or to a new one below it."""
    if not made[-1].has_room_for(piece):
        made.append(Slide(made[-1].title, is_first=False))
    made[-1].pieces.append(piece)


# ------------------------------------------------------------------ text


def of_text(source, made, remarks):
    for part in re.split(r"(?s)(<details.*?</details>)", source):
        if part.startswith("<details"):
            made[-1].notes.append(text(part))
        else:
            for block in blocks(part):
                of_block(block, made, remarks)


def of_block(block, made, remarks):
    if heading := re.match(r"(#+) (.*)", block):
        made.append(Slide(text(heading[2], inline=True), len(heading[1]) < 3))
        if remark := remarks.get(heading[2]):
            made[-1].notes.append(text(remark))
        return
    if re.match(r"\*\*\d+\.", block) and made[-1].pieces:  # the next exercise
        made.append(Slide(made[-1].title, is_first=False))
    shown = block if is_whole(block, made[-1]) else short(block)
    put(made, Piece(text(shown), height(shown)))
    if shown != block:
        made[-1].notes.append(text(block))


def blocks(source):
    """Return the parts of a text that may be on different slides."""
    for fenced, block in re.findall(r"(?ms)^```\w*\n(.*?)^```|(.+?)(?=^```|\Z)", source):
        if fenced:
            yield from (f"```python\n{part}\n```" for part in portions(fenced))
        else:
            yield from filter(None, blocks_of_text(block.strip()))


def blocks_of_text(source):
    """Return headings, paragraphs, items, and tables in parts."""
    for block in re.split(r"\n\s*\n(?![ ])|\n(?=[-*] )", source):
        if block.startswith("|"):
            head, rows = block.splitlines()[:2], block.splitlines()[2:]
            for start in range(0, len(rows), ROWS):
                yield "\n".join(head + rows[start : start + ROWS])
        else:
            yield from re.findall(r"#+ .*|(?s:(?!#+ ).+)", block)


def is_whole(block, slide):
    return slide.title == "Exercises" or re.match(r"[-*|`$]|\d+\. ", block)


def short(paragraph):
    """Return the first sentence of a paragraph, those with words in bold, and what leads on."""
    sentences = re.split(r"(?<=[.?!:]) +(?=[A-Z*`(])", " ".join(paragraph.split()))
    leads_on = [] if sentences[-1][-1] in ".?!)" else sentences[-1:]
    return " ".join(s for s in sentences if s in sentences[:1] + leads_on or "**" in s)


def height(source):
    """Return how many lines a text takes."""
    if source.startswith("$$"):
        return LINES_OF_A_FORMULA
    plain = re.sub(r"\]\([^)]*\)|^\|[-:| ]+$|```\w*", "", source, flags=re.MULTILINE)
    lines = plain.splitlines() if re.match(r"\||```", source) else [" ".join(plain.split())]
    return sum(len(wrap(line, COLUMNS)) for line in lines)


def text(source, inline=False):
    """Return Markdown as HTML, with links to the other lessons' slides and to the network only."""
    source = re.sub(r"\[([^\]]*)\]\((?!https?:)(?!\w+\.ipynb)[^)]*\)", r"\1", source)
    made = re.sub(r'href="(\w+)\.ipynb"', r'href="\1.html"', markdown2html(source))
    made = re.sub(r'<a class="anchor-link".*?</a>', "", made)
    return re.sub(r"^\s*<p>(.*)</p>\s*$", r"\1", made, flags=re.DOTALL) if inline else made


# ------------------------------------------------------------------ code and what comes out


def of_code(cell, made):
    highlighted, shown = Highlight2HTML(pygments_lexer="ipython3"), cell.source
    if "definition" in cell.metadata.get("tags", []):
        imports, *definition = re.split(r"\n\n\n(?=class |def |@)", shown, maxsplit=1)
        shown = definition[0] if definition else imports
    outputs = list(of_outputs(cell))
    only_draws = len(outputs) == 1 and outputs[0].is_figure
    if only_draws and num_lines(shown) > 4:
        shown = ""
    pieces = [Piece(highlighted(part), num_lines(part)) for part in portions(shown)] + outputs
    lines = sum(piece.lines for piece in pieces)
    if made[-1].pieces and lines <= MAX_LINES < made[-1].lines + lines:  # rather than on two
        made.append(Slide(made[-1].title, is_first=False))
    for piece in pieces:
        if piece.lines <= MAX_LINES:
            put(made, piece)
        else:
            made[-1].notes.append(piece.html)
    if shown != cell.source:
        made[-1].notes.append(highlighted(cell.source))


def num_lines(code):
    """Return how many lines are not empty."""
    return sum(bool(line.strip()) for line in code.splitlines())


def portions(source):
    """Return code in parts of a slide at most, divided where there is an empty line if possible."""
    part = ""
    for paragraph in re.split(r"(?<=\n)(?=\n)", source.rstrip()):
        if num_lines(part + paragraph) > MAX_LINES and part.strip():
            yield part.strip("\n")
            part = ""
        part += paragraph
        while num_lines(part) > MAX_LINES:
            lines = part.strip("\n").splitlines(keepends=True)
            yield "".join(lines[:MAX_LINES])
            part = "".join(lines[MAX_LINES:])
    if part.strip():
        yield part.strip("\n")


def of_outputs(cell):
    for output in cell.outputs:
        data = {"text/plain": output.get("text", "")} | output.get("data", {})
        if picture := data.get("image/png"):
            alt = cell.metadata.get("alt", "")
            image = f'<img src="data:image/png;base64,{picture.strip()}" alt="{html.escape(alt)}">'
            yield Piece(image, LINES_OF_A_FIGURE, is_figure=True)
        elif markdown := data.get("text/markdown"):
            yield from (Piece(text(block), height(block)) for block in blocks(markdown))
        elif table := data.get("text/html"):
            yield Piece(table, table.count("<tr"))
        else:
            for part in portions(data["text/plain"].strip()):
                lines = [line for row in part.splitlines() for line in wrap(row, 96)]
                yield Piece(f"<pre>{html.escape(chr(10).join(lines))}</pre>", len(lines))


# ------------------------------------------------------------------ files


def remarks(number: int) -> dict[str, str]:
    """Return what docs/teaching.md says to each section of a lesson."""
    guide = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
    part = re.search(rf"^## {number} .*\n((?:(?!## ).*\n)*)", guide, re.MULTILINE)
    rows = re.findall(r"^\| ([^|]+) \|.*\| ([^|]+) \|$", part[1] if part else "", re.MULTILINE)
    return dict(rows)


def package(name):
    """Return the folder of a package that is not imported."""
    return Path(importlib.util.find_spec(name).submodule_search_locations[0])


def write(path: Path, folder: Path) -> Path:
    """Write the slides of a lesson into a folder and return the file."""
    reveal = package("sphinx_revealjs") / "_static" / "revealjs"
    lesson = nbformat.read(path, as_version=4)
    made = slides(lesson, remarks(int(path.stem[:2])))
    math = package("sphinx-mathjax-offline") / "static" / "mathjax" / "tex-svg.js"
    has_math = any("$" in cell.source for cell in lesson.cells if cell.cell_type == "markdown")
    files = [reveal / "dist" / "reveal.js", reveal / "plugin" / "notes" / "notes.js"]
    template = jinja2.Template((ROOT / "tools" / "slides.html").read_text(encoding="utf-8"))
    page = template.render(
        title=made[0].title,
        slides=made,
        style=(reveal / "dist" / "reveal.css").read_text(encoding="utf-8"),
        colours=HtmlFormatter(style="default").get_style_defs(".highlight"),
        scripts=[script(file) for file in files + [math] * has_math],
    )
    file = folder / f"{path.stem}.html"
    file.write_text(page, encoding="utf-8")
    return file


def script(path):
    """Return JavaScript that may stand inside of a page."""
    return path.read_text(encoding="utf-8").replace("</script", "<\\/script")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "out" / "slides")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        print(write(path, folder))


if __name__ == "__main__":
    main()
