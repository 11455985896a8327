"""The loaded models of the engine's backends, one file a library. They import torch or llama_cpp, so measuring
processes alone import them."""
