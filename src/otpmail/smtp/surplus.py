"""Finds the recipients that were too many in one transaction (RFC 5321, 4.5.3.1.10). Pure."""

from collections.abc import Sequence

from otpmail.model import RecipientResult
from otpmail.smtp.replies import Reply
from otpmail.smtp.reply_kind import Command, ReplyKind, kind_of


def without_surplus(
    results: Sequence[RecipientResult], replies: Sequence[Reply], final: Reply | None
) -> tuple[tuple[RecipientResult, ...], int]:
    """Return the results that count, and how many recipients the relay takes at once, 0 where that is not known.

    `replies` are those to RCPT, of which one at least is positive, and `final` the one to the content. A result that is
    left out says nothing of its recipient, who was one too many. Where the content is refused for that, all of them
    were; half as many may do, unless RCPT was refused too, as by Exim's recipients_max_reject.
    """
    taken = [reply.code < 300 for reply in replies]
    first, count = taken.index(True), taken.count(True)
    surplus = [
        place > first and not is_taken and _is_surplus(Command.RCPT, results[place])
        for place, is_taken in enumerate(taken)
    ]
    # Where others were taken behind one, it is not their number.
    limit = count if True in surplus and True not in taken[surplus.index(True) :] else 0
    if final is not None and final.code >= 400 and count > 1 and _is_surplus(Command.CONTENT, results[first]):
        surplus = [is_surplus or is_taken for is_surplus, is_taken in zip(surplus, taken, strict=True)]
        limit = limit or count // 2
    kept = [result for result, is_surplus in zip(results, surplus, strict=True) if not is_surplus]
    return tuple(kept), limit


def _is_surplus(command: Command, refused: RecipientResult) -> bool:
    kind = kind_of(command, refused.code, refused.enhanced_code, refused.reply, others_accepted=True)
    return kind is ReplyKind.RECIPIENT_LIMIT
