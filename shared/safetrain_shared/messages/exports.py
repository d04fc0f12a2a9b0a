"""Sentences of `safetrain export`."""

from safetrain_shared.i18n import marked as _

SENTENCES: dict[str, str] = {
    "export.output_taken": _("{path} is not empty. Give a new or an empty folder: --output FOLDER"),
    "export.nothing": _("No job has an adapter yet. Train one first: safetrain submit"),
    "export.no_room": _(
        "The exported model needs {need:bytes} free at {path}; there are {free:bytes}."
    ),
    "export.no_memory": _(
        "Fusing and checking needs {need:bytes} of memory; {available:bytes} are available. Close "
        "other programs, or leave out --dequantize and --gguf."
    ),
    "export.out_of_memory": _(
        "The export ran out of memory. Close other programs, or leave out --dequantize and --gguf."
    ),
    "export.failed": _(
        "The model {path} cannot be exported ({reason}). The service's log says more; without "
        "--gguf it may do."
    ),
    "export.died": _("The export ended without a word (exit code {code}, signal {signal})."),
    "export.gpu_busy": _("The GPU is in use. Try again later, or wait for it: --wait"),
    "export.differs": _(
        "The fused model does not answer as the adapter does: {lost:pct} of what was learned "
        "would be lost, and {differing:int} of {tokens:int} {tokens:|token|tokens} "
        "{differing:|differs|differ}. Nothing was written. Try --dequantize."
    ),
    "export.gguf_differs": _(
        "The GGUF file in {type} does not answer as the adapter does: {lost:pct} of what was "
        "learned would be lost, and {differing:int} of {tokens:int} {tokens:|token|tokens} "
        "{differing:|differs|differ}. Nothing was written. Try --gguf-type f16, or leave out "
        "--gguf."
    ),
    "export.gguf_architecture": _(
        "A {architecture} model cannot be written as GGUF here; plain models of {known} can. Leave "
        "out --gguf."
    ),
    "export.to_host": _(
        "--to gives the model to a program of this machine, and an export on {host} stays there. "
        "Leave out --to, and bring the model here."
    ),
    "export.no_program": _("A model can be given to {known}; {program} is none of them."),
    "export.ollama_missing": _(
        "Ollama is not on this machine. Install it (ollama.com), or leave out --to."
    ),
    "export.ollama_silent": _(
        "Ollama does not answer ({reason}). Start it, by its app or with: ollama serve"
    ),
    "export.ollama_refused": _("Ollama did not take the model ({reason}). It lies in {path}."),
    "export.lm_studio_missing": _(
        "LM Studio is not on this machine: there is no {path}. Install it (lmstudio.ai) and open "
        "it once, or leave out --to."
    ),
    "export.program_has_it": _(
        "{program} has a model {name} already. Give another folder, whose name it gets: --output "
        "FOLDER"
    ),
    "export.not_put": _("The model could not be put at {place} ({reason}). It lies in {path}."),
    "export.gguf_no_four_bits": _(
        "q4_1 keeps the 4 bits of a base model that has 4, and {path} has none. Take --gguf-type "
        "q8_0; llama-quantize of llama.cpp makes other sizes of an f16 file."
    ),
    "export.gguf_tokenizer": _(
        "This model's tokenizer ({found}) cannot be written as GGUF without changing how it cuts "
        "text. Leave out --gguf."
    ),
}
