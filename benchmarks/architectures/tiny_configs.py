"""A tiny configuration for each of mlx-lm's architectures, made from its own argument class."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from typing import Any

import mlx_lm.models

VOCABULARY = 512
# Every size that an argument class has by one of these names becomes this small.
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size": 64,
    "d_model": 64,
    "n_embd": 64,
    "model_dim": 64,
    "hidden_size_per_layer_input": 8,
    "intermediate_size": 96,
    "intermediate_size_mlp": 96,
    "ff_intermediate_size": 96,
    "shared_intermediate_size": 96,
    "ffn_hidden_size": 96,
    "hidden_dim": 96,
    "n_inner": 96,
    "mlp_hidden_size": 96,
    "block_dim": 64,
    "block_ff_dim": 96,
    "num_hidden_layers": 4,
    "num_layers": 4,
    "n_layer": 4,
    "n_layers": 4,
    "num_transformer_layers": 4,
    "num_attention_heads": 4,
    "swa_num_attention_heads": 4,
    "num_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "num_key_value_heads": 2,
    "swa_num_key_value_heads": 2,
    "num_kv_heads": 2,
    "n_kv_heads": 2,
    "head_dim": 16,
    "swa_head_dim": 16,
    "v_head_dim": 16,
    "swa_v_head_dim": 16,
    "max_position_embeddings": 1024,
    "model_max_length": 1024,
    "n_positions": 1024,
    "n_ctx": 1024,
    "rms_norm_eps": 1e-5,
    "norm_eps": 1e-5,
    "layer_norm_eps": 1e-5,
    "layer_norm_epsilon": 1e-5,
    "layernorm_epsilon": 1e-5,
    "rope_theta": 10000.0,
    "swa_rope_theta": 10000.0,
    "partial_rotary_factor": 0.5,
    "sliding_window": 32,
    "sliding_window_size": 32,
    "attention_window_size": 32,
    "attention_bias": False,
    "mlp_bias": False,
    "use_bias": False,
    # mixtures of experts
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_topk": 2,
    "moe_k": 2,
    "num_shared_experts": 1,
    "num_shared_expert": 1,
    "n_shared_experts": 1,
    "moe_num_shared_experts": 1,
    "moe_intermediate_size": 32,
    "expert_ffn_hidden_size": 32,
    "shared_expert_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 32,
    "moe_shared_intermediate_size": 32,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.0,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "decoder_sparse_step": 1,
    "moe_layer_freq": 1,
    "num_dense_layers": 1,
    "mlp_only_layers": [],
    # latent attention
    "kv_lora_rank": 32,
    "q_lora_rank": 32,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "index_head_dim": 16,
    "index_n_heads": 2,
    "index_topk": 16,
    # recurrences
    "state_size": 16,
    "ssm_state_size": 16,
    "mamba_d_state": 16,
    "mamba_d_ssm": 64,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 16,
    "mamba_num_heads": 4,
    "mamba_head_dim": 16,
    "mamba_expand": 2,
    "mamba_d_conv": 4,
    "mamba_proj_bias": False,
    "time_step_rank": 8,
    "time_step_limit": [0.001, 100.0],
    "n_groups": 1,
    "conv_kernel": 4,
    "use_conv_bias": True,
    "conv_bias": False,
    "conv_L_cache": 3,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
}
# The same, of architectures whose own arguments have them; a nested configuration would be refused.
SCALES: dict[str, Any] = {
    "embedding_multiplier": 1.0,
    "residual_multiplier": 1.0,
    "attention_multiplier": 0.25,
    "logits_scaling": 2.0,
    "logits_soft_cap": 30.0,
    "dim_model_base": 32,
    "scale_depth": 1.4,
    "scale_emb": 2.0,
}
_FULL, _SLIDING = "full_attention", "sliding_attention"
_HALF_SLIDING = [_SLIDING, _FULL, _SLIDING, _FULL]
_ROPE = {"type": "default", "rope_type": "default", "rope_theta": 10000.0}
_YARN = {
    "type": "yarn",
    "rope_type": "yarn",
    "factor": 2.0,
    "original_max_position_embeddings": 512,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "beta_fast": 32,
    "beta_slow": 1,
    "rope_theta": 10000.0,
}
_LLAMA4 = _YARN | {"llama_4_scaling_beta": 0.1}
_ROPE_BY_TYPE = {_FULL: _ROPE, _SLIDING: _ROPE}
_LINEAR_ATTENTION = {
    "kda_layers": [1, 2, 3],
    "full_attn_layers": [4],
    "num_heads": 4,
    "head_dim": 16,
    "short_conv_kernel_size": 4,
}
# What an architecture needs beside the sizes, or in place of them.
OVERRIDES: dict[str, dict[str, Any]] = {
    "afm7": {"hidden_dim": 64, "num_kv_reuse_layers": 1, "hidden_dim_scale_factor": 2.0},
    "afmoe": {"layer_types": _HALF_SLIDING},
    "apertus": {"post_norm": False, "qk_norm": True},
    "baichuan_m1": {"sliding_window_layers": [0, 2], "conv_window": 2},
    "bailing_hybrid": {"layer_group_size": 2, "group_norm_size": 2},
    "bailing_moe_linear": {"layer_group_size": 2, "group_norm_size": 2},
    "bailing_moe_v3": {"layer_group_size": 2},
    "dbrx": {
        "ffn_config": {"ffn_hidden_size": 96, "moe_num_experts": 4, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
    },
    "deepseek_v2": {"rope_scaling": _YARN},
    "deepseek_v41": {
        "compress_ratios": [0, 0, 0, 0],
        "num_attention_heads": 4,
        "head_dim": 32,
        "o_groups": 2,
        "o_lora_rank": 16,
        "hc_mult": 2,
        "rms_norm_eps": 1e-6,
    },
    "exaone4": {
        "rope_scaling": None,
        "sliding_window_pattern": "LLLG",
        "layer_types": [_SLIDING, _SLIDING, _SLIDING, _FULL],
    },
    "exaone_moe": {"layer_types": _HALF_SLIDING, "is_moe_layer": [False, True, True, True]},
    "gear": {"layer_types": _HALF_SLIDING},
    "gemma3": {"sliding_window_pattern": 2, "query_pre_attn_scalar": 16},
    "gemma3_text": {"sliding_window_pattern": 2, "query_pre_attn_scalar": 16},
    "gemma3n": {
        "rope_local_base_freq": 10000.0,
        "final_logit_softcapping": 30.0,
        "layer_types": _HALF_SLIDING,
        "num_kv_shared_layers": 2,
        "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0],
        "altup_num_inputs": 2,
        "altup_coef_clip": 120.0,
        "altup_correct_scale": True,
        "altup_active_idx": 0,
        "laurel_rank": 8,
    },
    "gemma4": {"global_head_dim": 32, "num_kv_shared_layers": 2, "sliding_window_pattern": 2},
    "gemma4_text": {"global_head_dim": 32, "num_kv_shared_layers": 2, "sliding_window_pattern": 2},
    "glm4_moe": {"rope_scaling": None, "use_qk_norm": True},
    "glm_moe_dsa": {
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "rope_parameters": _ROPE,
    },
    "gpt_neox": {"rotary_emb_base": 10000, "rotary_pct": 0.5, "intermediate_size": 96},
    "gptj": {"rotary_dim": 8},
    "granitemoehybrid": {
        "mamba_d_head": 32,
        "layer_types": ["mamba", "mamba", "mamba", "attention"],
    },
    "hunyuan": {
        "use_mixed_mlp_moe": True,
        "use_qk_norm": True,
        "use_cla": True,
        "cla_share_factor": 2,
        "rope_scaling": {"type": "dynamic", "factor": 1.0, "alpha": 1000.0},
    },
    "jamba": {
        "attn_layer_offset": 1,
        "attn_layer_period": 2,
        "expert_layer_offset": 1,
        "expert_layer_period": 2,
        "mamba_conv_bias": True,
        "mamba_dt_rank": 8,
    },
    "kimi_k3": {
        "linear_attn_config": _LINEAR_ATTENTION | {"use_full_rank_gate": False},
        "activation_situ_beta": 2.0,
        "num_experts_per_token": 2,
        "routed_expert_hidden_size": 64,
        "attn_res_block_size": 2,
    },
    "kimi_linear": {"linear_attn_config": _LINEAR_ATTENTION, "num_experts_per_token": 2},
    "lfm2": {
        "block_multiple_of": 8,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False,
        "layer_types": ["conv", _FULL, "conv", _FULL],
    },
    "lfm2_moe": {"use_expert_bias": True, "layer_types": ["conv", _FULL, "conv", _FULL]},
    "lfm2-vl": {
        "block_multiple_of": 8,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False,
        "layer_types": ["conv", _FULL, "conv", _FULL],
    },
    "lille-130m": {"block_size": 1024},
    "llama4": {
        "attention_chunk_size": 32,
        "interleave_moe_layer_step": 2,
        "rope_scaling": None,
        "use_qk_norm": True,
        "num_experts_per_tok": 1,
    },
    "llama4_text": {"no_rope_layers": [1, 1, 1, 0], "use_qk_norm": True},
    "longcat_flash": {
        "attention_method": "MLA",
        "zero_expert_type": "identity",
        "zero_expert_num": 2,
        "mla_scale_q_lora": True,
        "mla_scale_kv_lora": True,
    },
    "longcat_flash_ngram": {
        "zero_expert_num": 2,
        "mla_scale_q_lora": True,
        "mla_scale_kv_lora": True,
        "ngram_vocab_size_ratio": 2,
        "emb_neighbor_num": 2,
        "emb_split_num": 2,
    },
    "mamba2": {"num_heads": 8, "expand": 2, "intermediate_size": 128},
    "mellum": {"layer_types": _HALF_SLIDING, "rope_parameters": _ROPE_BY_TYPE},
    "mimo_v2_flash": {
        "hybrid_layer_pattern": [1, 0, 1, 0],
        "moe_layer_freq": [0, 1, 1, 1],
        "add_swa_attention_sink_bias": True,
        "add_full_attention_sink_bias": False,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
    },
    "minicpm3": {
        "rope_scaling": _YARN
        | {"type": "longrope", "long_factor": [1.0] * 4}
        | {"short_factor": [1.0] * 4}
    },
    "minimax": {"rotary_dim": 8},
    "minimax_m3_vl": {
        "dense_intermediate_size": 96,
        "layer_types": [_FULL] * 4,
        "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
    },
    "ministral3": {"rope_parameters": _LLAMA4, "layer_types": _HALF_SLIDING},
    "mistral3": {"model_type": "ministral3", "rope_parameters": _LLAMA4},
    "mistral4": {"rope_parameters": _LLAMA4},
    "muse_spark": {
        "post_norm_eps": 1e-6,
        "rope_parameters": _ROPE,
        "layer_rope_theta": [10000.0, 0.0, 10000.0, 0.0],
        "layer_types": _HALF_SLIDING,
        "final_logit_softcapping": 20.0,
        "output_multiplier": 0.5,
        "moe_hidden_size": 64,
        "num_shared_experts": 0,
    },
    "nemotron": {"hidden_act": "relu2"},
    "nemotron-nas": {
        "block_configs": [
            {
                "attention": {"n_heads_in_group": 2},
                "ffn": {"ffn_mult": 1.5},
            }
        ]
        * 4
    },
    "nemotron_h": {"layers_block_type": ["linear_attention", "mlp", _FULL, "moe"]},
    "olmo_hybrid": {"linear_allow_neg_eigval": True, "linear_num_key_heads": 4},
    "openelm": {
        "ffn_dim_divisor": 8,
        "num_query_heads": [4] * 4,
        "num_kv_heads": [2] * 4,
        "ffn_multipliers": [1.5] * 4,
    },
    "phi3small": {
        "vocab_size": 100_352,  # it writes to the places of tokens that stand near the end
        "dense_attention_every_n_layers": 2,
        "gegelu_limit": 20.0,
        "blocksparse_block_size": 64,
        "blocksparse_num_local_blocks": 2,
        "blocksparse_vert_stride": 2,
    },
    "phixtral": {"rotary_dim": 8, "num_vocab": VOCABULARY},
    "plamo": {"n_shared_head": 2},
    "plamo2": {"hidden_size_per_head": 16, "full_attention_idx": [1, 3]},
    "pixtral": {"model_type": "llama"},
    "qwen": {"kv_channels": 16},
    "qwen3_5": {"rope_parameters": _ROPE | {"partial_rotary_factor": 0.5}, "num_experts": 0},
    "qwen3_5_moe": {"rope_parameters": _ROPE | {"partial_rotary_factor": 0.5}},
    "recurrent_gemma": {
        "conv1d_width": 4,
        "block_types": ["recurrent", "recurrent", "attention", "recurrent"],
    },
    "rwkv7": {
        "a_low_rank_dim": 8,
        "v_low_rank_dim": 8,
        "gate_low_rank_dim": 8,
        "decay_low_rank_dim": 8,
    },
    "spark2_5": {"rope_parameters": _ROPE_BY_TYPE, "layer_types": _HALF_SLIDING},
    "stablelm": {"use_qkv_bias": False},
    "step3p5": {
        "num_attention_groups": 2,
        "layer_types": _HALF_SLIDING,
        "moe_top_k": 2,
        "share_expert_dim": 32,
    },
}

# What stands beside the language model's own configuration.
_AROUND: dict[str, dict[str, Any]] = {"muse_spark": {"audio_config": {"out_hidden_size": 64}}}


def names() -> list[str]:
    """Every architecture of the installed mlx-lm: modules that could have a `Model`."""
    return sorted(module.name for module in pkgutil.iter_modules(mlx_lm.models.__path__))


def config(name: str) -> dict[str, Any]:
    """A tiny configuration of the architecture, as a config.json would have it."""
    own = OVERRIDES.get(name, {})
    sizes = {"tie_word_embeddings": False, **SIZES}
    arguments = importlib.import_module(f"mlx_lm.models.{name}").ModelArgs
    fields = {field.name for field in dataclasses.fields(arguments)}
    if "text_config" in fields:
        text = {**sizes, "model_type": name, **own}
        around = _AROUND.get(name, {})
        return {"model_type": name, "vocab_size": VOCABULARY, "text_config": text, **around}
    given = {n: v for n, v in {**sizes, **SCALES}.items() if n in fields}
    return {**given, "model_type": name, **own}
