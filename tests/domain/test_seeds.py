from mgral_service.domain.seeds import Purpose, seed_of, stream


def test_streams_of_one_seed_differ_by_purpose_and_repeat() -> None:
    first = stream(7, Purpose.DESIGN).random(4)
    assert (first == stream(7, Purpose.DESIGN).random(4)).all()
    assert (first != stream(7, Purpose.SELECT).random(4)).all()
    assert seed_of(7, Purpose.PROXY) == seed_of(7, Purpose.PROXY) != seed_of(8, Purpose.PROXY)


def test_streams_of_one_purpose_are_told_apart() -> None:
    assert (stream(7, Purpose.DESIGN).random(4) != stream(7, Purpose.DESIGN, 1).random(4)).all()
