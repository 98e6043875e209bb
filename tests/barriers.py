"""What keeps a reader out of a page, as axe finds it."""


def barriers(page, *scope):
    """Return what is serious or critical: each as the rule that it breaks and the place."""
    from axe_playwright_python.sync_playwright import Axe

    return [
        (one["id"], node["html"][:200])
        for one in Axe().run(page, *scope).response["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
