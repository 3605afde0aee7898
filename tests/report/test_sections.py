import torch

from filmstrip.report import Column, ConfusionMatrix, Facts, Table


def strong(page):
    return page.count("strong")


def test_facts_name_their_values(read_page):
    page = read_page(Facts("t", [("videos", "12"), ("classes", "3")]).html())
    assert page.words == ["videos", "12", "classes", "3"]


def test_the_best_of_a_column_is_marked_in_words_too(read_page):
    columns = [Column("system"), Column("top-1", ".1%", "highest"), Column("GMACs", ".2f", "lowest"), Column("size")]
    page = read_page(Table("t", columns, [["a", 0.5, 3.0, 1], ["b", 0.75, 2.0, 2], ["c", None, 9.0, 3]]).html())
    best = [page.words[i - 1] for i, word in enumerate(page.words) if word == " (best)"]
    assert best == ["75.0%", "2.00"]
    assert "–" in page.words


def test_equal_values_are_equally_good(read_page):
    page = read_page(Table("t", [Column("s"), Column("v", ".1f", "highest")], [["a", 0.51], ["b", 0.49]]).html())
    assert strong(page) == 2


def test_a_lone_value_is_not_the_best_of_anything(read_page):
    assert strong(read_page(Table("t", [Column("v", best="highest")], [[1.0]]).html())) == 0
    assert (
        strong(read_page(Table("t", [Column("s"), Column("v", best="highest")], [["a", 1], ["b", None]]).html())) == 0
    )


def test_confusion_counts_stand_where_they_belong(read_page):
    matrix = torch.tensor([[3, 1], [0, 0]])
    page = read_page(ConfusionMatrix("t", matrix, ["cat", "dog"]).html())
    squares = [given for name, given in page.elements if name == "td" and "title" in given]
    assert [given["title"] for given in squares] == [
        "cat predicted as cat: 3 of 4",
        "cat predicted as dog: 1 of 4",
        "dog predicted as cat: 0 of 0",
        "dog predicted as dog: 0 of 0",
    ]
    assert [given["style"] for given in squares] == [
        f"--share:{share}" for share in ("0.750", "0.250", "0.000", "0.000")
    ]
    assert [given.get("class") for given in squares] == ["right dark", None, None, "right"]


def test_many_classes_are_listed_by_their_commonest_confusions(read_page):
    matrix = torch.diag(torch.full((50,), 10))
    matrix[4, 7], matrix[8, 1] = 2, 5
    page = read_page(ConfusionMatrix("t", matrix, [f"c{i}" for i in range(50)]).html())
    cells = page.words[page.words.index("c8") :]
    assert cells[:8] == ["c8", "c1", "5", "33%", "c4", "c7", "2", "17%"]
    assert "2 kinds of confusion" in page.text


def test_a_perfect_classifier_of_many_classes_confuses_nothing(read_page):
    page = read_page(ConfusionMatrix("t", torch.eye(50, dtype=torch.int64), [str(i) for i in range(50)]).html())
    assert "No video was confused." in page.text
