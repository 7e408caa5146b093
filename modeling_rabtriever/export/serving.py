"""Whether servers can run an exported tower, by the rules of their loaders. No server is started here."""

import json
from pathlib import Path
from typing import Any

# Module types that vLLM's loader of sentence-transformers folders knows in every version.
_VLLM_MODULES = {f"sentence_transformers.models.{kind}" for kind in ("Transformer", "Pooling", "Dense", "Normalize")}
# Backbones that Text Embeddings Inference implements itself, by model_type.
_TEI_BACKBONES = {"qwen2", "qwen3", "gemma3_text", "mistral", "llama"}


def server_limits(tower: str | Path) -> dict[str, list[str]]:
    """Why a server would refuse a tower or compute other vectors; an empty list if its loader's rules are met.

    Args:
        tower: a folder that `export_sentence_transformers` wrote: `query` or `document`.

    Returns:
        Reasons by server, `vllm` and `tei`.

    Raises:
        ValueError: the folder is not a tower.
    """
    tower = Path(tower)
    if not (tower / "1_Pooling" / "config.json").is_file():
        raise ValueError(f"{tower} is not a tower; accepted: the folder query or document of an export")
    modules = _read(tower / "modules.json")
    pooling = _read(tower / "1_Pooling" / "config.json")
    modes = [name for name, chosen in pooling.items() if name.startswith("pooling_mode_") and chosen]
    dense = [module["path"] for module in modules if module["type"].endswith(".Dense")]
    both, vllm, tei = [], [], []
    if len(modes) > 1:
        both.append(
            f"pools {len(modes)} ways and concatenates the results, but servers pool one way; a student on another "
            "encoder than its teacher's backbone pools one way"
        )
    unknown = sorted({module["type"] for module in modules} - _VLLM_MODULES)
    if unknown:
        vllm.append(f"has modules that vLLM silently skips: {', '.join(unknown)}")
    config = _read(tower / "config.json")
    backbone = config["model_type"]
    if backbone not in _TEI_BACKBONES:
        tei.append(f"has a backbone that TEI does not know: {backbone}")
    if backbone == "llama" and config.get("attention_bias"):  # a Qwen2 in this form, so its tokenizer keeps the prompt
        tei.append("has a Llama whose projections have biases, whose support is not confirmed")
    if len(dense) > 1:
        tei.append(f"has {len(dense)} dense layers in a row, whose support is not confirmed")
    return {"vllm": both + vllm, "tei": both + tei}


def _read(path: Path) -> Any:
    return json.loads(path.read_text())
