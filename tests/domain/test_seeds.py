from mgral_service.domain.seeds import Purpose, seed_of, stream


def test_streams_of_one_seed_differ_by_purpose_and_repeat() -> None:
    first = stream(7, Purpose.DESIGN).random(4)
    assert (first == stream(7, Purpose.DESIGN).random(4)).all()
    assert (first != stream(7, Purpose.SELECT).random(4)).all()
    assert seed_of(7, Purpose.PROXY) == seed_of(7, Purpose.PROXY) != seed_of(8, Purpose.PROXY)


def test_streams_of_one_purpose_are_told_apart() -> None:
    some = [(), (1,), (0, 1), (1, 1)]
    drawn = {tuple(stream(7, Purpose.DESIGN, *more).random(4).tolist()) for more in some}
    assert len(drawn) == len(some)
    assert tuple(stream(7, Purpose.DESIGN, 0, 0).random(4).tolist()) in drawn
