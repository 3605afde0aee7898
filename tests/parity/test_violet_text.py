"""VIOLET with text (``language.violet``): its visual half by stored outputs, what text meets by ``transformers``."""

from functools import cache

import torch
import torch.nn.functional as F
from published import recipe_video, stored
from transformers import BertConfig, BertForMaskedLM

from filmstrip import systems
from filmstrip.runs.initial_weights import start
from filmstrip.systems.language.violet import VioletWithTextConfig
from filmstrip.weights.released import to_published

IDS, LENGTHS = recipe_video("text", (2, 9)).long() % 50, torch.tensor([9, 5])
VALID = torch.arange(9) < LENGTHS[:, None]


def built():
    """The network; its head says 50 codes, as the published one did."""
    objective = VioletWithTextConfig(
        tokenizer=systems.find("tokenizers.dvae:tiny").objective,
        num_frames=4,
        size=64,
        width=96,
        depths=(1, 1, 2, 1),
        num_heads=(2, 2, 4, 4),
        window=(8, 2, 2),
        patch_size=(2, 4, 4),
        joint_depth=1,
        joint_num_heads=12,
        max_positions=4,
        vocab_size=50,
        max_length=9,
        mask_id=3,
    ).build()
    objective.head[3] = torch.nn.Linear(1536, 50)
    return objective.eval()


@cache
def published():
    """A BERT whose encoder has the stored weights, another one's embeddings, and the state of the whole."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 768, "num_hidden_layers": 1, "max_position_embeddings": 9}
    bert, other = (BertForMaskedLM(BertConfig(**sizes, attn_implementation="eager")).eval() for _ in range(2))
    with torch.no_grad():
        for model in (bert, other):
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn(parameter.shape)
    weights = stored("violet").weights()
    joint = {name.removeprefix("trsfr."): value for name, value in weights.items() if name.startswith("trsfr.")}
    bert.bert.encoder.load_state_dict(joint)
    fc = {"fc.1.weight": torch.randn(1536, 768), "fc.1.bias": torch.randn(1536)}
    fc |= {"fc.3.weight": torch.randn(1, 1536) / 40, "fc.3.bias": torch.randn(1)}
    text = {f"enc_txt.emb_txt.{name}": value for name, value in other.bert.embeddings.state_dict().items()}
    words = {f"fc_mtm.{name}": value.clone() for name, value in bert.cls.state_dict().items()}
    return bert, other.bert.embeddings, {**weights, **text, **words, **fc}


@torch.no_grad()
def test_text_and_video_together_are_theirs(tmp_path):
    bert, embeddings, state = published()
    file = tmp_path / "violet.pt"
    torch.save(state, file)
    objective = built()
    start(objective, file)
    visual = objective.see(recipe_video("video", (2, 4, 3, 64, 64)))
    assert stored("violet").error("visual", _masked_visual(objective)) < 2e-5
    mask = torch.cat([torch.ones(visual.shape[:2], dtype=torch.bool), VALID], dim=1)
    seen = torch.cat([visual, embeddings(IDS)], dim=1)
    scores = torch.zeros(2, 1, 1, mask.shape[1]).masked_fill(~mask[:, None, None], float("-inf"))
    expected, attention = _encoded(bert, seen, scores)
    text = objective.text(IDS)
    tokens = objective.encoder.together(visual, text, VALID)
    torch.testing.assert_close(tokens[mask], expected[mask], rtol=1e-4, atol=2e-5)
    theirs = bert.cls(expected[:, visual.shape[1] :])
    ours = objective.words(tokens[:, visual.shape[1] :], objective.word_weight)
    torch.testing.assert_close(ours[VALID], theirs[VALID], rtol=1e-4, atol=1e-4)
    first = expected[:, visual.shape[1]]
    hidden = F.linear(first, state["fc.1.weight"], state["fc.1.bias"]).relu()
    choice = F.linear(hidden, state["fc.3.weight"], state["fc.3.bias"])[:, 0] / 0.05
    torch.testing.assert_close(objective.match(visual, IDS, LENGTHS), choice, rtol=1e-4, atol=1e-3)
    asked = (attention.mean(dim=1) * mask[:, :, None]).sum(dim=1)
    got = objective.encoder.attended_together(visual, text, VALID)
    torch.testing.assert_close(got, asked, rtol=1e-4, atol=1e-5)


def test_released_weights_are_written_back(tmp_path):
    _, _, state = published()
    file, objective = tmp_path / "violet.pt", built()
    torch.save(state, file)
    start(objective, file)
    back = to_published(objective)
    spare = "enc_txt.emb_txt.position_ids"
    assert back.keys() == state.keys() - {spare}
    folded = ("token_type_embeddings.weight", "position_embeddings.weight")
    assert all(torch.equal(back[name], state[name]) for name in back if not name.endswith(folded))


def _masked_visual(objective):
    b, t, i = torch.meshgrid(torch.arange(2), torch.arange(4), torch.arange(4), indexing="ij")
    masked = ((b + 3 * t + i) % 3 == 0).view(2, 4, 2, 2)
    return objective.encoder.visual(recipe_video("video", (2, 4, 3, 64, 64)), masked)[0]


def _encoded(bert, seen, scores):
    """Their encoder's last tokens, and the attention of its only layer, by its own parts."""
    layer = bert.bert.encoder.layer[0]
    own = layer.attention.self
    q, k, _ = (part(seen).unflatten(2, (12, 64)).transpose(1, 2) for part in (own.query, own.key, own.value))
    attention = (q @ k.mT / 8 + scores).softmax(dim=-1)
    said = layer(seen, scores)
    return (said if isinstance(said, torch.Tensor) else said[0]), attention
