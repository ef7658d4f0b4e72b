"""Encoders of text and token ids without any vocabulary of their own.

Legend: B samples a batch, T bytes or tokens, W words, F features.
"""

import torch
from torch import Tensor, nn

# Words are told apart by a polynomial hash modulo a prime, whose products fit 64 bits.
_PRIME, _BASE = 2**31 - 1, 1_000_003
# Letters, digits and every byte of a character beyond ASCII belong to a word.
_WORD_BYTES = frozenset({*b"0123456789abcdefghijklmnopqrstuvwxyz", *range(128, 256)})


class WordIds(nn.Module):
    """Text as bytes (B, T) of uint8, or token ids (B, T), to word ids (B, W) below ``size``.

    A word of text is a run of letters and digits, whatever their case; its id is its hash (the
    hashing trick). 0 is no word.
    """

    powers: Tensor
    inverses: Tensor
    lower: Tensor
    in_word: Tensor

    def __init__(self, length: int, size: int) -> None:
        super().__init__()
        self.size = size
        powers = [pow(_BASE, position, _PRIME) for position in range(length)]
        inverses = [pow(_BASE, -position, _PRIME) for position in range(length)]
        lower = [byte + 32 if 65 <= byte <= 90 else byte for byte in range(256)]
        tables = {
            "powers": torch.tensor(powers),
            "inverses": torch.tensor(inverses),
            "lower": torch.tensor(lower),
            "in_word": torch.tensor([byte in _WORD_BYTES for byte in lower]),
        }
        for name, table in tables.items():  # constants: no payload holds them
            self.register_buffer(name, table, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.uint8:
            return torch.where(x > 0, x % (self.size - 1) + 1, 0)
        bytes_BT = x.long()
        in_word_BT = self.in_word[bytes_BT]
        before_BT = nn.functional.pad(in_word_BT, (1, 0))[:, :-1]
        after_BT = nn.functional.pad(in_word_BT, (0, 1))[:, 1:]
        is_last_BT = in_word_BT & ~after_BT
        terms_BT = self.lower[bytes_BT] * self.powers % _PRIME * in_word_BT
        sums_BT = terms_BT.cumsum(1)
        # Of each byte, its word's first position, and the sum before that.
        positions_T = torch.arange(x.shape[1], device=x.device)
        first_BT = torch.where(in_word_BT & ~before_BT, positions_T, 0).cummax(1).values
        start_BT = sums_BT.gather(1, first_BT) - terms_BT.gather(1, first_BT)
        hash_BT = (sums_BT - start_BT) % _PRIME * self.inverses[first_BT] % _PRIME
        word_BT = is_last_BT.cumsum(1) * is_last_BT  # the word's number, from 1; 0 is dropped
        width = int(word_BT.max()) + 1 if word_BT.numel() else 1
        ids_BW = torch.zeros(len(x), max(width, 2), dtype=torch.int64, device=x.device)
        ids_BW.scatter_(1, word_BT, torch.where(is_last_BT, hash_BT % (self.size - 1) + 1, 0))
        return ids_BW[:, 1:]


class TokenEncoder(nn.Module):
    """Embedded words, weighted by learnt attention or evenly, and a dense layer: (B, T) -> (B, F).

    Padding has no weight; a sample without any word has the features of zeros.
    """

    def __init__(self, length: int, width: int, size: int, *, attention: bool) -> None:
        super().__init__()
        self.words = WordIds(length, size)
        self.embedding = nn.Embedding(size, width, padding_idx=0)
        self.score = nn.Linear(width, 1) if attention else None
        self.dense = nn.Sequential(nn.Linear(width, width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        ids_BW = self.words(x)
        words_BWF = self.embedding(ids_BW)
        is_word_BW1 = (ids_BW > 0)[..., None]
        if self.score is None:
            weight_BW1 = is_word_BW1 / is_word_BW1.sum(1, keepdim=True).clamp_min(1)
        else:
            score_BW1 = self.score(torch.tanh(words_BWF)).masked_fill(~is_word_BW1, -1e9)
            weight_BW1 = torch.softmax(score_BW1, 1) * is_word_BW1
        pooled: Tensor = self.dense((words_BWF * weight_BW1).sum(1))
        return pooled
