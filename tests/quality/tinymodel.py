"""A tiny random Llama with a word tokenizer made from real text."""

from __future__ import annotations

from pathlib import Path

import pytest

from kakeya_fast.quality.texts import manual

VOCAB = 300


def make_tiny(folder: Path) -> Path:
    """A 2-layer Llama and its tokenizer, written to ``folder``."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    words = Tokenizer(models.WordLevel(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordLevelTrainer(vocab_size=VOCAB, special_tokens=["<unk>"])
    words.train_from_iterator(manual().text[:40_000].split("\n"), trainer)
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(
        folder
    )
    torch.manual_seed(7)
    config = transformers.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=4096,
        # Wide weights: attention must matter, or a broken cache would change nothing.
        initializer_range=0.5,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder
