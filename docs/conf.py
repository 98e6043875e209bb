"""The site: lessons, pages and the library's docstrings as one HTML book (`make book`).

The pages are those of the repository, and their sources lie where they always did: the root of the
clone is Sphinx's source folder. Notebooks are shown as they were saved; none is run.
"""

import json
import re
import shutil
from pathlib import Path

import d2lres

ROOT = Path(__file__).parents[1]

project = "d2lres"
author = copyright = "the d2lres authors"
version = release = d2lres.__version__
language = "en"  # make book LANGUAGE=de: with the catalogues of docs/locale/de
locale_dirs = ["docs/locale"]
gettext_compact = False

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "numpydoc",
    "sphinx-mathjax-offline",
]
include_patterns = ["*.md", "docs/*.md", "notebooks/*.ipynb", "results/README.md"]
root_doc = "README"

nb_execution_mode = "off"
nb_ipywidgets_js = {}  # what would draw live bars comes from the network; the saved ones are text
nb_merge_streams = True
nb_render_markdown_format = "myst"  # with tables
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # as in the repository: results/README.md#speed-on-a-cpu

autodoc_member_order = "bysource"
viewcode_follow_imported_members = True
numpydoc_show_class_members = False

html_theme = "sphinx_book_theme"
html_title = "d2lres"
html_copy_source = True  # what "download" gets
html_show_sourcelink = html_show_search_summary = False  # a browser reads no other file to sum up
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "home_page_in_toc": True,
    "use_download_button": True,
    "show_toc_level": 2,
    "extra_footer": "",
}

CONTENTS = {
    "Reference": ["docs/glossary", "docs/api", "results/README", "docs/usage"],
    "In class": [
        *("docs/lessons", "docs/teaching", "docs/systems", "docs/data", "docs/gpu"),
        "docs/cluster",
    ],
}


def contents():
    """Return the table of contents, for the end of the first page."""
    lessons = [entry(path) for path in sorted(ROOT.glob("notebooks/*.ipynb"))]
    listed = sum(CONTENTS.values(), [])
    others = [f"docs/{path.stem}" for path in sorted(ROOT.glob("docs/*.md"))]
    behind = [page for page in [*others, "CONTRIBUTING", "SECURITY"] if page not in listed]
    for caption, pages in {"Lessons": lessons, **CONTENTS, "Behind it": behind}.items():
        yield f"```{{toctree}}\n:hidden:\n:caption: {caption}\n"
        yield from (page if "<" in page else f"/{page}" for page in pages)
        yield "```\n"


def entry(path):
    """Return a lesson's line of the contents: its number, its title and where it is."""
    title = json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"][0].strip("# \n")
    number = path.stem[:2].lstrip("0")  # the start page has none
    return f"{number} {title} </notebooks/{path.stem}>".lstrip()


def reference():
    """Return autodoc's directives for every public name, by the module that has it."""
    names = (ROOT / "d2lres" / "__init__.pyi").read_text(encoding="utf-8")
    module = None
    for line in re.findall(r"^from \.(\w.*) import (\w+) as", names, re.MULTILINE):
        if line[0] != module:
            module = line[0]
            yield f"## d2lres.{module}\n"
        value = getattr(d2lres, line[1])
        kind = "class" if isinstance(value, type) else "function" if callable(value) else "data"
        more = "   :no-value:\n" if kind == "data" else ""
        yield f"```{{eval-rst}}\n.. auto{kind}:: d2lres.{line[1]}\n{more}```\n"


def lesson(source):
    """Return a notebook: checks and code that only draws are folded, and pictures told in words."""
    notebook = json.loads(source)
    for cell in notebook["cells"]:
        metadata = cell["metadata"]
        tags = metadata.setdefault("tags", [])
        if metadata.get("jupyter", {}).get("source_hidden"):
            tags.append("hide-cell" if "check" in tags else "hide-input")
        if "alt" in metadata:
            metadata["mystnb"] = {"image": {"alt": metadata["alt"]}}
    return json.dumps(notebook)


def read(app, docname, source):
    if docname == root_doc:
        source[0] += "\n\n" + "\n".join(contents())
    elif docname == "docs/api":
        source[0] += "\n\n" + "\n".join(reference())
    elif docname.startswith("notebooks/"):
        source[0] = lesson(source[0])


def signature(app, what, name, value, options, arguments, returned):
    """Return what is in a name's brackets, with folders of the repository as they are called in it.

    (What autodoc has for this, ``autodoc_preserve_defaults``, fails at a wrapped function that has
    more arguments than the one in it: ``resnet18``.)
    """
    return re.sub(rf"\w*Path\('{re.escape(str(ROOT))}/", "Path('", arguments or ""), returned


def finished(app, exception):
    if exception is not None or app.builder.name != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):  # a browser gets no fonts ahead from a file
        whole = page.read_text(encoding="utf-8")
        page.write_text(re.sub(r'<link rel="preload".*?>', "", whole), encoding="utf-8")
    home = Path(app.outdir, f"{root_doc}.html")
    shutil.copy(home, home.with_name("index.html"))


def setup(app):
    app.connect("source-read", read)
    app.connect("autodoc-process-signature", signature)
    app.connect("build-finished", finished)
