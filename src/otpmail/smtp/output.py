"""What is to be written on a connection, in the order of the wire, and how many replies it asks for. No I/O."""

from collections import deque

from otpmail.smtp.transaction import Transaction


class Output:
    """Pieces of octets; what is taken counts as written. `pending` is how many octets wait.

    `asked` is how many replies are owed to commands that have begun to leave: whoever reads one takes it off.
    """

    def __init__(self) -> None:
        self.pending = 0
        self.asked = 0
        self._pieces: deque[tuple[bytes, Transaction | None, int]] = deque()
        self._offset = 0  # how much of the first piece is taken

    def __repr__(self) -> str:
        return f"<Output {self.pending} octets wait, {self.asked} replies owed>"

    def push(self, piece: bytes, last_of: Transaction | None = None, *, asks: int = 1) -> None:
        """Have it written. `last_of`: whose content it ends; `asks`: how many replies it is to get."""
        self._pieces.append((piece, last_of, asks))
        self.pending += len(piece)

    def take(self, most: int) -> bytes:
        """The next octets to write, at most `most`. Empty when there are none."""
        taken: list[bytes] = []
        left = most
        while self._pieces and left:
            piece, last_of, asks = self._pieces[0]
            size = len(piece)
            if not self._offset:
                self.asked += asks
            if self._offset or size > left:
                piece = piece[self._offset : self._offset + left]
            taken.append(piece)
            left -= len(piece)
            self._offset += len(piece)
            if self._offset == size:
                self._pieces.popleft()
                self._offset = 0
                if last_of is not None:
                    last_of.written = True
        self.pending -= most - left
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def clear(self) -> None:
        """Nothing more is to be written."""
        self._pieces.clear()
        self.pending = 0
