"""What is to be written on a connection, in the order of the wire, and how many replies it asks for. No I/O."""

from collections import deque

from otpmail.smtp.transaction import Transaction


class Output:
    """Pieces of octets; what is taken counts as written. `pending` is how many octets wait.

    `asked` is how many replies are owed to pieces that have begun to leave: whoever reads one takes it off.
    """

    def __init__(self) -> None:
        self.pending = 0
        self.asked = 0
        self._pieces: deque[tuple[bytes, Transaction | None, int, int]] = deque()
        self._offset = 0  # how much of the first piece is taken

    def __repr__(self) -> str:
        return f"<Output {self.pending} octets wait, {self.asked} replies owed>"

    def push(self, piece: bytes, last_of: Transaction | None = None, *, asks: int = 1, behind: int = 0) -> None:
        """Have it written.

        `last_of`: whose content ends in it, so many octets `behind` which there are; `asks`: how many replies it gets.
        """
        self._pieces.append((piece, last_of, asks, behind))
        self.pending += len(piece)

    def take(self, most: int) -> bytes:
        """The next octets to write, at most `most`. Empty when there are none."""
        if self.pending <= most and not self._offset:
            return self._take_all()
        taken: list[bytes] = []
        left = most
        while self._pieces and left:
            piece, last_of, asks, behind = self._pieces[0]
            size = len(piece)
            if not self._offset:
                self.asked += asks
            if self._offset or size > left:
                piece = piece[self._offset : self._offset + left]
            taken.append(piece)
            left -= len(piece)
            self._offset += len(piece)
            if last_of is not None and self._offset >= size - behind:
                last_of.written = True
            if self._offset == size:
                self._pieces.popleft()
                self._offset = 0
        self.pending -= most - left
        return b"".join(taken)

    def _take_all(self) -> bytes:
        """What nearly always can be taken at once: pieces that nothing is taken of yet."""
        taken: list[bytes] = []
        for piece, last_of, asks, _ in self._pieces:
            taken.append(piece)
            self.asked += asks
            if last_of is not None:
                last_of.written = True
        self.clear()
        return b"".join(taken)

    def clear(self) -> None:
        """Nothing more is to be written."""
        self._pieces.clear()
        self.pending = 0
