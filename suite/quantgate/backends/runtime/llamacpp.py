"""llama.cpp, through the low-level calls of llama-cpp-python (the high-level class copies all logits)."""

from __future__ import annotations

import ctypes
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp._ggml import libggml
from numpy.typing import NDArray

from quantgate.backends.base import Rounding, Sizes, Stops, Weights, lengths_in
from quantgate.backends.runtime.gguf import in_scheme, learns_positions, linear_tensors, other_types
from quantgate.backends.runtime.greedy import continue_greedily
from quantgate.backends.runtime.llama_cache import cache_bytes, type_names, type_number
from quantgate.backends.runtime.llama_chat import ids_of, rendered
from quantgate.backends.runtime.llama_log import listening
from quantgate.backends.runtime.llama_split import spread, visible_gpus
from quantgate.backends.tree import TokenTree
from quantgate.checkpoint.contents import gguf_parts
from quantgate.checkpoint.gguf_header import read_header
from quantgate.checkpoint.template import Message
from quantgate.errors import MeasurementError
from quantgate.machine.environment import Facts

logging.getLogger("llama-cpp-python").setLevel(logging.WARNING)  # its debug lines would fill the log

_FLASH_ATTENTION = {
    None: ("auto", llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO),
    False: ("off", llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED),
    True: ("on", llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED),
}
_DEFAULTS = "n_ubatch 512, flash attention auto, cache F16"
"""Settings of a scheme that says nothing of them: those of llama.cpp's command-line tools."""


class LlamaCpp:
    """A GGUF model; its weights are memory-mapped."""

    rounding = Rounding(0.02, 1.0)

    def __init__(self, checkpoint: Path, options: dict[str, Any], threads: int) -> None:
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = options.get("n_gpu_layers", 0)
        self._offload = options["device"] == "cuda"
        if self._offload:
            if not llama_cpp.llama_supports_gpu_offload():
                raise MeasurementError(
                    "this llama-cpp-python was built without CUDA: rebuild it with CMAKE_ARGS=-DGGML_CUDA=on"
                )
            self._shares = spread(params, options, visible_gpus())
        else:
            # A build for GPUs computes large batches there, whatever n_gpu_layers is: it is given no device at all.
            self._no_devices = (ctypes.c_void_p * 1)(None)
            params.devices = ctypes.addressof(self._no_devices)
        self._checkpoint = checkpoint
        self._threads = threads
        self._ftype = options.get("ftype", "")
        self._as_is = options.get("as_is", False)
        self._micro_batch = options.get("n_ubatch", 512)
        self._flash_attention = options.get("flash_attn")
        self._cache_types = options.get("type_k", "f16"), options.get("type_v", "f16")
        self.states_cache = bool(options.keys() & {"type_k", "type_v"})
        with listening() as log:
            self._model = llama_cpp.llama_model_load_from_file(os.fsencode(checkpoint), params)
        if not self._model:
            raise MeasurementError(f"{checkpoint}: llama.cpp cannot load it: {log.cause}")
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self._n_vocab = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self._context: Any = None
        self._batch: Any = None
        self._reserved = (0, 0)
        self._log: list[str] = []

    @property
    def settings(self) -> str:
        keys, values = self._cache_types
        cache = "F16" if keys == values == "f16" else f"{keys} keys, {values} values"
        attention, _ = _FLASH_ATTENTION[self._flash_attention]
        return f"n_ubatch {self._micro_batch}, flash attention {attention}, cache {cache}"

    def reserve(self, tokens: int, sequences: int) -> None:
        if self._context and self._reserved == (tokens, sequences):
            self._clear()
            return
        limit = llama_cpp.llama_max_parallel_sequences()
        if sequences > limit:
            raise MeasurementError(
                f"{sequences} sequences in one batch, llama.cpp takes {limit}: lower the budget"
            )
        if self._context:
            llama_cpp.llama_batch_free(self._batch)
            llama_cpp.llama_free(self._context)
            self._context = None
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = tokens
        params.n_batch = tokens
        params.n_ubatch = min(tokens, self._micro_batch)
        params.type_k, params.type_v = map(type_number, self._cache_types)
        _, params.flash_attn_type = _FLASH_ATTENTION[self._flash_attention]
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = self._threads
        # One buffer for all sequences, so that cells of a shared beginning are shared.
        params.kv_unified = True
        params.offload_kqv = params.op_offload = self._offload
        with listening() as log:
            self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            remedy = "; name other types in type_k and type_v" if self.states_cache else ""
            raise MeasurementError(f"llama.cpp cannot make a context of {tokens} tokens: {log.cause}{remedy}")
        self._log = [line for line in log.lines if " MiB" in line]
        self._batch = llama_cpp.llama_batch_init(tokens, 0, sequences)
        self._reserved = (tokens, sequences)

    def logits(self, tree: TokenTree) -> NDArray[np.float32]:
        if not tree.is_chain or tree.kept:
            self._check_shared()
        self._keep(tree.past, tree.sequences)
        batch, size = self._batch, len(tree.ids)
        batch.n_tokens = size
        np.ctypeslib.as_array(batch.token, (size,))[:] = tree.ids
        np.ctypeslib.as_array(batch.pos, (size,))[:] = tree.positions
        np.ctypeslib.as_array(batch.n_seq_id, (size,))[:] = [len(m) for m in tree.members]
        for node, members in enumerate(tree.members):
            row = batch.seq_id[node]
            for index, member in enumerate(members):
                row[index] = member
        outputs = np.ctypeslib.as_array(batch.logits, (size,))
        outputs[:] = 0
        outputs[tree.rows] = 1
        self._decode(batch)
        # Those rows lie one after the other, in the order of the batch.
        logits = llama_cpp.llama_get_logits(self._context)
        return np.ctypeslib.as_array(logits, (len(tree.rows), self._n_vocab))

    def _check_shared(self) -> None:
        """Raise MeasurementError where a state runs through all tokens in their order, from branch to branch."""
        for kind in ("recurrent", "hybrid"):
            if getattr(llama_cpp, f"llama_model_is_{kind}")(self._model):
                raise MeasurementError(f"llama.cpp calls the model {kind}: branches would share their state")

    def _keep(self, tokens: int, sequences: int) -> None:
        """Leave the first `tokens` tokens in the cache, as the beginning of every sequence."""
        if not tokens:
            self._clear()
            return
        memory = llama_cpp.llama_get_memory(self._context)
        llama_cpp.llama_memory_seq_keep(memory, 0)  # all sequences of the batch before begin with them
        if not llama_cpp.llama_memory_seq_rm(memory, 0, tokens, -1):
            raise MeasurementError(f"llama.cpp cannot cut its cache back to {tokens} tokens")
        for sequence in range(1, sequences):
            llama_cpp.llama_memory_seq_cp(memory, 0, sequence, 0, tokens)

    def prefill(self, ids: Sequence[int]) -> None:
        self._clear()
        tokens = (llama_cpp.llama_token * len(ids))(*ids)
        self._decode(llama_cpp.llama_batch_get_one(tokens, len(ids)))
        llama_cpp.llama_synchronize(self._context)

    def decode(self, ids: Sequence[int]) -> None:
        buffer = (llama_cpp.llama_token * 1)()
        batch = llama_cpp.llama_batch_get_one(buffer, 1)
        for token in ids:
            buffer[0] = token
            self._decode(batch)
            llama_cpp.llama_synchronize(self._context)

    def next_logits(self) -> NDArray[np.float32]:
        logits = llama_cpp.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(logits, (self._n_vocab,)).copy()

    def generate(self, ids: Sequence[int], limit: int, stops: Stops) -> list[int]:
        return continue_greedily(self, ids, limit, stops)

    def _decode(self, batch: Any) -> None:
        status = llama_cpp.llama_decode(self._context, batch)
        if status != 0:
            raise MeasurementError(f"llama_decode returned {status} for a batch of {batch.n_tokens} tokens")

    def _clear(self) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)

    def weights(self) -> Weights:
        linear = linear_tensors(self._checkpoint)
        return Weights(
            bytes=llama_cpp.llama_model_size(self._model),
            parameters=llama_cpp.llama_model_n_params(self._model),
            file_bytes=sum(part.stat().st_size for part in gguf_parts(self._checkpoint)),
            linear=sum(t.elements for t in linear),
            in_scheme=in_scheme(linear, self._ftype),
            says="" if self._as_is else other_types(linear, self._ftype, type_names()),
        )

    def cache_bytes(self) -> int | None:
        return cache_bytes(self._log, *self._cached_widths())

    def _cached_widths(self) -> tuple[int, int]:
        """Return how many numbers a token has of keys and of values in one layer."""
        numbers = self._metadata()
        heads = llama_cpp.llama_model_n_head_kv(self._model)
        usual = llama_cpp.llama_model_n_embd(self._model) // max(1, llama_cpp.llama_model_n_head(self._model))
        widths = {key.rpartition(".")[2]: number for key, number in numbers.items() if ".attention." in key}
        return heads * widths.get("key_length", usual), heads * widths.get("value_length", usual)

    def sizes(self) -> Sizes:
        learned = learns_positions(self._checkpoint)
        rotary = llama_cpp.llama_model_rope_type(self._model) != llama_cpp.LLAMA_ROPE_TYPE_NONE
        limit = llama_cpp.llama_model_n_ctx_train(self._model) if learned or rotary else None
        return Sizes(vocabulary=self._n_vocab, positions=limit, learned=learned)

    def tokenize(self, text: str) -> list[int]:
        return ids_of(self._vocab, text)

    def chat(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[int] | None:
        return rendered(self._model, messages, tools)

    def lengths(self) -> list[int]:
        return lengths_in(self._metadata())

    def _metadata(self) -> dict[str, int]:
        """Return the whole numbers of the GGUF file's header, but for lists."""
        values = read_header(self._checkpoint).values
        return {key: value for key, value in values.items() if isinstance(value, int)}

    def facts(self) -> Facts:
        facts: Facts = {"llama.cpp": llama_commit(), "kernels": kernels()}
        return facts if self.settings == _DEFAULTS else {**facts, "attention": self.settings}


def kernels() -> str:
    """Return the instruction sets and features that this build of llama.cpp uses here."""
    info = llama_cpp.llama_print_system_info().decode()
    return " ".join(re.findall(r"(\w+) = 1", info))


def llama_commit() -> str:
    """Return the version and commit that ggml was built from."""
    libggml.ggml_version.restype = libggml.ggml_commit.restype = ctypes.c_char_p
    return f"ggml {libggml.ggml_version().decode()} ({libggml.ggml_commit().decode()})"


load = LlamaCpp
