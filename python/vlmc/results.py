"""What generation returns. Field names are mlx-vlm's; those of diffusion models and drafters that do not apply are absent."""
import resource
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple


@dataclass
class GenerationResult:
    text: str = ""                                              # of this step; of the whole answer from generate()
    token: Optional[int] = None
    logprobs: Optional[List[Tuple[int, float]]] = None          # (token, log-probability): its own first, then the largest others
    prompt_tokens: int = 0
    generation_tokens: int = 0
    total_tokens: int = 0
    prompt_tps: float = 0.0                                     # tokens per second
    generation_tps: float = 0.0
    peak_memory: float = 0.0                                    # of the process, GB
    cached_tokens: int = 0                                      # of the prompt, not computed again
    finish_reason: Optional[str] = None                         # "stop", "length", "tool_calls", "timeout"; on the last result only
    token_ids: Optional[List[int]] = None                       # of the whole answer, on the last result
    reasoning: str = ""                                         # of this step or the whole answer, when the text is parsed
    tool_calls: List[Dict[str, Any]] = field(default_factory=list)  # as in OpenAI's API, on the last result
    reasoning_tokens: int = 0
    parsed: Optional[Dict[str, Any]] = None                     # what the answer means where the prompt asks for such (Florence-2), on the last result
    media_items: int = 0                                        # encoded media of the prompt, of which from the cache
    media_cached: int = 0
    encode_seconds: float = 0.0                                 # spent on encoding media


@dataclass
class BatchStats:
    prompt_tokens: int = 0
    prompt_tps: float = 0.0
    prompt_time: float = 0.0
    generation_tokens: int = 0
    generation_tps: float = 0.0
    generation_time: float = 0.0
    peak_memory: float = 0.0


@dataclass
class BatchResponse:
    texts: List[str] = field(default_factory=list)
    stats: BatchStats = field(default_factory=BatchStats)
    image_sizes: Optional[List[Tuple[int, int]]] = None
    results: List[GenerationResult] = field(default_factory=list)


def peak_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
