from filmstrip import evals


def test_the_help_finds_every_protocol_without_importing_any():
    said = evals.summaries()
    assert set(said) == set(evals.protocols())
    assert said["multi_view"].startswith("Top-1, top-5 and mean class accuracy") and all(said.values())
