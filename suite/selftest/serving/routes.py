"""What the fake server answers as vLLM, as SGLang, and as others that echo log-probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selftest.serving.fake import Fake


def scored(fake: Fake, ids: list[int], top: int) -> list[tuple[float, list[tuple[int, float]]]]:
    """Of each token but the first its log-probability, and the likeliest of its place."""
    if fake.defect == "echo ignored":
        return []
    rows = fake.rows(ids)
    return [(float(row[token]), fake.top(row, top)) for row, token in zip(rows[:-1], ids[1:], strict=True)]


def vllm(fake: Fake, body: dict[str, Any]) -> dict[str, Any]:
    ids = fake.seen(list(body["prompt"]))
    choice: dict[str, Any] = {"token_ids": fake.greedy(ids, body["max_tokens"]), "prompt_token_ids": ids}
    if top := body.get("prompt_logprobs"):
        places = [
            {str(one): {"logprob": v} for one, v in [(token, value), *likely]}
            for token, (value, likely) in zip(ids[1:], scored(fake, ids, top), strict=False)
        ]
        choice["prompt_logprobs"] = [None, *places] if places else None
    return {"choices": [choice], "usage": {"prompt_tokens": len(ids)}}


def sglang(fake: Fake, body: dict[str, Any]) -> dict[str, Any]:
    ids = fake.seen(list(body["input_ids"]))
    about: dict[str, Any] = {"prompt_tokens": len(ids), "cached_tokens": 0}
    if body.get("return_logprob"):
        answers = scored(fake, ids, body["top_logprobs_num"])
        values = [[value, token, None] for token, (value, _) in zip(ids[1:], answers, strict=False)]
        about["input_token_logprobs"] = [[None, ids[0], None], *values]
        tops = [[[value, token, None] for token, value in likely] for _, likely in answers]
        about["input_top_logprobs"] = [None, *tops]
    written = fake.greedy(ids, body["sampling_params"]["max_new_tokens"])
    return {"output_ids": written, "meta_info": about}


def openai(fake: Fake, body: dict[str, Any]) -> dict[str, Any]:
    """Tokens are named by their texts; what is written comes after the prompt."""
    ids = fake.seen(list(body["prompt"]))
    written = fake.greedy(ids, body["max_tokens"], stop=not body.get("ignore_eos"))
    rows = fake.rows([*ids, *written])
    texts = [fake.model.pieces[token].decode(errors="replace") for token in (*ids, *written)]
    values: list[float | None] = [None]
    tops: list[dict[str, float] | None] = [None]
    for row, token, text in zip(rows[:-1], (*ids, *written)[1:], texts[1:], strict=True):
        values.append(float(row[token]))
        tops.append({text: float(row[token])})
        for one, value in fake.top(row, body["logprobs"]):
            tops[-1] = {**(tops[-1] or {}), fake.model.pieces[one].decode(errors="replace"): value}
    begin = 0 if body.get("echo") and fake.defect != "echo ignored" else len(ids)
    lists = {"tokens": texts[begin:], "token_logprobs": values[begin:], "top_logprobs": tops[begin:]}
    return {
        "choices": [{"text": "", "logprobs": lists}],
        "usage": {"prompt_tokens": len(ids)},
        "tokens": written,
    }
