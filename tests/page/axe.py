"""Runs axe, the accessibility checker, on a page."""

from __future__ import annotations

from functools import cache

from playwright.sync_api import Page

from tests.page.node import WEB


@cache
def _source() -> str:
    return (WEB / "node_modules" / "axe-core" / "axe.min.js").read_text()


def violations(page: Page) -> list[str]:
    """Return what axe finds wrong: the rule, and the elements."""
    # Not by a script element, which the page's policy forbids; a test's evaluation is exempt.
    page.evaluate(_source() + "; window.axe = axe;")
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{each['id']}: {each['help']}: {[node['html'][:160] for node in each['nodes']][:4]}"
        for each in found["violations"]
    ]
