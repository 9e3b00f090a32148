"""The tokenizer of a Hugging Face folder: which of ours gives its ids, and the files that give ours to transformers.

transformers chooses a class by tokenizer_config.json, or else by the model's type; the class knows how texts are
cleaned, the files know the words. Where ids differ from transformers 5.23, it is meant:

- CLIP's texts are cleaned as CLIP was trained: encodings repaired, entities resolved, capital sigmas lowered by place.
  CLIPTokenizer only composes characters and lowers them one by one.
- A text that spells a special token has that token only where the vocabulary's own library finds it in texts.
- A folder whose pad token is a word, as "!" in some of CLIP's, does not lose that word from its texts.
- SigLIP 2 of fixed resolution (model type siglip, GemmaTokenizer) lowers case, as it was trained and as transformers'
  Siglip2Tokenizer does.
"""

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from clip_jax.config import Cleaning, TextConfig, TokenizerConfig
from clip_jax.errors import UserError
from clip_jax.inputs import json_tokenizer, sentencepiece_tokenizer
from clip_jax.inputs.clip_tokenizer import END_OF_WORD, MAX_VOCAB_SIZE, MIN_VOCAB_SIZE, vocabulary
from clip_jax.inputs.tokenizer import NO_FILES

SETTINGS = "tokenizer_config.json"
SENTENCEPIECE_FILES = ("spiece.model", "tokenizer.model")
TOKENIZER_FILES = (
    *("tokenizer.json", SETTINGS, "special_tokens_map.json", "added_tokens.json"),
    *(*SENTENCEPIECE_FILES, "sentencepiece.bpe.model", "vocab.json", "merges.txt", "vocab.txt"),
)
START, END = "<|startoftext|>", "<|endoftext|>"  # what CLIP's special tokens are called in these files
CLIP_WORD = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"

# The class that transformers takes where the settings name none, and the pad token that a class takes by itself.
CLASSES = {"clip": "CLIPTokenizer", "siglip": "SiglipTokenizer", "siglip2": "Siglip2Tokenizer"}
PAD_TOKENS = {"CLIPTokenizer": END, "SiglipTokenizer": "</s>"}

Files = Mapping[str, bytes]
Values = Mapping[str, Any]


def tokenizer_config_from_files(files: Files, model_type: str | None = None) -> TokenizerConfig:
    """The tokenizer of a folder with `files`: contents by name, any of TOKENIZER_FILES.

    `model_type` is that of config.json. CLIP's own vocabulary, or its first merges, becomes `clip_bpe` in whatever
    form it is; otherwise a file that is missing is named all the same, and asked for when strings are tokenised.
    Raises UserError for a damaged file, and for padding on the left, which no tower here was trained with.
    """
    try:
        return _config(files, model_type)
    except KeyError as error:
        raise UserError(f"the tokenizer's files are damaged ({error} is missing); fetch them again") from error
    except (AttributeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the tokenizer's files are damaged (a value is wrong: {reason}); fetch them again") from error


def special_token_id(files: Files, name: str) -> int | None:
    """The id of the special token that the settings call `name`, such as sep_token; None where there is none."""
    return _ids(files, _object(files, "tokenizer.json")).get(_content(_settings(files).get(name)))


def tokenizer_files_for_hf(config: TokenizerConfig, text: TextConfig, files: Files = NO_FILES) -> dict[str, bytes]:
    """The files with which transformers, and open_clip's HFTokenizer, tokenise as `config` does.

    Cleaning that their classes do not know (clip, whitespace, and repairs) is left to the caller, as in open_clip.
    CLIP's end token is the pad token, as in OpenAI's own folder, whatever `pad_id`: a word would be taken out of texts.
    `files` are those that came with the model; where none says how to load them, tokenizer_config.json is added.
    """
    if config.kind == "clip_bpe":
        return _clip_files(text)
    written = dict(files)
    if config.file is None or config.file not in files or SETTINGS in files:
        return written
    if config.kind == "tokenizer_json":
        settings = _json_settings(config, files)
    else:
        settings = _sentencepiece_settings(config, files)
        spaced = settings["tokenizer_class"] in ("SiglipTokenizer", "T5Tokenizer")
        written["spiece.model" if spaced else "tokenizer.model"] = written.pop(config.file)
    return written | {SETTINGS: _json(settings | {"model_max_length": text.context_length, "padding_side": "right"})}


def _config(files: Files, model_type: str | None) -> TokenizerConfig:
    settings = _settings(files)
    if settings.get("padding_side") == "left":
        raise UserError(f"{SETTINGS} pads on the left; clip_jax pads on the right, as CLIP and SigLIP do")
    tokenizer = _object(files, "tokenizer.json")
    ids = _ids(files, tokenizer)
    declared = (settings.get("tokenizer_class") or CLASSES.get(model_type or "", "")).removesuffix("Fast")
    name = "Siglip2Tokenizer" if model_type == "siglip2" else declared
    padding = tokenizer.get("padding") or {}
    pad_tokens = (settings.get("pad_token"), PAD_TOKENS.get(name), padding.get("pad_token"), "<pad>", "[PAD]")
    pad_id = _first(ids, pad_tokens)
    if _is_clip(files, tokenizer, ids) or (name == "CLIPTokenizer" and not ids):
        return TokenizerConfig(pad_id=pad_id or 0)
    end_id = _first(ids, (settings.get("eos_token"), "</s>", "<eos>"))
    if name == "SiglipTokenizer":
        pad_id, end_id = (1 if id is None else id for id in (pad_id, end_id))
        return TokenizerConfig("sentencepiece", "siglip", "spiece.model", pad_id=pad_id, end_id=end_id)
    siglip2 = name == "Siglip2Tokenizer" or (name == "GemmaTokenizer" and model_type == "siglip")
    clean: Cleaning = "lower" if siglip2 else "none"
    models = [file for file in SENTENCEPIECE_FILES if file in files]
    if "tokenizer.json" in files or not models:
        return TokenizerConfig("tokenizer_json", clean, "tokenizer.json", pad_id=pad_id or 0)
    if settings.get("add_bos_token"):
        raise UserError(f"texts begin with a special token, which {models[0]} does not tell; save a tokenizer.json too")
    return TokenizerConfig("sentencepiece", clean, models[0], pad_id=pad_id or 0, end_id=end_id)


def _settings(files: Files) -> Values:
    """What the settings say, and what an older file beside them says of special tokens."""
    settings = _object(files, SETTINGS)
    return settings if "added_tokens_decoder" in settings else settings | _object(files, "special_tokens_map.json")


def _object(files: Files, name: str) -> dict[str, Any]:
    """The JSON object in a file, empty where there is none."""
    try:
        values = json.loads(files.get(name, b"{}"))
    except ValueError as error:
        raise UserError(f"{name} is damaged ({error}); fetch it again") from error
    except RecursionError as error:
        raise UserError(f"{name} is damaged (it is nested too deeply); fetch it again") from error
    if not isinstance(values, dict):
        raise UserError(f"{name} is damaged: it holds no JSON object; fetch it again")
    return values


def _ids(files: Files, tokenizer: Values) -> dict[str | None, int]:
    """The id of each token that any of the files has."""
    ids: dict[str | None, int] = {}
    for file in SENTENCEPIECE_FILES:
        if file in files:
            model = sentencepiece_tokenizer.load(files[file], file)
            ids |= {model.id_to_piece(id): id for id in range(model.get_piece_size())}
    words = tokenizer.get("model", {}).get("vocab", {})
    ids |= words if isinstance(words, dict) else {word: id for id, (word, _) in enumerate(words)}
    ids |= _object(files, "vocab.json") | _object(files, "added_tokens.json")
    ids |= {token["content"]: token["id"] for token in tokenizer.get("added_tokens", [])}
    added = _object(files, SETTINGS).get("added_tokens_decoder", {})
    return ids | {_content(token): int(id) for id, token in added.items()}


def _first(ids: Mapping[str | None, int], tokens: tuple[Any, ...]) -> int | None:
    return next((ids[content] for content in map(_content, tokens) if content in ids), None)


def _content(token: Any) -> str | None:
    """A special token's text; the files hold it as such or with its properties."""
    return token["content"] if isinstance(token, Mapping) else token


def _is_clip(files: Files, tokenizer: Values, ids: Mapping[str | None, int]) -> bool:
    """Whether the words and merges are CLIP's or, with a smaller vocabulary, CLIP's first, and none was added."""
    if tokenizer:
        words, merges = (tokenizer["model"].get(key) for key in ("vocab", "merges"))
    else:
        words, merges = _object(files, "vocab.json"), files.get("merges.txt", b"").decode().splitlines()[1:]
    if not isinstance(words, dict) or not MIN_VOCAB_SIZE <= len(words) <= MAX_VOCAB_SIZE or len(ids) > len(words):
        return False
    tokens, pairs = vocabulary(len(words))
    same_words = words == {token: id for id, token in enumerate([*tokens, START, END])}
    return same_words and [tuple(m.split(" ") if isinstance(m, str) else m) for m in merges or ()] == pairs


def _clip_files(text: TextConfig) -> dict[str, bytes]:
    """CLIP's vocabulary in the two forms that there are, with the settings of transformers' CLIPTokenizer."""
    tokens, merges = vocabulary(min(text.vocab_size, MAX_VOCAB_SIZE))
    ids = {token: id for id, token in enumerate([*tokens, START, END])}
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    length = {"model_max_length": text.context_length, "padding_side": "right"}
    return {
        "vocab.json": _json(ids),
        "merges.txt": "\n".join(["#version: 0.2", *map(" ".join, merges), ""]).encode(),
        "tokenizer.json": _clip_pipeline(ids, merges).to_str(pretty=True).encode(),
        "special_tokens_map.json": _json(special),
        SETTINGS: _json({"tokenizer_class": "CLIPTokenizer", **special, **length}),
    }


def _clip_pipeline(ids: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    """CLIP's tokenizer as the tokenizers library can say it: without repairs, otherwise with the same ids."""
    tokenizer = Tokenizer(BPE(ids, merges, end_of_word_suffix=END_OF_WORD, unk_token=END))
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    words = pre_tokenizers.Split(Regex(CLIP_WORD), "removed", invert=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, byte_level])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(token, ids[token]) for token in (START, END)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in (START, END)])
    return tokenizer


def _json_settings(config: TokenizerConfig, files: Files) -> dict[str, Any]:
    assert config.file is not None
    tokenizer = json_tokenizer.load(files[config.file], config.file)
    settings = {
        "tokenizer_class": "Siglip2Tokenizer" if config.clean == "lower" else "PreTrainedTokenizerFast",
        "pad_token": tokenizer.id_to_token(config.pad_id),
    }
    return settings if config.zeroed_id is None else settings | {"sep_token": tokenizer.id_to_token(config.zeroed_id)}


def _sentencepiece_settings(config: TokenizerConfig, files: Files) -> dict[str, Any]:
    """The class that cleans and spaces as the model wants, T5's and SigLIP's with a space before the first word."""
    assert config.file is not None
    model = sentencepiece_tokenizer.load(files[config.file], config.file)
    if model.encode("a") == model.encode(" a"):
        siglip = config.clean in ("siglip", "canonicalize")
        kind = {"tokenizer_class": "SiglipTokenizer"} if siglip else {"tokenizer_class": "T5Tokenizer", "extra_ids": 0}
    else:
        name = "Siglip2Tokenizer" if config.clean == "lower" else "GemmaTokenizer"
        kind = {"tokenizer_class": name, "add_bos_token": False, "add_eos_token": config.end_id is not None}
    special = {"pad_token": config.pad_id, "eos_token": config.end_id, "unk_token": model.unk_id()}
    return kind | {name: model.id_to_piece(id) for name, id in special.items() if id is not None}


def _json(values: Values) -> bytes:
    return (json.dumps(values, ensure_ascii=False, indent=2) + "\n").encode()
