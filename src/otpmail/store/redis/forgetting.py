"""Forgets settled mails: their records end by themselves, the two indexes of them are swept."""

from otpmail.store.base import MOST_REQUESTS
from otpmail.store.redis.client import Client
from otpmail.store.redis.foreign import Foreign
from otpmail.store.redis.keys import Keys
from otpmail.store.redis.script import Script

_FORGET = Script.load("mail_forget")
_SLICE = 200


async def forget_ended(client: Client, keys: Keys, foreign: Foreign, *, most: int) -> None:
    """Forget mails past their time, and the oldest ones beyond `most`, MOST_REQUESTS of those with a request id.

    Every replica does so; what another has forgotten already is no harm. Raises Unavailable.
    """
    seconds, microseconds = await client.command("TIME")
    now = 1000 * int(seconds) + int(microseconds) // 1000
    for index, bound in ((keys.settled, most), (keys.answered, MOST_REQUESTS)):
        await client.command("ZREMRANGEBYSCORE", index, "-inf", now)
        while (excess := await client.command("ZCARD", index) - bound) > 0:
            oldest = await client.command("ZRANGE", index, 0, min(excess, _SLICE) - 1)
            await _forget(client, keys, foreign, index, [mail_id.decode() for mail_id in oldest])


async def _forget(client: Client, keys: Keys, foreign: Foreign, index: bytes, mail_ids: list[str]) -> None:
    requests = await foreign.requests(mail_ids)
    names = [index]
    for mail_id in mail_ids:
        record = keys.mail(mail_id)
        names += (record, requests.get(mail_id, record))
    await client.run(_FORGET, names, mail_ids)
