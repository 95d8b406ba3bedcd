"""Mails and claims that may be ours on the server, while their callers were refused, since an answer was lost."""

from otpmail.store.redis.notes import Held, Note, Notes

_MOST = 10_000


class Doubtful:
    """Takes them back by a note, and again whenever one of them turns up.

    The server may carry out a step whose answer was lost behind the note that was to undo it.
    Its whole state: `_held` has the latest 10,000 by mail id, `_by_request` has their ids by request id.
    """

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._held: dict[str, Held] = {}
        self._by_request: dict[bytes, str] = {}

    def __repr__(self) -> str:
        return f"<Doubtful {len(self._held)}>"

    def get(self, mail_id: str) -> Held | None:
        """Return what is held of a mail that was taken back."""
        return self._held.get(mail_id)

    def retract(self, mail_id: str, held: Held) -> None:
        """Take back a mail, or a claim, that the server may have, now and whenever it turns up again."""
        if len(self._held) >= _MOST:
            self.trust(next(iter(self._held)))
        self._held[mail_id] = held
        if held.request is not None:
            self._by_request[held.request] = mail_id
        self._notes.add(Note("retract" if held.has_content else "release", mail_id, held))

    def retract_again(self, mail_id: str, request: bytes | None) -> None:
        """Take back what was to be taken back before, where a mail or its request id has turned up.

        A claim that was taken over has the id of the earlier mail, and is known by its request id alone.
        """
        of_request = self._by_request.get(request) if request is not None else None
        for one in dict.fromkeys((mail_id, of_request)):
            if one is not None and (held := self._held.get(one)) is not None:
                self.retract(one, held)

    def trust(self, mail_id: str) -> None:
        """Take a mail back no more."""
        held = self._held.pop(mail_id, None)
        if held is not None and held.request is not None and self._by_request.get(held.request) == mail_id:
            del self._by_request[held.request]
