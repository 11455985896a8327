"""What was measured of a server under one load."""

from __future__ import annotations

from quantgate.records import Record


class Level(Record):
    """Requests of one concurrency. seconds: from the first request that counts to the last token. cpu: processor
    seconds of the client in this time. first, whole: of each request, seconds until its first and its last token."""

    concurrency: int
    tokens: int
    seconds: float
    cpu: float
    first: list[float]
    whole: list[float]

    @property
    def per_token(self) -> list[float]:
        """Time per output token of each request: (time of the last - time of the first) / (tokens - 1), seconds; the
        formula of `vllm bench serve`."""
        return [(end - begin) / (self.tokens - 1) for begin, end in zip(self.first, self.whole, strict=True)]

    @property
    def client_share(self) -> float:
        """Share of a core that the client took."""
        return self.cpu / self.seconds

    def good(self, first: float, per_token: float) -> int:
        """Return how many requests were answered within both limits (seconds)."""
        return sum(a <= first and b <= per_token for a, b in zip(self.first, self.per_token, strict=True))
