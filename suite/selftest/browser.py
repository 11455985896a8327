"""A real browser for the tests of pages: the machine's Chromium or Chrome, driven by playwright. Where either is
missing, the tests that need it are skipped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE = 390
"""Width of a small screen, in pixels."""
SCREENS = [(width, dark) for width in (1280, PHONE) for dark in (False, True)]


@dataclass(frozen=True)
class Browser:
    """A browser that was started."""

    handle: Any
    tabs: dict[bool, Any] = field(default_factory=dict)
    """One with JavaScript and one without: a new tab takes longer than a page. That of a failed visit is not kept."""

    @contextmanager
    def visit(
        self, page: Path, hash_: str = "", *, width: int = 1280, dark: bool = False, javascript: bool = True
    ) -> Iterator[Any]:
        """Open a file and, when the block ends, assert that it reported nothing to the console and loaded nothing."""
        tab = self.tabs.pop(javascript, None) or self._new_tab(javascript)
        loaded: list[str] = []
        messages: list[str] = []
        listeners = {
            "request": lambda request: loaded.append(request.url),
            "console": lambda message: messages.append(message.text),
            "pageerror": lambda error: messages.append(str(error)),
        }
        show_as(tab, width=width, dark=dark)
        for event, listener in listeners.items():
            tab.on(event, listener)
        tab.goto(f"{page.as_uri()}{hash_}")
        yield tab
        assert messages == []
        assert [url for url in loaded if not url.startswith(("data:", page.as_uri()))] == []
        for event, listener in listeners.items():
            tab.remove_listener(event, listener)
        tab.evaluate("localStorage.clear()")  # where a page keeps what was chosen
        tab.goto("about:blank")
        self.tabs[javascript] = tab

    def _new_tab(self, javascript: bool) -> Any:
        context = self.handle.new_context(java_script_enabled=javascript)
        context.set_default_timeout(120_000)  # a machine may be busy
        return context.new_page()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A browser, started once."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the extra `browser` is not installed")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser on this machine ({', '.join(NAMES)})")
    with playwright.sync_playwright() as driver:
        handle = driver.chromium.launch(executable_path=program, args=list(QUIET))
        yield Browser(handle)
        handle.close()


def show_as(tab: Any, *, width: int, dark: bool) -> None:
    """Give a tab another screen."""
    tab.set_viewport_size({"width": width, "height": 900})
    tab.emulate_media(color_scheme="dark" if dark else "light")


def overflow(tab: Any) -> int:
    """By how many pixels the page is wider than the screen."""
    wider: int = tab.evaluate("document.documentElement.scrollWidth - innerWidth")
    return wider


def visible(tab: Any, selector: str) -> list[str]:
    """The texts of the elements that can be seen."""
    texts: list[str] = tab.locator(f"{selector} >> visible=true").all_text_contents()
    return [text.strip() for text in texts]
