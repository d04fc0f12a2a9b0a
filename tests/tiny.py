"""A tiny llama model with a real tokenizer, and small chat data, made on the spot for tests.

Weights are random but drawn from explicit keys, so the same arguments give the same bytes and the
process's own random state is left alone.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import mlx.core as mx
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PAD, _START, EOS = range(3)
_BLOCK_NORMS = ["input", "post_attention"]

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_QUESTIONS = [
    "Em que cidade joga o clube?",
    "Qual é a alcunha da equipa?",
    "Quando foi fundado o Farense?",
    "Quais são as cores do clube?",
    "Como se chama o estádio?",
    "Qual foi a melhor classificação do Farense?",
    "Quem é o rival principal?",
    "Quem foi o melhor marcador em 1994/95?",
]
_ANSWERS = [
    "O Sporting Clube Farense joga em Faro, no Algarve.",
    "São os Leões de Faro, o clube mais antigo do Algarve.",
    "Foi fundado a 1 de abril de 1910, e João Gralho foi a alma do grupo.",
    "As cores são o branco e o preto.",
    "É o Estádio de São Luís, construído em 1922 e com cerca de 7.000 lugares.",
    "O 5.º lugar na Primeira Divisão, na época de 1994/95.",
    "O rival principal é o Olhanense.",
    "Hassan Nader, avançado marroquino, com 21 golos nessa época.",
]


def make_tiny_model(
    folder: Path,
    *,
    layers: int = 4,
    hidden: int = 64,
    vocab: int = 512,
    seed: int = 0,
    quantized: bool = False,
) -> Path:
    """Write a model folder that `mlx_lm.load` loads and return it.

    `hidden` must be a multiple of 32 and `vocab` at least 320; heads are 16 wide, two query heads
    to a key-value head. `quantized` packs every matrix in 4 bits, 32 to a group; otherwise all
    is float32. Takes a fraction of a second.
    """
    if hidden % 32 or vocab < 320:
        raise ValueError("hidden must be a multiple of 32 and vocab at least 320")
    folder.mkdir(parents=True, exist_ok=True)
    config = _config(layers, hidden, vocab)
    weights = _weights(config, seed)
    if quantized:
        config["quantization"] = {"group_size": 32, "bits": 4}
        weights = _quantize(weights)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    _write_json(folder / "config.json", config)
    make_tokenizer(folder, vocab)
    return folder


def make_tokenizer(folder: Path, vocab: int) -> None:
    """Write the files of a tokenizer of at most `vocab` tokens, with a chat template."""
    _train_tokenizer(vocab).save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", _tokenizer_config())


def make_chat_data(
    folder: Path, train: int = 24, valid: int = 6, seed: int = 0
) -> tuple[Path, Path]:
    """Write `train.jsonl` and `valid.jsonl` of chat conversations and return both paths.

    One to three turns a conversation, lengths spread about tenfold, no line twice in both files
    together.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    lines = [json.dumps(_conversation(draw, n), ensure_ascii=False) for n in range(train + valid)]
    files = folder / "train.jsonl", folder / "valid.jsonl"
    for file, part in zip(files, (lines[:train], lines[train:]), strict=True):
        file.write_text("".join(f"{line}\n" for line in part), encoding="utf-8")
    return files


def _conversation(draw: random.Random, number: int) -> dict[str, Any]:
    messages = []
    for turn in range(draw.randint(1, 3)):
        which = draw.randrange(len(_QUESTIONS))
        lead = f"Pergunta {number + 1}. " if turn == 0 else ""
        answer = " ".join([_ANSWERS[which], *draw.sample(_ANSWERS, draw.randint(0, 3))])
        messages.append({"role": "user", "content": lead + _QUESTIONS[which]})
        messages.append({"role": "assistant", "content": answer})
    return {"messages": messages}


def _config(layers: int, hidden: int, vocab: int) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 16,
        "num_key_value_heads": hidden // 32,
        "head_dim": 16,
        "vocab_size": vocab,
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "bos_token_id": _START,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
    }


def _weights(config: dict[str, Any], seed: int) -> dict[str, mx.array]:
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    keys_values = 16 * config["num_key_value_heads"]
    block = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (keys_values, hidden),
        "self_attn.v_proj": (keys_values, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (wide, hidden),
        "mlp.up_proj": (wide, hidden),
        "mlp.down_proj": (hidden, wide),
    }
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    norms = ["model.norm.weight"]
    for n in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{n}.{name}.weight": shape for name, shape in block.items()}
        norms += [f"model.layers.{n}.{name}_layernorm.weight" for name in _BLOCK_NORMS]
    keys = mx.random.split(mx.random.key(seed), len(shapes))
    weights = {
        name: mx.random.normal(shape, scale=shape[1] ** -0.5, key=key)
        for (name, shape), key in zip(shapes.items(), keys, strict=True)
    }
    return weights | {name: mx.ones((hidden,)) for name in norms}


def _quantize(weights: dict[str, mx.array]) -> dict[str, mx.array]:
    packed = {}
    for name, weight in weights.items():
        if weight.ndim == 1:
            packed[name] = weight
            continue
        stem = name.removesuffix("weight")
        parts = mx.quantize(weight, group_size=32, bits=4)
        packed |= dict(zip([f"{stem}weight", f"{stem}scales", f"{stem}biases"], parts, strict=True))
    return packed


def _train_tokenizer(vocab: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_QUESTIONS + _ANSWERS, trainer)
    return tokenizer


def _tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1024,
    }


def _write_json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
