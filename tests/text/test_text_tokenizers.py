"""Text tokenizers: ids and back, special tokens, and saving."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filmstrip.errors import UserError
from filmstrip.text.tokenizers import (
    END,
    PAD,
    SPECIALS,
    START,
    VIDEO,
    Bytes,
    HubTokenizer,
    Pretrained,
    TextTokenizer,
    Words,
    open_tokenizer,
)

TEXTS = ("A red ball, moving left.", "Box (12, 345) of 2 blue balls!", "<video> is a word here")


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    """A folder with a small tokenizer in the Hub's layout."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS, trainer)
    folder = tmp_path_factory.mktemp("hub")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>").save_pretrained(folder)
    return folder


@pytest.fixture(params=["bytes", "words", "pretrained"])
def tokenizer(request, hub):
    config = {"bytes": Bytes(), "words": Words(), "pretrained": Pretrained(folder=str(hub))}[request.param]
    return config.fit(TEXTS)


def test_texts_come_back(tokenizer):
    assert isinstance(tokenizer, TextTokenizer)
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(0 <= i < tokenizer.size for i in ids)


def test_special_tokens_have_ids_that_no_text_has(tokenizer):
    specials = {tokenizer.special(name) for name in SPECIALS} | {tokenizer.end}
    assert len(specials) == len(SPECIALS) + 1
    for text in (*TEXTS, VIDEO, END, "<|end|>"):
        assert not specials & set(tokenizer.encode(text))
    ids = [tokenizer.special(VIDEO), *tokenizer.encode("A red ball")]
    assert tokenizer.decode(ids) == "A red ball"
    assert tokenizer.decode(ids, specials=True).startswith(VIDEO)


def test_an_unknown_special_token_is_refused_with_the_known_ones(tokenizer):
    with pytest.raises(UserError, match=r"no special token '<audio>'.*<video>"):
        tokenizer.special("<audio>")


def test_it_is_saved_and_opened(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    again = open_tokenizer(tmp_path)
    assert (again.size, again.pad, again.start, again.end) == (
        tokenizer.size,
        tokenizer.pad,
        tokenizer.start,
        tokenizer.end,
    )
    assert again.special(VIDEO) == tokenizer.special(VIDEO)
    for text in TEXTS:
        assert again.encode(text) == tokenizer.encode(text)


@given(st.text())
def test_bytes_give_back_any_text(text):
    tokenizer = Bytes().fit(())
    assert tokenizer.decode(tokenizer.encode(text)) == text.encode("utf-8", errors="replace").decode("utf-8")


@given(st.text(st.characters(exclude_categories=["C"])))
def test_words_give_back_any_text_but_for_its_spaces(text):
    import unicodedata

    from filmstrip.text.tokenizers import _words

    plain = " ".join(unicodedata.normalize("NFC", text).split())
    assert "".join(_words(text)).removeprefix(" ") == plain


def test_words_that_are_rare_or_new_are_unknown():
    tokenizer = Words(min_count=2).fit(["red ball", "red cup"])
    assert tokenizer.decode(tokenizer.encode("red cup")) == "red<unk>"
    assert Words(max_size=1).fit(["red red ball"]).size == Words(min_count=2).fit(["red red ball"]).size


def test_no_texts_and_no_tokenizer_are_refused(tmp_path):
    with pytest.raises(UserError, match="no word occurs 1 times"):
        Words().fit(["", "  "])
    with pytest.raises(UserError, match="holds no text tokenizer"):
        open_tokenizer(tmp_path)
    (tmp_path / "text_tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        open_tokenizer(tmp_path)
    (tmp_path / "text_tokenizer.json").write_text('{"kind": "runes", "specials": []}')
    with pytest.raises(UserError, match="'runes'"):
        open_tokenizer(tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        HubTokenizer(tmp_path / "none")
    with pytest.raises(UserError, match="no tokenizer that can be read"):
        HubTokenizer(tmp_path)


@pytest.mark.parametrize("config", [Bytes(), Words()])
def test_ids_of_another_tokenizer_are_refused(config):
    tokenizer = config.fit(["a red ball"])
    assert tokenizer.decode([tokenizer.size - 1])
    for i in (tokenizer.size, -1):
        with pytest.raises(UserError, match=f"no token {i}: .* has the ids 0 to {tokenizer.size - 1}"):
            tokenizer.decode([tokenizer.end, i])


def test_own_special_tokens_come_first():
    tokenizer = Bytes().fit(())
    assert (tokenizer.pad, tokenizer.start, tokenizer.end) == tuple(
        tokenizer.special(name) for name in (PAD, START, END)
    )
    assert tokenizer.pad == 0 and tokenizer.size == 4 + len(SPECIALS) + 256


def test_bert_s_tokenizer_begins_with_a_class_token_and_ends_with_a_separator(tmp_path):
    from transformers import BertTokenizer

    names = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "ball")
    BertTokenizer(vocab={name: i for i, name in enumerate(names)}).save_pretrained(tmp_path)
    tokenizer = Pretrained(folder=str(tmp_path)).fit((), ())
    assert (tokenizer.pad, tokenizer.start, tokenizer.end, tokenizer.mask) == (0, 2, 3, 4)
    assert tokenizer.encode("A red ball") == [5, 6, 7] and tokenizer.size == 8
    assert Words().fit(["red"]).mask is None
