"""How the connections of mirrored handshakes end, as a NAT between them sees it."""

from __future__ import annotations

import socket

from grepunch.io.simultaneous import adopt


def test_a_connection_ends_by_a_fin_and_leaves_its_ports_at_once() -> None:
    """Without the FIN a NAT takes the next SYN for one of the old connection; with no reset our kernel would."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as caller:
        caller.connect(server.getsockname())
        place = caller.getsockname()
        stream, _ = server.accept()
        adopt(stream).close()
        caller.settimeout(5)
        assert caller.recv(1) == b""  # with a reset alone: ConnectionResetError
        caller.close()
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(place)
            again.connect(server.getsockname())


def test_one_that_never_came_to_be_is_closed_all_the_same() -> None:
    stream = socket.socket()
    connection = adopt(stream)
    connection.close()
    connection.close()
    assert stream.fileno() == -1
