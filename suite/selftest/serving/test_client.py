"""What is asked again, what is not, and what messages say."""

from __future__ import annotations

import pytest
from quantgate.errors import MeasurementError
from quantgate.serving.client import Client

from selftest.serving.fake import Fake, serving
from selftest.serving.models import Bigrams

BODY = {"prompt": [1, 2, 3], "n_predict": 2, "n_probs": 0}


def ask(defect: str, **options: object) -> tuple[Client, object]:
    with serving(Fake(Bigrams(), defect)) as url:
        client = Client(url, pause=0.001, **{"timeout": 5.0, **options})  # type: ignore[arg-type]
        return client, client.post("/completion", BODY)


@pytest.mark.parametrize(
    ("defect", "retries"), [("", 0), ("503 three times", 3), ("429 once", 1), ("connection lost", 1)]
)
def test_lost_connections_429_and_5xx_are_asked_again_and_counted(defect: str, retries: int) -> None:
    client, answer = ask(defect)
    assert isinstance(answer, dict)
    assert len(answer["tokens"]) == 2
    assert client.retries == retries


@pytest.mark.parametrize(
    ("defect", "says"),
    [
        ("503", "POST /completion: the server answers 503 Service Unavailable: .*, 4 times$"),
        ("400", "POST /completion: the server answers 400 Bad Request: [^,]*$"),
        ("no json", "POST /completion: the server's answer is not JSON: <html>a page</html>$"),
    ],
)
def test_other_answers_are_errors(defect: str, says: str) -> None:
    with pytest.raises(MeasurementError, match=says):
        ask(defect)


def test_a_server_that_hangs_is_given_up_without_another_try() -> None:
    with pytest.raises(MeasurementError, match=r"^POST /completion: no answer within 0.1 s$"):
        ask("hangs", timeout=0.1)


def test_nobody_at_the_address_is_asked_four_times() -> None:
    client = Client("http://127.0.0.1:9", pause=0.001)
    with pytest.raises(
        MeasurementError, match=r"the connection was lost \(ConnectionRefusedError\), 4 times"
    ):
        client.get("/props")
    assert client.why_not_ready("/health").startswith("nobody answers (ConnectionRefusedError: ")


def test_why_a_server_is_not_ready_is_said() -> None:
    with serving(Fake(Bigrams())) as url:
        assert not Client(url).why_not_ready("/health")
        assert Client(url).why_not_ready("/other") == "GET /other gives status 404"
        assert "WRONG_VERSION_NUMBER" in Client(url.replace("http", "https")).why_not_ready("/health")


def test_a_server_that_has_ended_is_not_asked_again() -> None:
    client = Client("http://127.0.0.1:9", pause=60, why_ended=lambda: "the server has ended")
    with pytest.raises(MeasurementError, match=r"\(ConnectionRefusedError\); the server has ended$"):
        client.get("/props")


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("", r"401 Unauthorized: .*; key_variable of the scheme has to name the variable with its key$"),
        (
            "another",
            r"401 Unauthorized: .*; the key in the variable that key_variable names is not this server's$",
        ),
    ],
)
def test_a_server_that_wants_another_key_is_an_error_with_a_remedy(key: str, says: str) -> None:
    with pytest.raises(MeasurementError, match=says):
        ask("401", key=key)


def test_a_key_is_sent_and_never_shown() -> None:
    with pytest.raises(MeasurementError) as caught:
        ask("400", key="a-secret")
    assert "Bearer ***" in str(caught.value)
    assert "a-secret" not in f"{caught.value} {Client('http://x', key='a-secret')}"


def test_a_stream_comes_event_by_event_with_its_time() -> None:
    with serving(Fake(Bigrams())) as url:
        events = list(
            Client(url).stream("/completion", {**BODY, "n_predict": 5, "stream": True, "ignore_eos": True})
        )
    times = [event.seconds for event in events]
    assert [len(event.value["tokens"]) for event in events] == [1, 1, 1, 1, 1, 0]
    assert times == sorted(times)
    assert times[4] >= 5 * 0.002, "the server pauses before each"


@pytest.mark.parametrize(("defect", "says"), [("400", "answers 400"), ("hangs", "sent nothing for 0.1 s")])
def test_a_stream_is_never_asked_again(defect: str, says: str) -> None:
    with serving(Fake(Bigrams(), defect)) as url:
        client = Client(url, timeout=0.1)
        with pytest.raises(MeasurementError, match=says):
            list(client.stream("/completion", {**BODY, "stream": True}))
    assert client.retries == 0
