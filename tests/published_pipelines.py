"""Text-to-video pipelines of ``diffusers`` of a few thousand weights, and captioned films for them."""

import torch

from colour_videos import write_colours

WORDS = ("<pad>", "</s>", "<unk>", "a", "red", "green", "blue", "film")
COLOURS = ("red", "green", "blue")


def word_tokenizer():
    """A tokenizer of :data:`WORDS` as ``transformers`` has it, whose texts end as T5's do."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = dict(pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, **special)


def text_encoder(kind="T5"):
    """A T5 or UMT5 of one layer, or of two where each has positions of its own."""
    import transformers

    sizes = dict(d_model=20, num_layers=1 + (kind == "UMT5"), num_heads=2, d_kv=8, d_ff=32)
    config = getattr(transformers, f"{kind}Config")(**sizes, feed_forward_proj="gated-gelu", vocab_size=len(WORDS))
    return getattr(transformers, f"{kind}EncoderModel")(config).eval()


def latte():
    """A ``LattePipeline``."""
    import diffusers

    torch.manual_seed(0)
    transformer = diffusers.LatteTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        cross_attention_dim=24,
        attention_bias=True,
        sample_size=4,
        patch_size=2,
        activation_fn="gelu-approximate",
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        caption_channels=20,
        video_length=4,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=32,
        scaling_factor=0.5,
    )
    return diffusers.LattePipeline(
        tokenizer=word_tokenizer(),
        text_encoder=text_encoder(),
        vae=vae.eval(),
        transformer=drawn(transformer),
        scheduler=diffusers.DDIMScheduler(timestep_spacing="trailing", clip_sample=False),
    )


def wan(scheduler=None):
    """A ``WanPipeline``, by default with the solver that is published."""
    import diffusers

    torch.manual_seed(0)
    transformer = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=20,
        freq_dim=32,
        ffn_dim=40,
        num_layers=2,
    )
    vae = diffusers.AutoencoderKLWan(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 2, 2],
        num_res_blocks=1,
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[0.5, 1.5, 0.8, 1.2],
    )
    published = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return diffusers.WanPipeline(
        tokenizer=word_tokenizer(),
        text_encoder=text_encoder("UMT5"),
        vae=vae.eval(),
        transformer=drawn(transformer),
        scheduler=scheduler or published,
    )


def ltx(**scheduler):
    """An ``LTXPipeline`` with the scheduler that is published, or other settings of it."""
    import diffusers

    torch.manual_seed(0)
    transformer = diffusers.LTXVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        num_layers=2,
        caption_channels=20,
    )
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        scaling_factor=0.7,
    )
    vae.latents_mean.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]))
    vae.latents_std.copy_(torch.tensor([0.5, 1.5, 0.8, 1.2]))
    published = dict(use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024)
    return diffusers.LTXPipeline(
        tokenizer=word_tokenizer(),
        text_encoder=text_encoder(),
        vae=vae.eval(),
        transformer=drawn(transformer),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**published | dict(shift_terminal=0.1) | scheduler),
    )


def drawn(network, std=0.1):
    """A network whose weights are all drawn, so that no layer says nothing."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return network.eval()


def captioned_films(folder, frames=12):
    """A manifest of films of one colour each, with captions."""
    rows = ["path,caption,split"]
    for colour in COLOURS:
        for number in range(3):
            name = f"{colour}{number}.mp4"
            write_colours(folder / name, colour, frames=frames)
            rows.append(f"{name},a {colour} film,{'test' if number == 2 else 'train'}")
    (folder / "films.csv").write_text("\n".join(rows) + "\n")
    return folder / "films.csv"
