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
    were, and half as many may do.
    """
    taken = [reply.code < 300 for reply in replies]
    first, count = taken.index(True), taken.count(True)
    refuses_all = final is not None and final.code >= 400 and count > 1 and _is_surplus(Command.CONTENT, results[first])
    surplus = [
        refuses_all if is_taken else place > first and _is_surplus(Command.RCPT, results[place])
        for place, is_taken in enumerate(taken)
    ]
    kept = tuple([result for result, is_surplus in zip(results, surplus, strict=True) if not is_surplus])
    if refuses_all:
        return kept, count // 2
    # Where others were taken behind one, it is not their number.
    is_limit = True in surplus and True not in taken[surplus.index(True) :]
    return kept, count if is_limit else 0


def _is_surplus(command: Command, refused: RecipientResult) -> bool:
    kind = kind_of(command, refused.code, refused.enhanced_code, refused.reply, others_accepted=True)
    return kind is ReplyKind.RECIPIENT_LIMIT
