import socket

import pytest

from mgral_service.cluster import local
from mgral_service.domain.errors import Conflict


def test_a_second_ray_on_the_machine_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "ENDING_S", 0.0)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setattr(local, "AGENT_PORT", other.getsockname()[1])
        with pytest.raises(Conflict, match="another Ray"), local.local_cluster(0):
            pass
