"""The benchmark relay itself: its protocol, its round trip, and how many mails it can take."""

import asyncio
import time

import pytest

from benchmarks.load.blaster import mail
from benchmarks.peers.servers import Certificates, Relay, relay
from benchmarks.processes import run
from benchmarks.report.promise import Promise
from benchmarks.report.results import Results
from benchmarks.smtp_client import Streams, command, sign_in, sign_out

_GROUP = b"MAIL FROM:<codes@example.org>\r\nRCPT TO:<ada@example.org>\r\nDATA\r\n"
_COMMANDS = 10
_TRIES = 3  # of which the quickest counts: other processes disturb some
_ROUND_TRIP = 0.02
_CONTENT = b"Message-ID: <%d@example.org>\r\n\r\n..\r\nGood morning\r\n.\r\n"


async def _sign_in(at: Relay) -> Streams:
    return await sign_in(at.port, str(at.ca_file))


async def _say(streams: Streams, data: bytes, replies: int) -> list[bytes]:
    """Write in one go, and return the codes of that many replies."""
    reader, writer = streams
    writer.write(data)
    return [(await reader.readline())[:3] for _ in range(replies)]


async def test_takes_more_mails_than_any_client_sends(
    certificates: Certificates, results: Results, *, quick: bool
) -> None:
    """The relay is not the limit: one core of it takes twice the mails that any client was seen to send."""
    rows: list[dict[str, object]] = []
    rates = []
    for size in (700, 5_000):
        async with relay(certificates) as at:
            before = at.cpu
            blast = await run("benchmarks.load.blaster", *at.arguments, "--size", size, "--seconds", 1 if quick else 5)
            cpu = at.cpu - before
        assert at.counts["errors"] == 0, at.counts["first_error"]
        assert at.counts["mails"] == blast["mails"]
        rates.append(blast["rate"])
        rows.append({"octets": size, "mails/s": blast["rate"], "relay us/mail": cpu / blast["mails"] * 1e6})
    results.report(
        rows, Promise(what="thousand mails of 700 octets a second", figure=rates[0] / 1000, at_least=56, timed=True)
    )


async def test_replies_one_round_trip_after_it_read(certificates: Certificates, *, quick: bool) -> None:
    """A reply takes the round trip that was set, and pipelined replies share one."""
    async with relay(certificates, "--rtt", _ROUND_TRIP * 1000) as at:
        streams = await _sign_in(at)
        waited = [await _wait_for_replies(streams) for _ in range(_TRIES)]
        pings = []
        for _ in range(20):
            began = time.monotonic()
            await command(streams, b"NOOP")
            pings.append(time.monotonic() - began)
        await sign_out(streams)
    assert min(waited) < _COMMANDS * _ROUND_TRIP / 2, "the commands took a round trip each"
    assert min(pings) > _ROUND_TRIP - 0.001
    assert quick or sorted(pings)[len(pings) // 2] < 0.022, "the relay is further away than it says"


async def _wait_for_replies(streams: Streams) -> float:
    """Say some commands in a round trip and a half; return how long after the last one the last reply came."""
    for _ in range(_COMMANDS):
        last_said = time.monotonic()
        streams[1].write(b"NOOP\r\n")
        await asyncio.sleep(0.003)
    for _ in range(_COMMANDS):
        await streams[0].readline()
    return time.monotonic() - last_said


async def test_takes_overlapped_data(certificates: Certificates) -> None:
    """Content opens a group: the end of one mail and the commands of the next in one write (RFC 2920, 3.1)."""
    async with relay(certificates, "--hide", "CHUNKING", "--distinct") as at:
        streams = await _sign_in(at)
        said = [await _say(streams, _GROUP, 3)]
        said += [await _say(streams, _CONTENT % place + _GROUP, 4) for place in range(50)]
        said += [await _say(streams, _CONTENT % 50, 1)]
        await sign_out(streams)
    assert said == [[b"250", b"250", b"354"], *[[b"250", b"250", b"250", b"354"]] * 50, [b"250"]]
    at.assert_took(51)


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 100])
async def test_reads_what_is_cut_anywhere(certificates: Certificates, *, cut: int) -> None:
    """Every mail counts once and every command has one reply, however the client's octets are cut."""
    chunked = mail(300) + mail(120)
    stream = chunked + _GROUP
    async with relay(certificates, "--distinct") as at:
        reader, writer = streams = await _sign_in(at)
        for place in range(0, len(stream), cut):
            writer.write(stream[place : place + cut])
            await asyncio.sleep(0)
        assert [(await reader.readline())[:3] for _ in range(9)] == [b"250"] * 8 + [b"354"]
        content = _CONTENT % 7
        for place in range(0, len(content), cut):
            writer.write(content[place : place + cut])
            await asyncio.sleep(0)
        assert (await reader.readline())[:3] == b"250"
        await sign_out(streams)
    assert at.counts["errors"] == 0, at.counts["first_error"]
    assert (at.counts["mails"], at.counts["message_ids"]) == (3, 2)
    assert at.counts["octets"] == 300 + 120 + len(content) - 3


async def test_reads_past_a_refused_chunk(certificates: Certificates) -> None:
    """BDAT without a recipient gets one reply, 503: its octets do not run as commands (RFC 3030, 2)."""
    async with relay(certificates) as at:
        streams = await _sign_in(at)
        assert await _say(streams, b"BDAT 6 LAST\r\nNOOP\r\nRSET\r\n", 2) == [b"503", b"250"]
        assert await _say(streams, mail(200), 3) == [b"250"] * 3
        await sign_out(streams)
    assert (at.counts["mails"], at.counts["refused_chunks"], at.counts["errors"]) == (1, 1, 0)


@pytest.mark.parametrize(
    ("hidden", "said", "reply"),
    [
        (None, b"HELP\r\n", b"500"),
        (None, b"RCPT TO:<ada@example.org>\r\n", b"503"),
        (None, b"MAIL FROM:<codes@example.org> \r\n", b"503"),
        ("CHUNKING", mail(100), b"250"),  # MAIL and RCPT are in order; BDAT and each line of the content are not
        ("PIPELINING", _GROUP, b"250"),  # and then 554, and the end
        (None, _GROUP + _CONTENT % 1, b"250"),  # content that did not wait for 354: 554, and the end
    ],
)
async def test_counts_errors(certificates: Certificates, *, hidden: str | None, said: bytes, reply: bytes) -> None:
    """The relay counts the errors of a client."""
    async with relay(certificates, *(("--hide", hidden) if hidden else ())) as at:
        streams = await _sign_in(at)
        assert await _say(streams, said, 1) == [reply]
        streams[1].close()
        await at.stop()
    assert at.counts["errors"] > 0
    assert at.counts["mails"] == 0


async def test_takes_its_time_over_a_mail(certificates: Certificates, *, quick: bool) -> None:
    """The time to accept passes for each mail of a connection in turn, and the distance is added once."""
    async with relay(certificates, "--rtt", 20, "--accept", 50) as at:
        streams = await _sign_in(at)
        began = time.monotonic()
        assert await _say(streams, mail(200) * 3, 9) == [b"250"] * 9
        took = time.monotonic() - began
        assert took > 3 * 0.05 + 0.015
        assert quick or took < 0.2, "the distance was added to each mail"
        await sign_out(streams)


async def test_refuses_some_and_closes_now_and_then(certificates: Certificates) -> None:
    """The relay refuses each third mail at its end; after the fourth it says 421, and reads nothing more."""
    async with relay(certificates, "--refuse-every", 3, "--close-every", 4) as at:
        streams = await _sign_in(at)
        said = await _say(streams, mail(200) * 5, 13)
        assert await streams[0].read() == b""
        streams[1].close()
    assert [said[place] for place in (2, 5, 8, 11, 12)] == [b"250", b"250", b"550", b"250", b"421"]
    counts = at.counts
    assert (counts["mails"], counts["refused"], counts["closed"], counts["errors"]) == (3, 1, 1, 0)


@pytest.mark.parametrize("first_octets", [0, 150], ids=["whole", "in pieces"])
async def test_ends_a_connection_that_begins_a_mail_too_many(certificates: Certificates, first_octets: int) -> None:
    """The relay says 421 to the fourth MAIL and reads nothing more; a connection that stops before gets no 421."""
    mails = mail(200) * 5
    async with relay(certificates, "--close-after", 3, "--rtt", 5) as at:
        modest, greedy = await _sign_in(at), await _sign_in(at)
        assert await _say(modest, mail(200) * 3, 9) == [b"250"] * 9
        await sign_out(modest)
        said = await _say(greedy, mails[:first_octets], 1 if first_octets else 0)
        said += await _say(greedy, mails[first_octets:], 10 - len(said))
        assert said == [b"250"] * 9 + [b"421"]
        assert await greedy[0].read() == b""
        greedy[1].close()
    counts = at.counts
    assert (counts["mails"], counts["closed"], counts["errors"]) == (6, 1, 0)
