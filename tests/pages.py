"""What goes wrong in a page of the browser, and what keeps a reader out of it."""


def listen(page, complaints):
    """Add to a list what goes wrong in a page from now on: errors, and files that are missed."""

    def miss(request):
        if request.failure != "net::ERR_ABORTED":  # as all that is under way when a page is left
            complaints.append(f"{request.url}: {request.failure}")

    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: said.type == "error" and complaints.append(said.text))
    page.on("requestfailed", miss)


def barriers(page, *scope):
    """Return what axe finds serious or critical: each as the rule that it breaks and the place."""
    from axe_playwright_python.sync_playwright import Axe

    return [
        (one["id"], node["html"][:200])
        for one in Axe().run(page, *scope).response["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
