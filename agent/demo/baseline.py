"""What people do today, honestly measured: ``python -m agent.demo.baseline KIND FOLDER``.

A fresh process imports transformers, loads the folder from disk and gives one answer. Prints one JSON object
with the seconds of each phase and the answer. The caller decides whether the files are in the page cache.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

SENTENCES: Final = (
    "Universities own GPUs that stand idle while others wait.",
    "A borrowed GPU is useless for the minutes that a model takes to load.",
    "The weights already lie in the memory of another machine.",
    "Each piece is proven by its digest before it is used.",
    "Local work always wins.",
    "The cat sat on the windowsill and watched the rain.",
    "Photosynthesis turns light into chemical energy.",
    "She plays the cello in the city orchestra.",
    "The train to Geneva leaves at seven.",
    "Ten sentences are enough to tell whether two models are the same.",
)
PROMPT: Final = "The owner of a machine keeps"
TOKENS: Final = 8


def main() -> None:
    """Measure one fresh start from disk."""
    kind, folder = sys.argv[1], Path(sys.argv[2])
    os.environ["HF_HUB_OFFLINE"] = "1"
    begun = time.perf_counter()
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    imported = time.perf_counter()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    builder = transformers.AutoModel if kind == "embeddings" else transformers.AutoModelForCausalLM
    model = builder.from_pretrained(folder, dtype="auto").eval()
    # Loading maps the file; the weights are read when they are used, which the first answer would hide.
    touched = sum(float(parameter.reshape(-1)[::1024].sum()) for parameter in model.parameters())
    loaded = time.perf_counter()
    with torch.inference_mode():
        answer: Any = _embed(tokenizer, model) if kind == "embeddings" else _complete(tokenizer, model)
    ended = time.perf_counter()
    phases = {"import": imported - begun, "load": loaded - imported, "answer": ended - loaded}
    print(json.dumps({"phases": phases, "answer": answer, "checksum": touched}))


def _embed(tokenizer: Any, model: Any) -> list[list[float]]:
    import torch

    batch = tokenizer(list(SENTENCES), padding=True, truncation=True, max_length=256, return_tensors="pt")
    states = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1).to(states.dtype)
    pooled = (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
    answer: list[list[float]] = torch.nn.functional.normalize(pooled, p=2, dim=1).tolist()
    return answer


def _complete(tokenizer: Any, model: Any) -> str:
    batch = tokenizer(PROMPT, return_tensors="pt")
    tokens = model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        max_new_tokens=TOKENS,
        do_sample=False,
    )
    text: str = tokenizer.decode(tokens[0][batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return text


if __name__ == "__main__":
    main()
