"""Small tokenizers of the kinds that text towers use, trained on the spot: contents of the files that one gets."""

import io
import json
import random
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import sentencepiece
from support.varied_texts import PLAIN, SCRIPTS
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE, Unigram, WordPiece

GEMMA_SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]


@lru_cache
def sentences() -> list[str]:
    rng = random.Random(0)
    latin = [*PLAIN, *SCRIPTS["latin"].lower().split(), *SCRIPTS["greek"].lower().split(), "café", "größe", "10", "3"]
    lines = [
        " ".join(rng.choices(latin, k=rng.randrange(4, 12))) + rng.choice([".", "!", ", it's"]) for _ in range(400)
    ]
    return lines + [line.capitalize() for line in lines[:100]]


def write(folder: Path, files: Mapping[str, bytes]) -> str:
    for name, contents in files.items():
        (folder / name).write_bytes(contents)
    return str(folder)


@lru_cache
def c4_like() -> bytes:
    """Like c4_en, SigLIP's: unigram, NFKC, a space before the first word, no pieces of bytes, padding 0 and end 1."""
    return _train(model_type="unigram", vocab_size=200, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)


def mc4_like() -> bytes:
    """Like mT5's and multilingual SigLIP's: ten sentinels at the end of the vocabulary."""
    pieces = [f"▁<extra_id_{index}>".encode() for index in range(9, -1, -1)]
    user_defined = b"\x18\x04"
    return c4_like() + b"".join(_field(_field(piece) + user_defined) for piece in pieces)


def _field(value: bytes) -> bytes:
    """Field 1 of a protocol buffer: the pieces of a model, and the text of a piece."""
    return bytes([1 << 3 | 2, len(value)]) + value


@lru_cache
def gemma_like() -> bytes:
    """Like Gemma's, which SigLIP 2 uses: byte pairs, unknown characters as bytes, text as it is."""
    names = {f"{name}_piece": f"<{name}>" for name in ("pad", "eos", "bos", "unk")}
    ids = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3}
    as_it_is = {"normalization_rule_name": "identity", "add_dummy_prefix": False, "remove_extra_whitespaces": False}
    return _train(model_type="bpe", vocab_size=500, byte_fallback=True, split_digits=True, **names, **ids, **as_it_is)


def _train(**options: Any) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences()), model_writer=model, minloglevel=2, hard_vocab_limit=False, **options
    )
    return model.getvalue()


@lru_cache
def bert_like() -> bytes:
    """Like bert-base-uncased, CLIPA's: [CLS] the text's word pieces [SEP], padding 0."""
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(sentences(), trainers.WordPieceTrainer(vocab_size=300, special_tokens=special))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer.to_str().encode()


@lru_cache
def xlm_like() -> bytes:
    """Like XLM's, MetaCLIP 2's: <s> the text's pieces </s>, padding 1, no lowering of case."""
    tokenizer = Tokenizer(Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(
        sentences(), trainers.UnigramTrainer(vocab_size=250, special_tokens=special, unk_token="<unk>")
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer.to_str().encode()


@lru_cache
def gemma_json() -> bytes:
    """Gemma's vocabulary as SigLIP 2's folders have it: no start token, an end token, padding 0."""
    trained = Tokenizer(BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trained.train_from_iterator(sentences(), trainers.BpeTrainer(vocab_size=300))
    merges = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    words = sorted(trained.get_vocab(), key=trained.get_vocab().__getitem__)
    tokens = [*GEMMA_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    tokenizer = Tokenizer(
        BPE(
            {token: id for id, token in enumerate(tokens)}, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in GEMMA_SPECIAL])
    return tokenizer.to_str().encode()
