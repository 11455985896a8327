"""What the tests of pages share: a run with a chart, and a page taken apart."""

from __future__ import annotations

from html.parser import HTMLParser

from quantgate.records import Status, Verdict
from quantgate.report.page.frontier import Frontier, frontiers

from selftest.report.examples import example, verdict

VOID = {"meta", "link", "input", "br"}
HOSTILE = "</script></style><script>window.hacked=1</script><img src=x onerror='hacked=2'>\"'&{{ 7*7 }}"
"""What a name, a log or a reason may contain."""


def scheme(name: str, megabytes: float, kl: float | None, speed: float | None = None) -> list[Verdict]:
    """A cell with what the chart shows; without `kl`, a reference."""
    cell = f"m/{name}"
    verdicts = [
        verdict(cell, "memory/weight_bytes", measured=megabytes * 1e6, unit="bytes"),
        verdict(cell, "perplexity", measured=20.0 + (kl or 0.0)),
    ]
    if kl is not None:
        verdicts.append(verdict(cell, "divergence/kl_mean", measured=kl, unit="nats"))
    if speed is not None:
        verdicts.append(verdict(cell, "throughput/decode", measured=speed, unit="tokens/s"))
    return verdicts


def charted() -> list[Verdict]:
    """The run with one of each status, and a model with enough cells for a chart."""
    return [
        *example(),
        *scheme("b/F16", 270, None, 90),
        *scheme("b/Q8_0", 140, 0.004, 108),
        *scheme("b/Q4_0", 90, 0.3, 195),
        *scheme("b/Q5_1", 150, 0.12, 100),  # beaten by Q8_0
        *scheme("c/nf4", 175, 0.26),
    ]


def chart() -> Frontier:
    """The chart of that model."""
    (one,) = (each for each in frontiers(charted()) if each.model == "m")
    return one


def hostile() -> list[Verdict]:
    """Verdicts whose every text contains markup."""
    bad = verdict(
        f"m/b/{HOSTILE}", f"perplexity/{HOSTILE}", Status.REGRESSION, measured=2.0, baseline=1.0, change=1.0
    )
    worse = bad.model_copy(
        update={"text": HOSTILE, "environment": [HOSTILE], "tolerance": 0.1, "unit": HOSTILE}
    )
    error = verdict(
        f"n/b/{HOSTILE}", "memory/x", Status.ERROR, text=f"{HOSTILE}\n{HOSTILE}", reproduce=HOSTILE
    )
    return [worse, error, *(v for n in range(3) for v in scheme(f"b/{HOSTILE}{n}", 100 + n, 0.1))]


class Page(HTMLParser):
    """The elements and the texts of a page; asserts that what begins also ends."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of the elements of one name."""
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        """All that is to be read, with single spaces."""
        return " ".join(" ".join(self.texts).split())
