"""The role `tiny`: makes a tiny 4-bit llama and conversations for it, for the self-test.

Writes `model/`, `train.jsonl` and `valid.jsonl` into the folder. All random numbers come from fixed
seeds, on the CPU, so that the files are the same on every machine.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import llama
from mlx_lm.utils import save_config, save_model
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_SAMPLES = {"train.jsonl": 64, "valid.jsonl": 8}
_GROUP_SIZE = 64
_CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def main(arguments: Sequence[str]) -> int:
    """Write the self-test's model into the folder `arguments[0]`. Return 0."""
    mx.set_default_device(mx.cpu)
    folder = Path(arguments[0])
    make_model(folder / "model")
    rng = Random(0)
    for name, count in _SAMPLES.items():
        lines = [json.dumps(_conversation(rng)) for _ in range(count)]
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return 0


def make_model(folder: Path) -> None:
    """Write a random llama of four layers, hidden size 256, 4 bits, with bytes as tokens."""
    folder.mkdir(parents=True)
    tokenizer = _tokenizer()
    config = _config(tokenizer.get_vocab_size())
    mx.random.seed(0)
    model = llama.Model(llama.ModelArgs.from_dict(config))
    nn.quantize(model, group_size=_GROUP_SIZE, bits=4)
    save_model(folder, model)
    quantization = {"group_size": _GROUP_SIZE, "bits": 4}
    save_config({**config, "quantization": quantization}, folder / "config.json")
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(_tokenizer_config()), "utf-8")


def _config(vocabulary: int) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": vocabulary,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }


def _tokenizer() -> Tokenizer:
    """Return a tokenizer with bytes as tokens, no merges, and the special tokens first."""
    tokens = [*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in _SPECIAL])
    return tokenizer


def _tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "chat_template": _CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
    }


def _conversation(rng: Random) -> dict[str, Any]:
    """Return a question with a sum and its answer, which can be learned."""
    a, b, c = (rng.randrange(100) for _ in range(3))
    return {
        "messages": [
            {"role": "user", "content": f"{a} + {b} + {c}?"},
            {"role": "assistant", "content": f"{a} + {b} = {a + b}, + {c} = {a + b + c}."},
        ]
    }
