"""Reader of the Free Spoken Digit Dataset: six speakers' digits as log-mel pictures.

Legend: A audio samples, F frames, B mel bands, Q frequencies of the spectrum.
"""

import io
import wave
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from graft.core.records import FloatArray
from graft.data.domain import DomainData
from graft.data.public.archives import Originals
from graft.data.public.recordings import Tally, describe
from graft.errors import DatasetFormatError

RATE_HZ = 8_000
FRAME = 200  # 25 ms
HOP = 80  # 10 ms
FFT_LENGTH = 256
NUM_BANDS = 32
NUM_FRAMES = 64
LOG_FLOOR = 1e-6
# Over the whole set log-mel energies are about -6.5 +- 5; fixed, so no person is normalised.
LOG_CENTRE = -6.5
LOG_SCALE = 5.0

DESCRIPTION = describe("fsdd")


def read_fsdd(originals: Originals, tally: Tally) -> Iterator[DomainData]:
    """One domain a speaker, by name.

    A sample is (32, 64), one recording, its own group: the log energies of 32 mel bands in 64
    frames of 25 ms, 10 ms apart, of the recording's middle, silence at both ends where it is
    shorter; then (value + 6.5) / 5. Rows are ordered by the take's index and then by digit,
    so that every digit occurs early and late. A recording's rows in the report are its audio
    samples. Raises DatasetFormatError for no recording, or one that is not 8 kHz mono 16-bit wav.
    """
    takes: dict[str, list[tuple[int, int, str]]] = {}
    for name, match in originals.matching(r"(?P<digit>\d)_(?P<who>[a-z]+)_(?P<take>\d+)\.wav"):
        takes.setdefault(match["who"], []).append((int(match["take"]), int(match["digit"]), name))
    if not takes:
        raise DatasetFormatError(
            f"{originals.label}: got no <digit>_<speaker>_<index>.wav, wanted recordings"
        )
    filters_BQ = _mel_filters()
    for speaker, spoken in sorted(takes.items()):
        spoken.sort()
        parts = []
        for index, (_, digit, name) in enumerate(spoken):
            audio_A = _read_audio(originals, name)
            tally.add_recording(rows=len(audio_A))
            parts.append((_log_mel(audio_A, filters_BQ)[None], digit, index))
        yield tally.domain(speaker, DESCRIPTION.task.sample_shape, parts)


def _read_audio(originals: Originals, name: str) -> FloatArray:
    """One recording's samples (A,) in [-1, 1)."""
    try:
        with wave.open(io.BytesIO(originals.read(name))) as recording:
            kind = (recording.getframerate(), recording.getnchannels(), recording.getsampwidth())
            frames = recording.readframes(recording.getnframes())
    except (wave.Error, EOFError) as error:
        raise DatasetFormatError(f"{originals.label}: {name} is no wav ({error})") from error
    if kind != (RATE_HZ, 1, 2):
        raise DatasetFormatError(
            f"{originals.label}: {name}: got (rate, channels, bytes a sample) {kind}, "
            f"wanted {(RATE_HZ, 1, 2)}"
        )
    return (np.frombuffer(frames, dtype="<i2") / 32768.0).astype(np.float32)


def _log_mel(audio_A: FloatArray, filters_BQ: npt.NDArray[np.float64]) -> FloatArray:
    """The scaled log energies (B, F) of a recording's middle."""
    wanted = FRAME + HOP * (NUM_FRAMES - 1)
    spare = wanted - len(audio_A)
    if spare >= 0:
        middle_A = np.pad(audio_A, (spare // 2, spare - spare // 2))
    else:
        middle_A = audio_A[-spare // 2 :][:wanted]
    frames = sliding_window_view(middle_A, FRAME)[::HOP] * np.hanning(FRAME)
    power_FQ = np.abs(np.fft.rfft(frames, FFT_LENGTH, axis=1)) ** 2
    log_BF = np.log(filters_BQ @ power_FQ.T + LOG_FLOOR)
    scaled_BF: FloatArray = ((log_BF - LOG_CENTRE) / LOG_SCALE).astype(np.float32)
    return scaled_BF


def _mel_filters() -> npt.NDArray[np.float64]:
    """Triangular filters (B, Q), evenly spaced on the HTK mel scale from 60 Hz to 4 kHz."""

    def to_mel(frequency_hz: float) -> float:
        return float(2595.0 * np.log10(1.0 + frequency_hz / 700.0))

    edges_mel = np.linspace(to_mel(60.0), to_mel(RATE_HZ / 2), NUM_BANDS + 2)
    edges_hz = 700.0 * (10.0 ** (edges_mel / 2595.0) - 1.0)
    bins_hz = np.fft.rfftfreq(FFT_LENGTH, 1.0 / RATE_HZ)
    low, peak, high = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    rising = (bins_hz - low) / (peak - low)
    falling = (high - bins_hz) / (high - peak)
    return np.maximum(0.0, np.minimum(rising, falling))
