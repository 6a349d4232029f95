from benchmarks.proxy_fidelity import STEPS, tables


def test_cheaper_proxies_differ_from_the_full_one() -> None:
    for kind, steps in STEPS.items():
        by_name = tables(kind, steps)
        assert by_name["full"].steps == steps
        assert len(set(by_name.values())) == len(by_name)
    assert {name: table.objective for name, table in tables("isd", 80).items()} == {
        "full": "isd",
        "warm": "isd",
        "head": "csd",  # ISD makes images of its own, so no features can be stored
        "head_warm": "csd",
    }
