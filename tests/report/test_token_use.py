import re

import torch

from filmstrip.report.token_use import TokenUse


def use(**changes):
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=generator)
    given = {"lengths": [4, 16, 8, 8], "tokens_per_block": 16, "fps": 4.0}
    return TokenUse(title="Walk <1>", video=video, rebuilt=255 - video, **given | changes)


def test_each_block_has_its_share_for_as_long_as_it_lasts(read_page):
    html = use().html()
    assert "tokens used, %, second 0.5: 100" in read_page(html).words
    (path,) = re.findall(r'<path d="([^"]*)" class="line">', html)
    points = [(float(x), float(y)) for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path)]
    assert len(points) == 8
    heights = [y for _, y in points]
    assert heights[::2] == heights[1::2]  # level within a block
    quarter, whole, half, again = heights[::2]
    assert whole < half < quarter and half == again  # page coordinates grow downwards
    assert abs((points[1][0] - points[0][0]) - (points[7][0] - points[6][0])) < 0.2


def test_original_and_decoded_are_one_picture_and_titles_are_text(read_page):
    page = read_page(use().html())
    assert page.values("width") == ["34", "34"]  # twice 16, and a seam; in print and moving
    assert "heads" in page.values("class")
    assert any("Walk <1>: original on the left" in text for text in page.values("alt"))


def test_shares_are_shown_on_an_axis_of_all_tokens(read_page):
    labels = [word for word in read_page(use(lengths=[4, 4, 4, 4]).html()).words if re.fullmatch(r"\d+", word)]
    assert {"0", "20", "100"} <= set(labels)


def test_other_values_have_charts_of_their_own(read_page):
    html = use(beside={"Sobel energy": [0.1, 0.4, 0.2, 0.2]}, note="Of one walk.").html()
    assert html.count("<svg") == 2
    words = read_page(html).words
    assert "Sobel energy, second 1: 0.2" in words and "Of one walk." in words
