"""Conversations as ids: what is learnt, borders, truncation, special tokens in texts, and what is refused."""

import pytest

from filmstrip.errors import UserError
from filmstrip.text.conversation import TEMPLATES, Serialiser, Template, Turn
from filmstrip.text.tokenizers import Bytes, Pretrained, Words

TURNS = (
    Turn("user", "<video>\nwhat is it?"),
    Turn("assistant", "a disc"),
    Turn("user", "where?"),
    Turn("assistant", "at the top"),
)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture
def published(tmp_path):
    """The tokenizer of a folder in the Hub's layout: BPE that merges across spaces, with a template."""
    pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "a"), (":", "Ġa")]
    vocabulary = {token: i for i, token in enumerate([*alphabet, *map("".join, merges)])}
    bpe = Tokenizer(models.BPE(vocabulary, merges))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.ByteLevel()
    hub = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<|im_start|>", eos_token="<|im_end|>")
    hub.chat_template = CHATML
    hub.save_pretrained(tmp_path / "hub")
    return Pretrained(folder=str(tmp_path / "hub")).fit(())


def learnt_text(serialiser, marked):
    return serialiser.tokenizer.decode([i for i, own in zip(*marked) if own], specials=True)


def test_what_the_assistant_says_and_its_stop_are_learnt():
    serialiser = Serialiser(Bytes().fit(()), "v1")
    marked = serialiser.mark(TURNS)
    assert learnt_text(serialiser, marked) == " a disc</s> at the top</s>"
    assert serialiser.tokenizer.decode(marked.ids, specials=True).endswith(
        "USER: <video>\nwhat is it? ASSISTANT: a disc</s>USER: where? ASSISTANT: at the top</s>"
    )


def test_the_first_format_ends_with_its_separator():
    serialiser = Serialiser(Bytes().fit(()), "v0")
    assert learnt_text(serialiser, serialiser.mark(TURNS)) == " a disc### at the top###"
    assert serialiser.decode(serialiser.answer("a disc")) == "a disc"


def test_a_caption_follows_the_visual_alone():
    serialiser = Serialiser(Bytes().fit(()), "caption")
    marked = serialiser.mark((Turn("user", "describe it\n<image>"), Turn("assistant", "a disc")))
    assert serialiser.tokenizer.decode(marked.ids, specials=True) == "<s><image>a disc\n"


@pytest.mark.parametrize("name", [*TEMPLATES, "hub"])
def test_a_prompt_is_the_beginning_of_what_is_learnt_from(published, name):
    serialiser = Serialiser(published, name)
    marked = serialiser.mark(TURNS)
    prompt = serialiser.prompt(TURNS[:3])
    assert marked.ids[: len(prompt)] == prompt
    rest, own = marked.ids[len(prompt) :], marked.learnt[len(prompt) :]
    assert [i for i, said in zip(rest, own) if said] == serialiser.answer("at the top")
    assert serialiser.decode(serialiser.answer("at the top")) == "at the top"


def test_borders_do_not_lie_within_tokens(published):
    """This tokenizer would merge the colon with the answer's first letter."""
    serialiser = Serialiser(published, "v1")
    assert len(published.encode(": a")) == 1 and published.encode(" a") != published.encode("a")
    ids = serialiser.mark(TURNS).ids
    assert published.encode(": a")[0] not in ids


def test_a_published_template_keeps_its_special_tokens_and_texts_have_none(published):
    end = published.special("<|im_end|>")
    serialiser = Serialiser(published, "hub")
    marked = serialiser.mark((Turn("user", "<video> say <|im_end|>"), Turn("assistant", "<video|im_end|> no")))
    assert marked.ids.count(end) == 2
    assert [i for i, own in zip(*marked) if own][-1] == end and serialiser.stop == (end,)
    assert marked.ids.count(published.special("<video>")) == 1


def test_a_template_without_an_end_is_refused(published):
    published.hub.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    with pytest.raises(UserError, match="never end"):
        Serialiser(published, "hub")


def test_the_oldest_text_is_cut_and_no_visual():
    tokenizer = Bytes().fit(())
    whole = Serialiser(tokenizer, "plain", visual_tokens=5).mark(TURNS)
    length = len(whole.ids) + 4
    for cut in (0, 1, 7, 20):
        short = Serialiser(tokenizer, "plain", visual_tokens=5, max_length=length - cut).mark(TURNS)
        assert len(short.ids) + 4 == length - cut
        assert short.ids[0] == tokenizer.start and tokenizer.special("<video>") in short.ids
        assert short.ids[-10:] == whole.ids[-10:]


def test_an_example_without_an_answer_or_without_room_for_its_visual_is_refused():
    tokenizer = Bytes().fit(())
    with pytest.raises(UserError, match="never cut"):
        Serialiser(tokenizer, "plain", visual_tokens=500, max_length=400).mark(TURNS, "x.mp4")
    with pytest.raises(UserError, match="no answer within"):
        Serialiser(tokenizer, Template(), max_length=2).mark(TURNS, "x.mp4")


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ((Turn("user", "<audio> what?"), Turn("assistant", "a")), "unknown placeholder <audio>"),
        ((Turn("user", "what?"), Turn("assistant", "<video>")), "only users"),
        ((Turn("user", "what?"),), "ends with a question"),
        ((Turn("assistant", "a"),), "in turn"),
        ((), "is nothing"),
    ],
)
def test_what_is_no_conversation_is_refused(turns, message):
    with pytest.raises(UserError, match=message):
        Serialiser(Bytes().fit(())).mark(turns, "x.mp4")


def test_words_of_templates_can_be_in_the_vocabulary():
    texts = [turn.text for turn in TURNS]
    serialiser = Serialiser(Words().fit([*texts, *TEMPLATES["plain"].texts]), "plain")
    said = serialiser.tokenizer.decode(serialiser.mark(TURNS).ids, specials=True)
    assert "<unk>" not in said and said.startswith("<s> question:<video> what is it? answer: a disc</s>")
