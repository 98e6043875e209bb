"""A tab of the browser with a lesson in JupyterLab: what a student does there, and sees."""

import json
import re
import urllib.request

import nbformat
from pages import barriers, listen

OURS = {
    "include": [[".jp-RenderedMarkdown"], [".jp-OutputArea-output"]],
    # JupyterLab's: the sign at each heading, and pictures, whose `alt` it does not hand on
    "exclude": [[".jp-InternalAnchorLink"], [".jp-RenderedImage img"]],
}
# also JupyterLab's: what is too wide is scrolled, but the keyboard does not reach it
RULES = {"scrollable-region-focusable": {"enabled": False}}


class Tab:
    def __init__(self, chromium, server, lessons):
        self.chromium, self.server, self.lessons = chromium, server, lessons
        self.page, self.complaints = None, []

    def open(self, lesson=None):
        """Open a lesson by its name without .ipynb, or what opens by itself."""
        self.page = page = self.chromium.new_page()
        page.set_default_timeout(60_000)
        listen(page, self.complaints)
        page.on("request", self._watch)
        place = f"lab/tree/lessons/{lesson}.ipynb?reset&" if lesson else "?"
        page.goto(f"{self.server['url']}{place}token={self.server['token']}")
        name = lesson or re.search(r"lessons/(.*)\.ipynb", page.url)[1]
        self.cell(len(self.read(name).cells) - 1).wait_for(state="attached")
        self.wait_until_idle()

    def close(self):
        if self.page and not self.page.is_closed():
            self.page.close()

    def _watch(self, request):
        if not re.match(f"{self.server['url']}|data:|blob:", request.url):
            self.complaints.append(f"{request.url} is not on this machine")

    # what a student does

    def menu(self, *items):
        self.page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{items[0]}$")).click()
        for item in items[1:]:
            label = self.page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{item}$"))
            label.hover()
        label.click()

    def run_all(self):
        self.menu("Run", "Run All Cells")
        self.page.locator(".jp-InputPrompt", has_text="[*]:").first.wait_for()

    def stop(self):
        self.page.locator(".jp-Toolbar-item[data-jp-item-name=interrupt]").click()

    def write(self, index, code):
        """Write the code of a cell anew, and run it."""
        self.cell(index).locator(".cm-content").click()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(code)
        self.page.keyboard.press("Shift+Enter")
        self.wait_until_idle()
        return self.shown(index)

    def save(self):
        self.page.locator(".jp-Notebook").first.focus()
        self.page.keyboard.press("Control+S")
        self.page.locator(".lm-TabBar-tab.jp-mod-dirty").wait_for(state="detached")

    # what a student sees

    def cell(self, index):
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index)

    def shown(self, index):
        """Return the text that a cell shows."""
        return "\n".join(self.cell(index).locator(".jp-OutputArea-output").all_inner_texts())

    def wait_until_idle(self):
        """Wait until the kernel is there, and has no more to do."""
        idle = self.page.locator("#jp-bottom-panel", has_text="Python of this course | Idle")
        idle.wait_for(timeout=300_000)
        running = self.page.locator(".jp-InputPrompt", has_text="[*]:")
        running.first.wait_for(state="detached", timeout=300_000)

    def barriers(self):
        """Return what in the lesson keeps a reader out."""
        # JupyterLab leaves out of the page what is not in sight, and axe then passes over it
        self.page.add_style_tag(content="* { content-visibility: visible !important }")
        return barriers(self.page, OURS, {"rules": RULES})

    # what is there

    def read(self, lesson):
        return nbformat.read(self.lessons / f"{lesson}.ipynb", as_version=4)

    def end_kernels(self):
        """End all kernels, as when the computer is switched off."""
        for session in self._ask("sessions"):
            self._ask(f"sessions/{session['id']}", "DELETE")

    def _ask(self, what, method="GET"):
        header = {"Authorization": f"token {self.server['token']}"}
        request = urllib.request.Request(
            f"{self.server['url']}api/{what}", None, header, method=method
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            return json.loads(answer.read() or "null")
