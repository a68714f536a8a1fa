"""Vision-language models from Python: the interface of mlx-vlm on top of libvlm."""
from ._library import InvalidError, NotFoundError, OutOfMemoryError, UnsupportedError, VlmError, lib
from .embed import embed, rerank
from .generate import batch_generate, generate, stream_generate
from .model import Model, Processor, load, load_config
from .prompt import apply_chat_template, get_message_json
from .results import BatchResponse, BatchStats, GenerationResult

__version__ = lib.vlm_version().decode()
__all__ = ["load", "load_config", "apply_chat_template", "get_message_json", "generate", "stream_generate", "batch_generate", "embed", "rerank", "GenerationResult",
           "BatchResponse", "BatchStats", "Model", "Processor", "VlmError", "InvalidError", "NotFoundError", "OutOfMemoryError", "UnsupportedError"]
