import asyncio
import socket

import pytest
import pytest_asyncio

from service_runtime.gathered_writes import GatheringTransport


class Recorder(asyncio.Transport):
    """A transport that keeps what it is told to do, in order."""

    def __init__(self):
        super().__init__()
        self.did = []
        self.lost = False

    def write(self, data):
        self.did.append(bytes(data))

    def close(self):
        self.lost = True
        self.did.append("close")

    def abort(self):
        self.lost = True
        self.did.append("abort")

    def is_closing(self):
        return self.lost

    def get_write_buffer_size(self):
        return 0


@pytest.fixture
def recorder():
    return Recorder()


@pytest_asyncio.fixture
async def transport(recorder):
    return GatheringTransport(recorder, asyncio.get_running_loop())


async def test_what_one_round_writes_leaves_in_one_piece_and_in_order(transport, recorder):
    transport.write(b"head ")
    transport.writelines([b"body ", bytearray(b"end")])
    at_once = list(recorder.did)
    await asyncio.sleep(0)

    assert at_once == []
    assert recorder.did == [b"head body end"]


async def test_the_next_round_is_another_piece(transport, recorder):
    transport.write(b"one")
    await asyncio.sleep(0)
    transport.write(b"two")
    await asyncio.sleep(0)

    assert recorder.did == [b"one", b"two"]


async def test_much_leaves_without_waiting_for_the_end_of_the_round(transport, recorder):
    transport.write(b"x" * 40_000)
    transport.write(b"y" * 40_000)
    at_once = list(recorder.did)
    transport.write(b"z")
    await asyncio.sleep(0)

    assert at_once == [b"x" * 40_000 + b"y" * 40_000]
    assert recorder.did[1:] == [b"z"]


async def test_it_closes_behind_what_was_written(transport, recorder):
    transport.write(b"last words")
    transport.close()
    await asyncio.sleep(0)

    assert recorder.did == [b"last words", "close"]


async def test_an_abort_sends_nothing_more(transport, recorder):
    transport.write(b"never")
    transport.abort()
    await asyncio.sleep(0)

    assert recorder.did == ["abort"]


async def test_a_connection_that_was_lost_meanwhile_is_written_nothing(transport, recorder):
    transport.write(b"too late")
    recorder.lost = True
    await asyncio.sleep(0)

    assert recorder.did == []


async def test_what_is_gathered_counts_as_still_to_be_sent(transport):
    transport.write(b"12345")
    waiting = transport.get_write_buffer_size()
    await asyncio.sleep(0)

    assert (waiting, transport.get_write_buffer_size()) == (5, 0)


async def test_a_real_connection_behaves_through_it_as_ever():
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    loop = asyncio.get_running_loop()
    behind, protocol = await loop.create_connection(asyncio.Protocol, sock=ours)
    transport = GatheringTransport(behind, loop)
    knows = transport.get_protocol() is protocol, transport.get_extra_info("socket").fileno() == ours.fileno()
    transport.write(b"hello ")
    transport.write(b"world")
    transport.close()
    closing = transport.is_closing()
    await asyncio.sleep(0)
    with theirs:
        came = await loop.run_in_executor(None, theirs.makefile("rb").read)

    assert came == b"hello world"
    assert closing
    assert knows == (True, True)
