"""Programming tasks: prompts of lm-evaluation-harness, and the tests that the answers have to pass.

Only the text of the harness's files is read: their code loads a package that runs programs without any protection.
"""

from __future__ import annotations

from typing import Any

from quantgate.errors import InputError
from quantgate.files import hash_of
from quantgate.items import Program, Programs
from quantgate.supply.documents import load_rows, task_manager
from quantgate.supply.encoder import Encoder
from quantgate.supply.sources import task_file
from quantgate.supply.tasks import check_count


def make_programs(name: str, spec: dict[str, Any], encoder: Encoder) -> Programs:
    """Return the first items of a task of output type generate_until whose answers are programs, without examples.

    HumanEval: the answer continues the prompt, which is part of the program. MBPP: the answer is the program.
    """
    from lm_eval.utils import apply_template

    config = task_manager(task_file(name).parent).task_index[name].cfg  # functions as text
    if not config.get("unsafe_code"):
        raise InputError(
            f"task {name!r} does not ask for programs; `code` takes tasks such as humaneval and mbpp"
        )
    documents = list(load_rows(spec))[: spec["items"]]
    check_count(name, len(documents), spec["items"])
    begin = [] if encoder.bos is None else [encoder.bos]
    items = []
    for document in documents:
        prompt = apply_template(config["doc_to_text"], document)
        items.append(
            Program(
                prompt=[*begin, *encoder.encode(prompt)],
                begin=prompt if document.get("prompt") == prompt else "",
                test=apply_template(config["doc_to_target"], document),
            )
        )
    return Programs(
        name=name,
        version=str(config["metadata"]["version"]),
        stops=config["generation_kwargs"]["until"],
        ends=encoder.ends,
        items=items,
        data_hash=hash_of(documents),
        token_hash=hash_of([[item.prompt for item in items], encoder.ends]),
    )
